import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import { TwoServers } from '../../lab/two-servers.ts';
import type { User } from '../../lab/user.ts';

/** Rooms still have their users, but their answers do not arrive (issue 10): nobody is notified. */
const DELAY = 2;
const USERS = Array.from({ length: 10 }, (_, index) => `user${index}`);
/** Longer than the delay and the time-out together. */
const SILENT_MS = 12_000;
const SETTINGS = { ping_muc_delay: DELAY, ping_muc_timeout: 3 };

/** The senders of the notices that the users have received. */
function noticeSenders(users: readonly User[]): readonly unknown[] {
  return users.flatMap((user) => user.notices().map(({ stanza }) => stanza.attrs['from'] as unknown));
}

describe.each([
  ['each direction has its own connection, and the patience is the default', false, {}],
  ['one connection carries both directions, and the patience is 30 s', true, { ping_muc_patience: 30 }],
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

  /** Stanzas from the rooms do not reach the users' server. Stanzas to the rooms do. */
  function silence(action: 'hold' | 'release'): void {
    testBed.away.links.get(testBed.muc)?.[action]('fromServer');
    for (const link of testBed.home.links.values()) link[action]('toServer');
  }

  it('stanzas from the rooms do not arrive for longer than delay and time-out: nobody is notified', async () => {
    const cut = testBed.dropStreams();
    // opens a new stream at once from the users' side, as a message would
    await testBed.home.openStream(testBed.home.host, testBed.muc);
    silence('hold');
    const isBidi = bidi && testBed.abilities.bidi;
    const streams = await testBed.home.streams(testBed.muc);
    expect(streams).toContainEqual(expect.objectContaining({ opener: 'this', isBidi }));
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
/** The minimum size of a groupchat message to one occupant. */
const COPY_BYTES = 200;
/** At four times the limit, reading takes four times as long: longer than delay, time-out and patience together. */
const CHAT_MS = 12_000;
const SESSIONS = Array.from({ length: 10 }, (_, index) => `user${index}`);
const ROOMS = Array.from({ length: 50 }, (_, index) => `chat-${index}`);
const JOINS = SESSIONS.length * ROOMS.length;

describe("a chat at four times the servers' limits (clients 10 kb/s, other servers 30 kb/s)", () => {
  let testBed: TwoServers;

  beforeAll(async () => {
    const settings = { ping_muc_delay: DELAY, ping_muc_timeout: 5, ping_muc_patience: 30 };
    testBed = await TwoServers.open(settings, { production: { bidi: false }, users: SESSIONS });
  });
  afterAll(() => testBed.close());

  it(`none of ${JOINS} joins that still exist is notified`, async () => {
    const mercutio = await testBed.guest('mercutio');
    const users = await Promise.all(SESSIONS.map((name) => testBed.user(name)));
    for (const room of ROOMS) {
      await mercutio.join(testBed.room(room), 'Mercutio');
      await Promise.all(users.map((user, index) => user.join(testBed.room(room), SESSIONS[index] ?? '')));
    }
    await until('all are recorded', () => testBed.recorded() >= JOINS);
    // limits new streams only: over limited streams, entering all these rooms would take minutes
    for (const server of [testBed.home, testBed.away]) await server.limitStreams();

    const cut = testBed.dropStreams();
    // a message into a stream that is ending would bounce, and the room would remove its recipients
    await sleep(1000);
    let sent = 0;
    for (; Date.now() < cut + CHAT_MS; sent += 1) {
      await mercutio.sendMessage(testBed.room(ROOMS[sent % ROOMS.length] ?? ''), `word ${sent}`);
      const due = cut + ((sent * SESSIONS.length * COPY_BYTES) / (TIMES * LIMIT)) * 1000;
      await sleep(Math.max(0, due - Date.now()));
    }
    // most messages have not arrived, so the answers behind them have not, either
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
