import type { Kind, Roles } from './servers.ts';

/** A test that is not run with a server in a role, and why. */
interface Difference {
  readonly server: Kind;
  readonly role: keyof Roles | 'either';
  /** The file in test/e2e, without its ending. */
  readonly file: string;
  /** Of its tests, those whose names, with those of their groups, contain this text; undefined: all. */
  readonly test?: string;
  readonly reason: string;
}

/**
 * The end-to-end tests are the same for all servers. These are the exceptions, which docs/servers.md shows as a table:
 * `npm run test:servers -- --differences` writes it.
 */
const DIFFERENCES: readonly Difference[] = [
  own('lua', "tests the module's own Lua, without a server"),
  own('shell', "tests the commands in Prosody's shell"),
  own('settings', "tests changes of Prosody's configuration, and of the module's Lua files"),
  own('sender', "tests Prosody's metrics and the module's status in its shell"),
  own('package', 'does not depend on the server'),
  { server: 'prosody', role: 'users', file: 'ejabberd', reason: 'tests the commands and the installation of ejabberd' },
  { ...asUsers('doctor', 'another http_host'), reason: 'ejabberd does not have this setting' },
  {
    server: 'ejabberd',
    role: 'rooms',
    file: 'doubts',
    test: 'that has lost the occupants of a room: a user who sends its presence',
    reason: 'a room of ejabberd admits a session that sends presence to it, so that there is no error',
  },
  {
    server: 'ejabberd',
    role: 'either',
    file: 'tracking',
    test: 'recorded under a nick of emoji',
    reason: 'ejabberd does not accept characters in nicks that are newer than Unicode 3.2',
  },
  ...[
    'the room sends endless occupants during a re-entry',
    'after the time-out of a re-entry, further occupants are not kept',
  ].map((test) => ({ ...asUsers('reentry-races', test), reason: "looks into the tables of the module's Lua" })),
  {
    server: 'ejabberd',
    role: 'either',
    file: 'flap',
    test: 'a link that breaks in the last round',
    reason: 'needs managed streams between the servers (XEP-0198), which ejabberd does not have',
  },
  ...['arrived in time, and was not accepted', 'a result after the time-out was passed to the client'].map((test) => ({
    ...asUsers('verdicts', test),
    reason: 'ejabberd never passes such answers to the client, so that the test cannot see them there',
  })),
];

/** Tests that are not run with ejabberd as the users' server. */
function asUsers(file: string, test: string): Omit<Difference, 'reason'> {
  return { server: 'ejabberd', role: 'users', file, test };
}

function own(file: string, reason: string): Difference {
  return { server: 'ejabberd', role: 'either', file, reason };
}

const concerns = ({ users, rooms }: Roles, { server, role }: Difference): boolean =>
  (role !== 'rooms' && users === server) || (role !== 'users' && rooms === server);

/** The files of test/e2e that are not run at all with these servers. */
export const excludedFiles = (roles: Roles): readonly string[] =>
  DIFFERENCES.filter((difference) => difference.test === undefined && concerns(roles, difference)).map(
    ({ file }) => `test/e2e/${file}.test.ts`,
  );

/** Why a test is not run with these servers; undefined: it is. @param name of the test, after those of its groups */
export const excluded = (roles: Roles, file: string, name: string): string | undefined =>
  DIFFERENCES.find(
    (difference) => difference.file === file && name.includes(difference.test ?? '') && concerns(roles, difference),
  )?.reason;

const ROLE_NAMES = { users: "the users' server", rooms: "the rooms' server", either: 'either' } as const;

/** Finds the table in docs/servers.md. */
export const DIFFERENCES_TABLE = /^\| server \| test \| reason \|\n(?:\|.*\n)*/m;

/** The table in docs/servers.md. */
export function differencesTable(): string {
  const rows = DIFFERENCES.map(
    ({ server, role, file, test, reason }) =>
      `| ${server} as ${ROLE_NAMES[role]} | \`${file}\`${test === undefined ? '' : `: ${test}`} | ${reason} |`,
  );
  return ['| server | test | reason |', '| --- | --- | --- |', ...rows].join('\n');
}
