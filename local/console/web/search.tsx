import type { JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import type { Found, JoinView, NameKind, WhoView } from '../views.ts';
import { Cut, Ended, Waiting } from './checks.tsx';
import { plural } from './format.ts';
import { History, User } from './history.tsx';
import { ask, useLive } from './live.ts';
import { At, Badge, type Column, Name, Pending, Table, When } from './parts.tsx';

/** After the last key, before it asks. */
const TYPING_MS = 60;

const KINDS: readonly (readonly [NameKind, string])[] = [
  ['user', 'Users'],
  ['room', 'Rooms'],
  ['remote', 'Remote hosts'],
];

const WHAT: Readonly<Record<NameKind, string>> = { user: 'User', room: 'Room', remote: 'Remote host' };

const JOINS: readonly Column<JoinView>[] = [
  { title: 'User', cell: ({ user }) => <User jid={user} /> },
  { title: 'Room', cell: ({ room }) => <Name kind="room" name={room} /> },
  { title: 'Nick', cell: ({ nick }) => nick },
  { title: 'Since', cell: ({ since }) => <At at={since} /> },
  {
    title: 'Last check',
    cell: ({ isUndecided, confirmedAt }) =>
      isUndecided ? (
        <Badge tone="warn">not certain, will be asked again</Badge>
      ) : confirmedAt === undefined ? (
        <span class="quiet">none since the join</span>
      ) : (
        <>
          still in the room, <When at={confirmedAt} />
        </>
      ),
  },
];

export function SearchPage({ address }: { readonly address: URL }): JSX.Element {
  const [kind, name] = [address.searchParams.get('kind'), address.searchParams.get('name')];
  return (
    <>
      <SearchBox />
      {kind !== null && name !== null && <Who kind={kind as NameKind} name={name} />}
    </>
  );
}

function SearchBox(): JSX.Element {
  const [text, setText] = useState('');
  const [found, setFound] = useState<readonly Found[]>();
  useEffect(() => {
    const ended = new AbortController();
    if (text.trim() === '') setFound(undefined);
    else {
      const path = `search?${new URLSearchParams({ q: text }).toString()}`;
      const timer = setTimeout(() => {
        ask<readonly Found[]>(path, ended.signal).then(setFound, () => undefined); // the next key asks again
      }, TYPING_MS);
      ended.signal.addEventListener('abort', () => clearTimeout(timer));
    }
    return () => ended.abort();
  }, [text]);
  return (
    <search class="card">
      <label for="search">User, room or remote host</label>
      <input
        id="search"
        type="search"
        autocomplete="off"
        spellcheck={false}
        placeholder="juliet@example.net"
        maxLength={1000}
        value={text}
        onInput={({ currentTarget }) => setText(currentTarget.value)}
      />
      <p class="quiet" role="status">
        {found === undefined ? 'Part of a name is enough.' : `${plural(found.length, 'name')} found.`}
      </p>
      {found !== undefined && found.length > 0 && <Results found={found} onOpen={() => setText('')} />}
    </search>
  );
}

function Results({ found, onOpen }: { readonly found: readonly Found[]; readonly onOpen: () => void }): JSX.Element {
  return (
    <div class="results" onClick={onOpen}>
      {KINDS.map(([kind, title]) => {
        const names = found.filter((one) => one.kind === kind);
        return names.length === 0 ? null : (
          <div key={kind}>
            <h2>{title}</h2>
            <ul>
              {names.map(({ name }) => (
                <li key={name}>
                  <Name kind={kind} name={name} />
                </li>
              ))}
            </ul>
          </div>
        );
      })}
    </div>
  );
}

function Who({ kind, name }: { readonly kind: NameKind; readonly name: string }): JSX.Element {
  const { data, isLost } = useLive<WhoView>(`who?${new URLSearchParams({ kind, name }).toString()}`);
  if (data === undefined) return <Pending isLost={isLost} />;
  const waiting = data.checks.filter(({ endedAt }) => endedAt === undefined);
  const ended = data.checks.filter(({ endedAt }) => endedAt !== undefined);
  return (
    <>
      <h2 class="who">
        <span class="quiet">{WHAT[kind]}</span> {name}
      </h2>
      <section class="card">
        <Table
          caption="In rooms now"
          columns={kind === 'room' ? JOINS.filter(({ title }) => title !== 'Room') : JOINS}
          rows={data.joins}
          rowKey={({ user, room }) => `${room} ${user}`}
          empty="No join is recorded at this moment."
        />
        <Cut shown={data.joins.length} count={data.joinCount} />
      </section>
      <section class="card">
        <History lines={data.history} isCut={data.isCut} />
      </section>
      {kind !== 'user' && (
        <section class="card">
          {waiting.length > 0 && <Waiting checks={waiting} />}
          <Ended checks={ended} />
        </section>
      )}
    </>
  );
}
