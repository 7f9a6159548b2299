import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { CloudWatch } from '../cloudwatch/cloudwatch.ts';
import type { Execution } from '../executions.ts';
import { checkView, concerns, confirmedAt, listChecks } from './checks.ts';
import { health } from './health.ts';
import type { History } from './history.ts';
import type { JoinIndex } from './joins.ts';
import type { Names } from './names.ts';
import type { Api } from './server.ts';
import type { CheckView, ChecksView, NameKind, OverviewView, ServerView, ServersView, WhoView } from './views.ts';

/** What the console shows. */
export interface Sources {
  readonly names: Names;
  readonly joins: JoinIndex;
  readonly history: History;
  readonly cloudWatch: CloudWatch;
  /** In any order. */
  readonly executions: () => readonly Execution[];
  readonly heartbeats: () => Promise<ReadonlyMap<string, NonNullable<ServerView['heartbeat']>>>;
}

/** Time ranges of the dashboard, in milliseconds. */
const HOUR_MS = 3_600_000;
const RANGES: Readonly<Record<string, number>> = {
  '1h': HOUR_MS,
  '3h': 3 * HOUR_MS,
  '12h': 12 * HOUR_MS,
  '1d': 24 * HOUR_MS,
  '7d': 7 * 24 * HOUR_MS,
  '30d': 30 * 24 * HOUR_MS,
};
/** How long an answer is used again, and how many are kept: many pages cost no more than one. */
const FRESH_MS = 1000;
const MAX_KEPT = 50;
const NEXT_DUE = 5;
const MAX_CHECKS_OF_NAME = 20;
const KINDS: ReadonlySet<string> = new Set(['user', 'room', 'remote']);
const RUNBOOK = fileURLToPath(new URL('../../docs/runbook.md', import.meta.url));

type Route = (sources: Sources, query: URLSearchParams) => unknown;

const ROUTES: Readonly<Record<string, Route>> = {
  overview,
  dashboard,
  alarms: ({ cloudWatch }) => ({ alarms: cloudWatch.alarms(), transitions: cloudWatch.transitions().slice(0, 50) }),
  checks: (sources) => checks(sources),
  check: ({ history }, query) => history.of('check', query.get('name') ?? ''),
  search: ({ names }, query) => {
    const text = query.get('q')?.trim() ?? '';
    return text === '' ? [] : names.search(text);
  },
  who,
  servers,
  runbook: async () => ({ markdown: await readFile(RUNBOOK, 'utf8') }),
};

/** The console's API. Each path gives the views of views.ts, at most a second old. */
export function consoleApi(sources: Sources, now: () => number = Date.now): Api {
  const kept = new Map<string, { readonly at: number; readonly answer: unknown }>();
  return (path, query) => {
    const route = Object.hasOwn(ROUTES, path) ? ROUTES[path] : undefined;
    if (route === undefined) return undefined;
    const key = `${path}?${query.toString()}`;
    const known = kept.get(key);
    if (known !== undefined && now() - known.at < FRESH_MS) return known.answer;
    const answer = route(sources, query);
    kept.delete(key);
    kept.set(key, { at: now(), answer });
    for (const oldest of kept.keys()) if (kept.size > MAX_KEPT) kept.delete(oldest);
    return answer;
  };
}

async function overview(sources: Sources): Promise<OverviewView> {
  const { joins, cloudWatch } = sources;
  const { servers: reporting } = await servers(sources);
  const { waiting, waitingCount, ended } = checks(sources);
  const alarms = cloudWatch.alarms().map(({ name, state, notifies }) => ({ name, state, notifies }));
  return {
    health: health(alarms, reporting, waitingCount, Date.now()),
    joins: joins.count(),
    isFilling: joins.isFilling,
    servers: reporting,
    alarms,
    due: waiting.slice(0, NEXT_DUE),
    waitingCount,
    ended: ended.slice(0, NEXT_DUE),
  };
}

function dashboard({ cloudWatch }: Sources, query: URLSearchParams): unknown {
  const range = RANGES[query.get('range') ?? ''] ?? RANGES['3h'] ?? 0;
  const to = Date.now();
  return { from: to - range, to, widgets: cloudWatch.dashboard(to - range, to) };
}

function checks({ executions, joins }: Sources): ChecksView {
  const list = listChecks(executions());
  const counts = new Map<string, number>();
  const joinsOf = ({ host, remote, room }: CheckView): number => {
    const key = room ?? `${host}#${remote}`;
    const count = counts.get(key) ?? (room === undefined ? joins.countOn(host, remote) : joins.countOf('room', room));
    counts.set(key, count);
    return count;
  };
  return { ...list, waiting: list.waiting.map((check) => ({ ...check, joins: joinsOf(check) })) };
}

function who({ joins, history, executions }: Sources, query: URLSearchParams): WhoView | undefined {
  const [kind, name] = [query.get('kind') ?? '', query.get('name') ?? ''];
  if (!KINDS.has(kind)) return undefined;
  const of = kind as NameKind;
  const all = executions().map(checkView);
  const newestFirst = all.sort((a, b) => (b.endedAt ?? Infinity) - (a.endedAt ?? Infinity));
  const { lines, isCut } = history.of(of, name);
  return {
    kind: of,
    name,
    joins: joins.of(of, name).map((join) => {
      const at = confirmedAt(join, newestFirst);
      return at === undefined ? join : { ...join, confirmedAt: at };
    }),
    joinCount: joins.countOf(of, name),
    history: lines,
    isCut,
    checks: newestFirst.filter((check) => concerns(check, of, name)).slice(0, MAX_CHECKS_OF_NAME),
  };
}

async function servers({ history, joins, heartbeats }: Sources): Promise<ServersView> {
  const rows = await heartbeats();
  const reporting = new Map(history.servers().map((server) => [server.host, server]));
  const counts = joins.countByHost();
  const refused = history.refused();
  return {
    servers: [...new Set([...reporting.keys(), ...rows.keys()])].sort().map((host) => {
      const server = reporting.get(host);
      const heartbeat = rows.get(host);
      return {
        host,
        joins: counts.get(host) ?? 0,
        ...(server === undefined ? {} : { lastWebhook: server.at, events: server.events, webhooks: server.webhooks }),
        ...(heartbeat === undefined ? {} : { heartbeat }),
      };
    }),
    ...(refused === undefined ? {} : { refused }),
  };
}
