import { type JSX, render } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import type { OverviewView } from '../views.ts';
import { AlarmsPage } from './alarms.tsx';
import { ChecksPage } from './checks.tsx';
import { DashboardPage } from './dashboard.tsx';
import { useLive } from './live.ts';
import { Markdown } from './markdown.tsx';
import { OverviewPage } from './overview.tsx';
import { Pending } from './parts.tsx';
import { Link, useAddress } from './router.tsx';
import { SearchPage } from './search.tsx';
import { ServersPage } from './servers.tsx';

const TITLES: Readonly<Record<string, string>> = {
  '/': 'Overview',
  '/dashboard': 'Dashboard',
  '/alarms': 'Alarms',
  '/checks': 'Checks',
  '/search': 'Search',
  '/servers': 'Servers',
  '/runbook': 'Runbook',
};

function App(): JSX.Element {
  const address = useAddress();
  const overview = useLive<OverviewView>('overview');
  const { pathname } = address;
  const title = TITLES[pathname] ?? 'Overview';
  const heading = useRef<HTMLHeadingElement>(null);
  const first = useRef(true);
  const health = overview.data?.health;
  useEffect(() => {
    // a screen reader reads the new page's title, as if the document had been loaded
    if (!first.current) heading.current?.focus();
    first.current = false;
  }, [pathname]);
  useEffect(() => {
    document.title = `${health?.level === 'bad' ? '⚠ ' : ''}${title} – ping-muc`;
  }, [title, health?.level]);
  return (
    <>
      <a class="skip" href="#main">
        Skip to the content
      </a>
      <header>
        <b class="brand">ping-muc</b>
        <nav aria-label="Pages">
          {Object.entries(TITLES).map(([path, name]) => (
            <Link key={path} to={path} isCurrent={path === pathname}>
              {name}
            </Link>
          ))}
        </nav>
      </header>
      <main id="main" tabIndex={-1}>
        <h1 ref={heading} tabIndex={-1}>
          {title}
        </h1>
        <p class="visually-hidden" role="status">
          {overview.isLost ? 'ping-muc does not answer.' : health?.sentence}
        </p>
        {overview.isLost && <p class="health bad">ping-muc does not answer. What is shown may be old.</p>}
        <Page address={address} overview={overview} />
      </main>
    </>
  );
}

function Page(props: {
  readonly address: URL;
  readonly overview: ReturnType<typeof useLive<OverviewView>>;
}): JSX.Element {
  const { address, overview } = props;
  switch (address.pathname) {
    case '/dashboard':
      return <DashboardPage address={address} alarms={overview.data?.alarms ?? []} />;
    case '/alarms':
      return <AlarmsPage address={address} />;
    case '/checks':
      return <ChecksPage address={address} />;
    case '/search':
      return <SearchPage address={address} />;
    case '/servers':
      return <ServersPage />;
    case '/runbook':
      return <RunbookPage />;
    default:
      return <OverviewPage overview={overview} />;
  }
}

/** The page does not change while ping-muc runs. */
const RUNBOOK_RENEWED_MS = 3_600_000;

function RunbookPage(): JSX.Element {
  const { data, isLost } = useLive<{ readonly markdown: string }>('runbook', RUNBOOK_RENEWED_MS);
  return data === undefined ? <Pending isLost={isLost} /> : <Markdown text={data.markdown} />;
}

const root = document.getElementById('app');
if (root !== null) render(<App />, root);
