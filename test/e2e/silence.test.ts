import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import { TwoServers } from '../../lab/two-servers.ts';
import type { User } from '../../lab/user.ts';

/** Rooms that know their users, and answers that do not come (issue 10): nobody is told. */
const DELAY = 2;
const USERS = Array.from({ length: 10 }, (_, index) => `user${index}`);
/** Longer than the delay and the time-out together. */
const SILENT_MS = 12_000;
const SETTINGS = { ping_muc_delay: DELAY, ping_muc_timeout: 3 };

/** Of what the users were told: the occupants that notices came from. */
function noticeSenders(users: readonly User[]): readonly unknown[] {
  return users.flatMap((user) => user.notices().map(({ stanza }) => stanza.attrs['from'] as unknown));
}

describe.each([
  ['each direction has its own connection; the patience is what it is by default', false, {}],
  ['one connection carries both directions; half a minute of patience', true, { ping_muc_patience: 30 }],
])('%s', (_what, bidi, patience) => {
  let testBed: TwoServers;
  const users: User[] = [];

  beforeAll(async () => {
    testBed = await TwoServers.open({ ...SETTINGS, ...patience }, { production: { bidi }, users: USERS });
    users.push(...(await Promise.all(USERS.map((name) => testBed.user(name)))));
    await Promise.all(users.map((user, index) => user.join(testBed.room(`room-${index % 3}`), USERS[index] ?? '')));
    await until('all are recorded', () => testBed.recorded() >= USERS.length);
  });
  afterAll(() => testBed.close());

  /** Nothing of what rooms say reaches the users' server. What users say reaches the rooms. */
  function silence(action: 'hold' | 'release'): void {
    testBed.away.links.get(testBed.muc)?.[action]('fromServer');
    for (const link of testBed.home.links.values()) link[action]('toServer');
  }

  it('the streams are reset, and what rooms say stays away for longer than delay and time-out: nobody is told, all are still known', async () => {
    const cut = testBed.dropStreams();
    // up again at once, as when somebody says something; the first word comes from the users' side
    await testBed.home.shell(`xmpp:ping("${testBed.home.host}", "${testBed.muc}")`).catch(() => undefined);
    silence('hold');
    const streams = await testBed.home.streams(testBed.muc);
    expect(streams.map(({ type, dir }) => `${type} ${dir}`)).toContain(bidi ? 's2sout <->' : 's2sout -->');
    const receivedCounts = (): readonly number[] => users.map((user) => user.received.length - user.notices().length);
    const before = receivedCounts();
    await sleep(cut + SILENT_MS - Date.now());
    expect(receivedCounts()).toEqual(before);
    expect(noticeSenders(users)).toEqual([]);
    silence('release');

    expect(await testBed.checkDone(cut)).toMatchObject({ joined: USERS.length, left: 0, undecided: 0, notified: 0 });
    const again = testBed.dropStreams();
    expect(await testBed.checkDone(again)).toMatchObject({ joined: USERS.length, left: 0, undecided: 0, notified: 0 });
    await sleep(500);
    expect(noticeSenders(users)).toEqual([]);
  });
});

/** Debian's limit on incoming streams between servers (mod_limits), in bytes a second. */
const LIMIT = 30 * 1024;
const TIMES = 4;
/** What a groupchat message of the test takes on the way to one occupant, at least. */
const COPY_BYTES = 200;
/** At four times the limit it takes four times as long to be read: longer than delay, time-out and patience together. */
const CHAT_MS = 12_000;
const SESSIONS = Array.from({ length: 10 }, (_, index) => `user${index}`);
const ROOMS = Array.from({ length: 50 }, (_, index) => `chat-${index}`);
const JOINS = SESSIONS.length * ROOMS.length;

describe('a chat at four times what the servers read (clients 10 kb/s, other servers 30 kb/s)', () => {
  let testBed: TwoServers;

  beforeAll(async () => {
    const settings = { ping_muc_delay: DELAY, ping_muc_timeout: 5, ping_muc_patience: 30 };
    testBed = await TwoServers.open(settings, { production: { bidi: false }, users: SESSIONS });
  });
  afterAll(() => testBed.close());

  it(`none of ${JOINS} who are in their rooms is told`, async () => {
    const mercutio = await testBed.guest('mercutio');
    const users = await Promise.all(SESSIONS.map((name) => testBed.user(name)));
    for (const room of ROOMS) {
      await mercutio.join(testBed.room(room), 'Mercutio');
      await Promise.all(users.map((user, index) => user.join(testBed.room(room), SESSIONS[index] ?? '')));
    }
    await until('all are recorded', () => testBed.recorded() >= JOINS);
    // from now on each new stream is limited; what is there would take minutes to enter so many rooms
    for (const server of [testBed.home, testBed.away]) await server.shell('module:load("limits", "*")');

    const cut = testBed.dropStreams();
    // a message into a stream that is just ending would come back, and the room would put its readers out: a loss of its own
    await sleep(1000);
    let sent = 0;
    for (; Date.now() < cut + CHAT_MS; sent += 1) {
      await mercutio.sendMessage(testBed.room(ROOMS[sent % ROOMS.length] ?? ''), `word ${sent}`);
      const due = cut + ((sent * SESSIONS.length * COPY_BYTES) / (TIMES * LIMIT)) * 1000;
      await sleep(Math.max(0, due - Date.now()));
    }
    // what was said has not come by far: neither can the answers that are behind it
    const copies = users.flatMap(({ received }) =>
      received.filter(({ at, stanza }) => at >= cut && stanza.is('message')),
    ).length;
    expect(copies).toBeLessThan((sent * SESSIONS.length) / 2);

    expect(await testBed.checkDone(cut, testBed.muc, 60_000)).toMatchObject({
      joined: JOINS,
      left: 0,
      undecided: 0,
      notified: 0,
    });
    expect(noticeSenders(users)).toEqual([]);
  }, 150_000);
});
