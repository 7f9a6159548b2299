import type { JSX } from 'preact';
import type { CheckView, ChecksView, HistoryView } from '../views.ts';
import { duration, number, plural } from './format.ts';
import { History } from './history.tsx';
import { useLive } from './live.ts';
import { At, type Column, Pending, Phase, Table, Target, Totals, When } from './parts.tsx';
import { Link } from './router.tsx';

const CAUSES: Readonly<Record<string, string>> = {
  close: 'The connection closed.',
  'room-error': 'The room answered with an error.',
  silence: 'The room was silent for long.',
  operator: 'An operator asked.',
};

const to = ({ name }: CheckView): string => `/checks?${new URLSearchParams({ name }).toString()}`;

const TARGET: Column<CheckView> = { title: 'Rooms on', cell: (check) => <Target check={check} /> };
const CAUSE: Column<CheckView> = {
  title: 'Cause',
  cell: (check) => <Link to={to(check)}>{CAUSES[check.cause] ?? check.cause}</Link>,
};
const STATE: Column<CheckView> = { title: 'State', cell: (check) => <Phase check={check} /> };

const WAITING: readonly Column<CheckView>[] = [
  TARGET,
  CAUSE,
  STATE,
  { title: 'Continues', cell: ({ nextAt }) => (nextAt === undefined ? 'now' : <When at={nextAt} />) },
  { title: 'How far', cell: (check) => <Progress check={check} /> },
];
const ENDED: readonly Column<CheckView>[] = [
  TARGET,
  CAUSE,
  STATE,
  { title: 'Ended', cell: ({ endedAt = 0 }) => <When at={endedAt} /> },
  { title: 'Took', cell: ({ endedAt = 0, due }) => duration(endedAt - due), isNumber: true },
  { title: 'Result', cell: (check) => check.error ?? <Totals totals={check.totals} /> },
];

function Progress({ check }: { readonly check: CheckView }): JSX.Element {
  const { totals, round, open, joins = 0 } = check;
  const asked = totals['pinged'] ?? 0;
  if (round > 0)
    return (
      <span>
        round {round + 1}, {plural(open, 'join')} open <Totals totals={totals} />
      </span>
    );
  if (asked === 0) return <span class="quiet">{plural(joins, 'join')} to ask</span>;
  return (
    <span>
      {number(asked)} asked, {number(joins)} recorded <Totals totals={totals} />
    </span>
  );
}

export function Waiting({ checks }: { readonly checks: readonly CheckView[] }): JSX.Element {
  const empty = 'No check waits.';
  return <Table caption="Checks that wait or run" columns={WAITING} rows={checks} rowKey={nameOf} empty={empty} />;
}

export function Ended({ checks }: { readonly checks: readonly CheckView[] }): JSX.Element {
  const empty = 'No check has ended yet.';
  return <Table caption="Checks that ended" columns={ENDED} rows={checks} rowKey={nameOf} empty={empty} />;
}

const nameOf = ({ name }: CheckView): string => name;

/** Says that there is more. */
export function Cut({ shown, count }: { readonly shown: number; readonly count: number }): JSX.Element | null {
  if (count <= shown) return null;
  return (
    <p class="quiet">
      The first {number(shown)} of {number(count)} are shown.
    </p>
  );
}

export function ChecksPage({ address }: { readonly address: URL }): JSX.Element {
  const name = address.searchParams.get('name');
  const { data, isLost } = useLive<ChecksView>('checks');
  if (data === undefined) return <Pending isLost={isLost} />;
  if (name !== null) return <CheckPage name={name} checks={data} />;
  return (
    <>
      <section class="card">
        <Waiting checks={data.waiting} />
        <Cut shown={data.waiting.length} count={data.waitingCount} />
      </section>
      <section class="card">
        <Ended checks={data.ended} />
        <Cut shown={data.ended.length} count={data.endedCount} />
      </section>
    </>
  );
}

function CheckPage({ name, checks }: { readonly name: string; readonly checks: ChecksView }): JSX.Element {
  const { data, isLost } = useLive<{ readonly lines: readonly HistoryView[]; readonly isCut: boolean }>(
    `check?${new URLSearchParams({ name }).toString()}`,
  );
  const check = [...checks.waiting, ...checks.ended].find((one) => one.name === name);
  return (
    <>
      {check !== undefined && (
        <section class="card">
          <h2>
            <Target check={check} /> <Phase check={check} />
          </h2>
          <dl class="facts">
            <dt>Cause</dt>
            <dd>{CAUSES[check.cause] ?? check.cause}</dd>
            <dt>Reported by</dt>
            <dd>{check.host}</dd>
            <dt>Closed</dt>
            <dd>
              <At at={check.closedAt} />
            </dd>
            <dt>Due</dt>
            <dd>
              <At at={check.due} />
            </dd>
            <dt>Result</dt>
            <dd>
              <Totals totals={check.totals} />
            </dd>
          </dl>
        </section>
      )}
      <section class="card">
        {data === undefined ? <Pending isLost={isLost} /> : <History lines={data.lines} isCut={data.isCut} />}
      </section>
    </>
  );
}
