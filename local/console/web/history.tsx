import type { JSX } from 'preact';
import type { HistoryView } from '../views.ts';
import { At, type Column, Name, Table, Totals } from './parts.tsx';
import { Link } from './router.tsx';

const COLUMNS: readonly Column<HistoryView>[] = [
  {
    title: 'When',
    cell: ({ at, check }) => (
      <Link to={`/checks?${new URLSearchParams({ name: check }).toString()}`}>
        <At at={at} />
      </Link>
    ),
  },
  {
    title: 'Who',
    cell: ({ user }) => (user === undefined ? <span class="quiet">the check</span> : <User jid={user} />),
  },
  {
    title: 'Where',
    cell: ({ room, remote }) =>
      room === undefined ? <Name kind="remote" name={remote} /> : <Name kind="room" name={room} />,
  },
  {
    title: 'What happened',
    cell: (line) => (
      <>
        <span class={line.isError ? 'error' : undefined}>{line.what}</span>{' '}
        {line.totals !== undefined && <Totals totals={line.totals} />}
      </>
    ),
  },
  {
    title: 'Answers',
    cell: ({ answers }) => (
      <ol class="answers">
        {answers.map((answer, index) => (
          <li key={index}>
            <code>{answer}</code>
          </li>
        ))}
      </ol>
    ),
  },
];

/** A session's full JID: its user, linked, and its resource. */
export function User({ jid }: { readonly jid: string }): JSX.Element {
  const [bare = ''] = jid.split('/', 1);
  return (
    <>
      <Name kind="user" name={bare} />
      <span class="quiet">{jid.slice(bare.length)}</span>
    </>
  );
}

/** What became of joins in checks. */
export function History(props: { readonly lines: readonly HistoryView[]; readonly isCut: boolean }): JSX.Element {
  const { lines, isCut } = props;
  return (
    <>
      <Table
        caption="What happened in checks, newest first"
        columns={COLUMNS}
        rows={lines}
        rowKey={({ at, check, user, room, what }) => `${at} ${check} ${user ?? ''} ${room ?? ''} ${what}`}
        empty="No check has found anything worth a line in the last 30 days: where one asked, the users were still in."
      />
      {isCut && <p class="quiet">There is more than these {lines.length} lines.</p>}
    </>
  );
}
