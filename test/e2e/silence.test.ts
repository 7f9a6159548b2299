import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import { Scene } from '../../lab/scene.ts';
import type { User } from '../../lab/user.ts';

/** Rooms that know their users, and answers that do not come (issue 10): nobody is told. */
const DELAY = 2;
const USERS = Array.from({ length: 10 }, (_, index) => `user${index}`);
/** Longer than the delay and the time-out together. */
const SILENT_MS = 12_000;
const SETTINGS = { ping_muc_delay: DELAY, ping_muc_timeout: 3 };

/** Of what the users were told: the occupants that notices came from. */
function told(users: readonly User[]): readonly unknown[] {
  return users.flatMap((user) => user.notices().map(({ stanza }) => stanza.attrs['from'] as unknown));
}

describe.each([
  ['each direction has its own connection; the patience is what it is by default', false, {}],
  ['one connection carries both directions; half a minute of patience', true, { ping_muc_patience: 30 }],
])('%s', (_what, bidi, patience) => {
  let scene: Scene;
  const users: User[] = [];

  beforeAll(async () => {
    scene = await Scene.open({ ...SETTINGS, ...patience }, { production: { bidi }, users: USERS });
    users.push(...(await Promise.all(USERS.map((name) => scene.user(name)))));
    await Promise.all(users.map((user, index) => user.join(scene.room(`room-${index % 3}`), USERS[index] ?? '')));
    await until('all are recorded', () => scene.recorded() >= USERS.length);
  });
  afterAll(() => scene.close());

  /** Nothing of what rooms say reaches the users' server. What users say reaches the rooms. */
  function silence(action: 'hold' | 'release'): void {
    scene.away.links.get(scene.muc)?.[action]('fromServer');
    for (const link of scene.home.links.values()) link[action]('toServer');
  }

  it('the streams are reset, and what rooms say stays away for longer than delay and time-out: nobody is told, all are still known', async () => {
    const cut = scene.dropStreams();
    // up again at once, as when somebody says something; the first word comes from the users' side
    await scene.home.shell(`xmpp:ping("${scene.home.host}", "${scene.muc}")`).catch(() => undefined);
    silence('hold');
    const streams = await scene.home.streams(scene.muc);
    expect(streams.map(({ type, dir }) => `${type} ${dir}`)).toContain(bidi ? 's2sout <->' : 's2sout -->');
    const heard = (): readonly number[] => users.map((user) => user.received.length - user.notices().length);
    const before = heard();
    await sleep(cut + SILENT_MS - Date.now());
    expect(heard()).toEqual(before);
    expect(told(users)).toEqual([]);
    silence('release');

    expect(await scene.checkDone(cut)).toMatchObject({ joined: USERS.length, left: 0, undecided: 0, notified: 0 });
    const again = scene.dropStreams();
    expect(await scene.checkDone(again)).toMatchObject({ joined: USERS.length, left: 0, undecided: 0, notified: 0 });
    await sleep(500);
    expect(told(users)).toEqual([]);
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
  let scene: Scene;

  beforeAll(async () => {
    const settings = { ping_muc_delay: DELAY, ping_muc_timeout: 5, ping_muc_patience: 30 };
    scene = await Scene.open(settings, { production: { bidi: false }, users: SESSIONS });
  });
  afterAll(() => scene.close());

  it(`none of ${JOINS} who are in their rooms is told`, async () => {
    const mercutio = await scene.guest('mercutio');
    const users = await Promise.all(SESSIONS.map((name) => scene.user(name)));
    for (const room of ROOMS) {
      await mercutio.join(scene.room(room), 'Mercutio');
      await Promise.all(users.map((user, index) => user.join(scene.room(room), SESSIONS[index] ?? '')));
    }
    await until('all are recorded', () => scene.recorded() >= JOINS);
    // from now on each new stream is limited; what is there would take minutes to enter so many rooms
    for (const server of [scene.home, scene.away]) await server.shell('module:load("limits", "*")');

    const cut = scene.dropStreams();
    // a message into a stream that is just ending would come back, and the room would put its readers out: a loss of its own
    await sleep(1000);
    let said = 0;
    for (; Date.now() < cut + CHAT_MS; said += 1) {
      await mercutio.say(scene.room(ROOMS[said % ROOMS.length] ?? ''), `word ${said}`);
      const due = cut + ((said * SESSIONS.length * COPY_BYTES) / (TIMES * LIMIT)) * 1000;
      await sleep(Math.max(0, due - Date.now()));
    }
    // what was said has not come by far: neither can the answers that are behind it
    const copies = users.flatMap(({ received }) =>
      received.filter(({ at, stanza }) => at >= cut && stanza.is('message')),
    ).length;
    expect(copies).toBeLessThan((said * SESSIONS.length) / 2);

    expect(await scene.checkDone(cut, scene.muc, 60_000)).toMatchObject({
      joined: JOINS,
      left: 0,
      undecided: 0,
      notified: 0,
    });
    expect(told(users)).toEqual([]);
  }, 150_000);
});
