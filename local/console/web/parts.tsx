import type { ComponentChildren, JSX } from 'preact';
import type { CheckView, Counts, NameKind } from '../views.ts';
import { clock, distance, duration, number } from './format.ts';
import { useNow } from './live.ts';
import { Link } from './router.tsx';

/** A moment as its distance from now. The exact time is its title. */
export function When({ at }: { readonly at: number }): JSX.Element {
  const now = useNow();
  return (
    <time dateTime={new Date(at).toISOString()} title={clock(at, now)}>
      {distance(at, now)}
    </time>
  );
}

/** How long something has lasted. */
export function Lasting({ since }: { readonly since: number }): JSX.Element {
  const now = useNow();
  return (
    <time dateTime={new Date(since).toISOString()} title={clock(since, now)}>
      {duration(now - since)}
    </time>
  );
}

/** A moment as a time of day. */
export function At({ at }: { readonly at: number }): JSX.Element {
  return <time dateTime={new Date(at).toISOString()}>{clock(at)}</time>;
}

/** A user, room or remote host, linked to what is known about it. */
export function Name({ kind, name }: { readonly kind: NameKind; readonly name: string }): JSX.Element {
  return (
    <Link class="name" to={`/search?${new URLSearchParams({ kind, name }).toString()}`}>
      {name}
    </Link>
  );
}

export interface Column<Row> {
  readonly title: string;
  readonly cell: (row: Row) => ComponentChildren;
  readonly isNumber?: true;
}

/**
 * A table. On a phone each row is a card, whose lines repeat the titles of the columns. The roles are written out
 * because `display: block` would take them away.
 */
export function Table<Row>(props: {
  readonly caption: string;
  readonly columns: readonly Column<Row>[];
  readonly rows: readonly Row[];
  readonly rowKey: (row: Row) => string | number;
  /** What to say if there are no rows. */
  readonly empty: string;
}): JSX.Element {
  const { caption, columns, rows, rowKey, empty } = props;
  if (rows.length === 0)
    return (
      <>
        <h2>{caption}</h2>
        <p class="empty">{empty}</p>
      </>
    );
  return (
    <table role="table">
      <caption>{caption}</caption>
      <thead role="rowgroup">
        <tr role="row">
          {columns.map(({ title, isNumber }) => (
            <th key={title} role="columnheader" scope="col" class={isNumber && 'number'}>
              {title}
            </th>
          ))}
        </tr>
      </thead>
      <tbody role="rowgroup">
        {rows.map((row) => (
          <tr key={rowKey(row)} role="row">
            {columns.map(({ title, cell, isNumber }) => (
              <td key={title} role="cell" data-title={title} class={isNumber && 'number'}>
                <span>{cell(row)}</span>
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** The totals of a check that say something, in the order of the check's work. */
const TOTALS: readonly (readonly [string, string])[] = [
  ['pinged', 'asked'],
  ['joined', 'still in'],
  ['left', 'out'],
  ['undecided', 'not confirmed'],
  ['reentered', 'brought back'],
  ['notified', 'notified'],
  ['gone', 'offline'],
  ['stale', 'replaced'],
];

export function Totals({ totals }: { readonly totals: Counts }): JSX.Element {
  const shown = TOTALS.filter(([name]) => (totals[name] ?? 0) > 0);
  if (shown.length === 0) return <span class="quiet">nobody asked</span>;
  return (
    <span class="totals">
      {shown.map(([name, word]) => (
        <span key={name} class={`total ${name}`}>
          <b>{number(totals[name] ?? 0)}</b> {word}{' '}
        </span>
      ))}
    </span>
  );
}

const PHASES: Readonly<Record<CheckView['phase'], string>> = {
  waits: 'info',
  runs: 'info',
  'asks again': 'warn',
  'is held': 'bad',
  done: 'good',
  superseded: 'quiet',
  dropped: 'warn',
  failed: 'bad',
  stopped: 'warn',
};

export function Phase({ check }: { readonly check: CheckView }): JSX.Element {
  return <Badge tone={PHASES[check.phase]}>{check.isDryRun ? `${check.phase} (dry run)` : check.phase}</Badge>;
}

export function Badge(props: { readonly tone: string; readonly children: ComponentChildren }): JSX.Element {
  return <span class={`badge ${props.tone}`}>{props.children}</span>;
}

/** What a check asks about: all rooms of a remote host, or one room. */
export function Target({ check }: { readonly check: CheckView }): JSX.Element {
  return check.room === undefined ? <Name kind="remote" name={check.remote} /> : <Name kind="room" name={check.room} />;
}

/** A page's content before its first answer, or when the server has gone. */
export function Pending({ isLost }: { readonly isLost: boolean }): JSX.Element {
  return <p class="empty">{isLost ? 'No answer from ping-muc.' : 'Loading…'}</p>;
}
