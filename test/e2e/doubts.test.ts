import { xml } from '@xmpp/client';
import type { Element } from '@xmpp/xml';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import { PlainClient } from '../../lab/plain-client.ts';
import { S2sPeer } from '../../lab/s2s-peer.ts';
import { TwoServers } from '../../lab/two-servers.ts';
import { type ScriptedMuc, error, failure, silence } from '../../lab/scripted-muc.ts';
import { ScriptedRooms } from '../../lab/scripted-rooms.ts';
import { StubAnswer } from '../../lab/recording-proxy.ts';
import type { User } from '../../lab/user.ts';

/**
 * Rule 11 (docs/rules.md): a room that answers a session with "not in the room" is checked, and strangers cannot cause
 * this.
 */
/** A room is checked for this cause at most once in this time: the minimum, because the delay is shorter. */
const WINDOW_MS = 5000;
/** Time for the module to react to an error. */
const SETTLE_MS = 700;

const errorsOf = ({ received }: User, room: string): readonly Element[] =>
  received
    .filter(({ stanza }) => stanza.attrs['type'] === 'error' && String(stanza.attrs['from']).startsWith(room))
    .map(({ stanza }) => stanza);

describe('a chat service', () => {
  const SETTINGS = { ping_muc_delay: 2, ping_muc_timeout: 3, ping_muc_patience: 0 };
  let testBed: ScriptedRooms;
  let room: string;
  let rooms = 0;
  let juliet: User;
  let romeo: User;

  beforeAll(async () => {
    testBed = await ScriptedRooms.open(SETTINGS, 2);
  });
  afterAll(() => testBed.close());
  beforeEach(async () => {
    rooms += 1;
    room = testBed.muc().room(`room-${rooms}`);
    [juliet, romeo] = [await testBed.user('juliet'), await testBed.user('romeo')];
    await testBed.join(juliet, room, 'Juliet');
    await testBed.join(romeo, room, 'Romeo');
  });
  afterEach(async () => {
    testBed.webhooks.interceptor = {};
    for (const kind of ['enter', 'ping', 'write'] as const) testBed.muc().script(kind, room);
    for (const user of [juliet, romeo]) await user.leaveServer();
  });

  const causes = (): readonly unknown[] => testBed.requested(room).map(({ cause }) => cause);
  /** The value of a metric. */
  const counted = (metric: string): number =>
    testBed.runtime.lines.reduce((sum, line) => sum + Number(line[metric] ?? 0), 0);
  const sendPresence = (user: User, nick: string): Promise<void> =>
    user.send(xml('presence', { to: `${room}/${nick}` }, xml('show', {}, 'away')));
  const areNotified = (): readonly boolean[] =>
    [juliet, romeo].map((user) =>
      user.notices().some(({ stanza }) => String(stanza.attrs['from']).startsWith(`${room}/`)),
    );
  const errorXml = (from: string, to: string, condition: string, name = 'message'): string =>
    `<${name} type="error" from="${from}" to="${to}"><error type="cancel">` +
    `<${condition} xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></${name}>`;

  it('restarts, its server stays up: after the first error, all users of the room are notified', async () => {
    const other = testBed.muc(1).room(`room-${rooms}`);
    await testBed.join(juliet, other, 'Juliet');
    const before = counted('ChecksByRoomError');
    const since = Date.now();
    await testBed.muc().restart();
    await sleep(SETTLE_MS);
    expect(testBed.closes(since), 'no close is reported').toEqual([]);
    const wrote = Date.now();
    await juliet.sendMessage(room, 'Is anybody there?');
    expect(await testBed.checkDone(wrote, testBed.muc().domain)).toMatchObject({ pinged: 2, left: 2, notified: 2 });
    expect(Date.now() - wrote).toBeLessThan(3000);
    expect(errorsOf(juliet, room).map(({ name }) => name)).toEqual(['message']);
    expect(areNotified()).toEqual([true, true]);
    expect(causes()).toEqual(['room-error']);
    expect(counted('ChecksByRoomError') - before).toBe(1);
    expect(testBed.lines('check done', wrote)[0]).toMatchObject({ cause: 'room-error', room });
    expect(
      [juliet, romeo].map((user) => user.notices().length),
      'nobody is notified for another room',
    ).toEqual([1, 1]);
  });

  it('restarts, with re-entry: all users of the room are back, and nobody is notified', async () => {
    await testBed.set({ ping_muc_reenter: true });
    await testBed.muc().restart();
    const wrote = Date.now();
    await juliet.sendMessage(room, 'Is anybody there?');
    expect(await testBed.checkDone(wrote, testBed.muc().domain)).toMatchObject({ left: 2, reentered: 2, notified: 0 });
    await sleep(SETTLE_MS);
    const errors = errorsOf(juliet, room).length;
    await juliet.sendMessage(room, 'I am here');
    await sleep(SETTLE_MS);
    expect([errors, errorsOf(juliet, room).length]).toEqual([1, 1]);
    expect(areNotified()).toEqual([false, false]);
    await testBed.set({});
  });

  it.each(['item-not-found', 'not-acceptable'])('answers %s to a presence: the room is checked', async (condition) => {
    testBed.muc().dropOccupant(room, juliet.jid);
    testBed.muc().script('enter', room, failure('presence', 'cancel', condition));
    const since = Date.now();
    await sendPresence(juliet, 'Juliet');
    expect(await testBed.checkDone(since, testBed.muc().domain)).toMatchObject({
      pinged: 2,
      joined: 1,
      left: 1,
      notified: 1,
    });
    expect([causes(), errorsOf(juliet, room).length, areNotified()]).toEqual([['room-error'], 1, [true, false]]);
  });

  it('answers 200 messages at once with the error: there is one check', async () => {
    const writers: PlainClient[] = [];
    const [fullRoom, many] = [testBed.muc().room(`crowded-${rooms}`), 200];
    const names = Array.from({ length: many }, (_, n) => `user${n}`);
    await testBed.home.register(names);
    for (const name of names) writers.push(await PlainClient.connect(testBed.lab, testBed.home, name));
    writers.forEach((user, n) => user.enter(fullRoom, `User ${n}`));
    const known = (): number =>
      testBed.reported().filter((event) => event.type === 'muc.joined' && event.room === fullRoom).length;
    await until('all are recorded', () => known() === many);
    testBed.muc().dropEveryone();
    const wrote = Date.now();
    for (const user of writers) user.sendMessage(fullRoom, 'Is anybody there?');
    expect(await testBed.checkDone(wrote, testBed.muc().domain, 30_000)).toMatchObject({
      pinged: many,
      left: many,
      notified: many,
    });
    await sleep(WINDOW_MS + SETTLE_MS);
    expect(testBed.requested(fullRoom)).toHaveLength(1);
    const received = writers.map(({ received: text }) => [
      text.split('<not-acceptable').length - 1,
      text.split(/code=["']333/).length - 1,
    ]);
    expect(received.filter(([errors, notices]) => errors !== 1 || notices !== 1)).toEqual([]);
    for (const user of writers) await user.stop();
  }, 120_000);

  it('sends the error repeatedly to a user who is in: one check in each window, the last one counts', async () => {
    const since = Date.now();
    for (let n = 0; n < 120; n += 1) {
      testBed.muc().send(errorXml(room, juliet.jid, 'not-acceptable'));
      await sleep(100);
    }
    testBed.muc().dropOccupant(room, juliet.jid);
    testBed.muc().send(errorXml(room, juliet.jid, 'not-acceptable'));
    await until('she is notified', () => areNotified()[0]);
    const windows = (Date.now() - since) / WINDOW_MS;
    expect(causes().length).toBeGreaterThan(1);
    expect(causes().length).toBeLessThanOrEqual(Math.ceil(windows) + 1);
    expect(areNotified()).toEqual([true, false]);
  });

  it('sends the error to both users, who are in: there is one check', async () => {
    const since = Date.now();
    for (const user of [juliet, romeo]) testBed.muc().send(errorXml(room, user.jid, 'not-acceptable'));
    expect(await testBed.checkDone(since, testBed.muc().domain)).toMatchObject({ joined: 2, left: 0 });
    await sleep(WINDOW_MS + SETTLE_MS);
    expect([causes(), areNotified()]).toEqual([['room-error'], [false, false]]);
  });

  it('sends the error again during the check, and admits everybody again: there is one check', async () => {
    await testBed.set({ ping_muc_reenter: true });
    const since = Date.now();
    testBed.muc().script('ping', room, (question) => {
      testBed.muc().send(errorXml(room, question.user, 'not-acceptable'));
      return error('cancel', 'not-acceptable')(question);
    });
    testBed.muc().send(errorXml(room, juliet.jid, 'not-acceptable'));
    expect(await testBed.checkDone(since, testBed.muc().domain)).toMatchObject({ left: 2, reentered: 2 });
    await sleep(WINDOW_MS + SETTLE_MS);
    expect(causes()).toEqual(['room-error']);
    await testBed.set({});
  });

  it('sends the error again after a check: there is another check when the window is over', async () => {
    const since = Date.now();
    testBed.muc().send(errorXml(room, juliet.jid, 'not-acceptable'));
    expect(await testBed.checkDone(since, testBed.muc().domain)).toMatchObject({ joined: 2 });
    testBed.muc().dropOccupant(room, juliet.jid);
    await juliet.sendMessage(room, 'And now?');
    await until('she is notified', () => areNotified()[0]);
    expect(causes()).toEqual(['room-error', 'room-error']);
    expect((testBed.requested(room)[1]?.at ?? 0) - (testBed.requested(room)[0]?.at ?? 0)).toBeGreaterThanOrEqual(
      WINDOW_MS * 1000,
    );
  });

  it('drops a user who joined after the check: that user is checked, too', async () => {
    const nurse = await testBed.user('nurse');
    const since = Date.now();
    testBed.muc().send(errorXml(room, juliet.jid, 'not-acceptable'));
    await testBed.checkDone(since, testBed.muc().domain);
    await testBed.join(nurse, room, 'Nurse');
    testBed.muc().dropOccupant(room, nurse.jid);
    await nurse.sendMessage(room, 'Madam?');
    await until('she is notified', () => nurse.notices().length > 0);
    await nurse.leaveServer();
  });

  it('sends the error from 100 rooms at once: ten are checked, and then their host, once', async () => {
    // the functions do not receive these events
    testBed.webhooks.interceptor = {
      before: (body) =>
        body.includes('check.requested') ? new StubAnswer(200, {}, '{"accepted":1,"rejected":[]}') : undefined,
    };
    const names = Array.from({ length: 100 }, (_, n) => testBed.muc(1).room(`flood-${n}`));
    const half = names.length / 2;
    const members = names.map((name, n) => [n < half ? juliet : romeo, name] as const);
    for (const [user, name] of members) await user.enter(name, 'Somebody');
    const joined = (): number =>
      testBed.reported().filter(({ type, room: of = '' }) => type === 'muc.joined' && of.startsWith('flood-')).length;
    await until('all are recorded', () => joined() === names.length, 60_000);
    for (const [user, name] of members) testBed.muc(1).send(errorXml(name, user.jid, 'item-not-found'));
    const asked = (): number =>
      testBed.webhooks.requests.flatMap(({ body }) => [...body.toString().matchAll(/"check\.requested"[^}]*flood-/g)])
        .length;
    const ofHost = (): number =>
      testBed.webhooks.requests.flatMap(({ body }) =>
        [...body.toString().matchAll(/\{[^{}]*"check\.requested"[^{}]*\}/g)].filter(
          ([event]) => !event.includes('"room"'),
        ),
      ).length;
    await until('their host is to be checked', () => ofHost() >= 1, 30_000);
    await sleep(2 * SETTLE_MS);
    expect([asked(), ofHost()]).toEqual([10, 1]);
  }, 120_000);

  describe('causes no check with', () => {
    const nothing = async (): Promise<void> => {
      await testBed.settle(juliet);
      await sleep(SETTLE_MS);
      expect(causes()).toEqual([]);
      expect(areNotified()).toEqual([false, false]);
    };

    it('an error from another server in the room’s name', async () => {
      const stranger = await S2sPeer.open(testBed.lab, testBed.lab.address(20 + rooms));
      const stream = await stranger.call(testBed.home.host);
      await stream.authenticate(testBed.home.host);
      stream.write(errorXml(room, juliet.jid, 'not-acceptable'));
      await nothing();
      expect(errorsOf(juliet, room)).toEqual([]);
    });

    it('an error from another user, or from another room', async () => {
      await romeo.send(
        xml(
          'message',
          { type: 'error', to: juliet.jid },
          xml('error', { type: 'cancel' }, xml('not-acceptable', { xmlns: 'urn:ietf:params:xml:ns:xmpp-stanzas' })),
        ),
      );
      testBed.muc(1).send(errorXml(testBed.muc(1).room(`room-${rooms}`), juliet.jid, 'not-acceptable'));
      await nothing();
      expect(testBed.requested(testBed.muc(1).room(`room-${rooms}`))).toEqual([]);
    });

    it('an error that an occupant may have sent through the room', async () => {
      testBed.muc().send(errorXml(`${room}/Tybalt`, juliet.jid, 'not-acceptable'));
      testBed.muc().send(errorXml(`${room}/Tybalt`, juliet.jid, 'item-not-found'));
      await nothing();
      expect(errorsOf(juliet, room)).toHaveLength(2);
    });

    it.each([
      ['no voice', 'message', '', 'forbidden'],
      ['too many words', 'message', '', 'policy-violation'],
      ['a nick that is taken', 'presence', '/Romeo', 'conflict'],
      ['a nick that is not liked', 'presence', '/Montague', 'not-acceptable'],
    ])('an error with another meaning: %s', async (_what, name, nick, condition) => {
      testBed.muc().send(errorXml(`${room}${nick}`, juliet.jid, condition, name));
      await nothing();
    });

    it('an error to a session that has left, or is entering again', async () => {
      testBed.muc().script('enter', room, silence);
      await juliet.enter(room, 'Juliet');
      testBed.muc().send(errorXml(room, juliet.jid, 'not-acceptable'));
      await romeo.leave(room, 'Romeo');
      await testBed.waitForHistory(room, ['joined Romeo', 'left'], romeo);
      testBed.muc().send(errorXml(room, romeo.jid, 'not-acceptable'));
      await nothing();
    });
  });
});

describe('a chat service with many rooms', () => {
  let testBed: ScriptedRooms;

  beforeAll(async () => {
    testBed = await ScriptedRooms.open({ ping_muc_delay: 2, ping_muc_timeout: 3, ping_muc_patience: 0 }, 2);
  });
  afterAll(() => testBed.close());

  const [ROOMS, WRITTEN_IN] = [30, 12];
  /** Romeo is in all rooms, Juliet in some. The service restarts, and Juliet writes in her rooms. */
  async function restart(muc: ScriptedMuc): Promise<readonly User[]> {
    const names = Array.from({ length: ROOMS }, (_, n) => muc.room(`room-${n}`));
    const [juliet, romeo] = [await testBed.user('juliet'), await testBed.user('romeo')];
    for (const room of names) await testBed.join(romeo, room, 'Romeo');
    for (const room of names.slice(0, WRITTEN_IN)) await testBed.join(juliet, room, 'Juliet');
    await muc.restart();
    for (const room of names.slice(0, WRITTEN_IN)) await juliet.sendMessage(room, 'Is anybody there?');
    return [juliet, romeo];
  }
  const noticesOf = (users: readonly User[]): readonly number[] => users.map((user) => user.notices().length);
  const checksOfHost = ({ domain }: ScriptedMuc): number =>
    testBed
      .reported()
      .filter(({ type, room, remote }) => type === 'check.requested' && room === undefined && remote === domain).length;

  it('restarts: users in rooms in which nobody writes are notified, too', async () => {
    const users = await restart(testBed.muc());
    await until('all are notified', () => noticesOf(users).join() === [WRITTEN_IN, ROOMS].join(), 20_000);
    await sleep(SETTLE_MS);
    expect(noticesOf(users)).toEqual([WRITTEN_IN, ROOMS]);
    expect(checksOfHost(testBed.muc())).toBe(1);
    for (const user of users) await user.leaveServer();
  }, 60_000);

  it('restarts, and both streams break during the check of the host: each user is notified once', async () => {
    const muc = testBed.muc(1);
    const users = await restart(muc);
    await until('the host is to be checked', () => checksOfHost(muc) === 1);
    testBed.dropOutgoing(muc);
    testBed.dropIncoming();
    await until('all are notified', () => noticesOf(users).join() === [WRITTEN_IN, ROOMS].join(), 20_000);
    await sleep(2 * SETTLE_MS + WINDOW_MS); // for the check of the close
    expect(noticesOf(users)).toEqual([WRITTEN_IN, ROOMS]);
  }, 60_000);
});

describe('a real chat service', () => {
  let testBed: TwoServers;
  const sessions: User[] = [];

  beforeAll(async () => {
    testBed = await TwoServers.open({ ping_muc_delay: 2, ping_muc_timeout: 5, ping_muc_patience: 0 });
  });
  afterAll(() => testBed.close());
  afterEach(async () => {
    for (const session of sessions.splice(0)) await session.leaveServer();
  });

  async function enter(room: string, ...names: readonly string[]): Promise<User[]> {
    const users: User[] = [];
    for (const name of names) {
      const user = await testBed.user(name);
      sessions.push(user);
      users.push(user);
      await testBed.join(user, room, name);
    }
    return users;
  }
  const closes = (since: number): number =>
    testBed.runtime.lines.filter((line) => line['closed'] !== undefined && Date.parse(String(line['time'])) >= since)
      .length;

  it('that has lost its rooms: a message is answered with item-not-found, and all users are notified', async () => {
    const [room, other] = [testBed.room('gone'), testBed.room('there')];
    const [juliet, romeo] = (await enter(room, 'juliet', 'romeo')) as [User, User];
    const [nurse] = (await enter(other, 'nurse')) as [User];
    const since = Date.now();
    await testBed.away.rooms.forget(room);
    await juliet.sendMessage(room, 'Is anybody there?');
    expect(await testBed.checkDone(since)).toMatchObject({ pinged: 2, left: 2, notified: 2 });
    expect(
      errorsOf(juliet, room).map(
        (answer) =>
          answer.getChild('error')?.children.map((child) => (typeof child === 'string' ? child : child.name))[0],
      ),
    ).toEqual(['item-not-found']);
    expect([juliet, romeo, nurse].map((user) => user.notices().length)).toEqual([1, 1, 0]);
    expect(closes(since)).toBe(0);
  });

  it.each(['sends a message', 'sends its presence'])(
    'that has lost the occupants of a room: a user who %s is back, and so are the others',
    async (what) => {
      await testBed.home.set({ ping_muc_reenter: true });
      const room = testBed.room(`emptied-${what.split(' ').at(-1)}`);
      const [juliet, romeo] = (await enter(room, 'juliet', 'romeo')) as [User, User];
      await testBed.away.rooms.change(room, 'persistent');
      const since = Date.now();
      for (const user of [juliet, romeo]) await testBed.dropOccupant(room, user);
      if (what === 'sends a message') await juliet.sendMessage(room, 'Is anybody there?');
      else await juliet.send(xml('presence', { to: `${room}/juliet` }, xml('show', {}, 'away')));
      expect(await testBed.checkDone(since)).toMatchObject({ pinged: 2, left: 2, reentered: 2, notified: 0 });
      expect(errorsOf(juliet, room)).toHaveLength(1);
      const later = Date.now();
      await juliet.sendMessage(room, 'Here again');
      await until('all receive it', () =>
        [juliet, romeo].every(({ received }) =>
          received.some(({ at, stanza }) => at >= later && stanza.getChildText('body') === 'Here again'),
        ),
      );
      expect([juliet, romeo].map((user) => user.notices().length)).toEqual([0, 0]);
      expect(closes(since)).toBe(0);
    },
  );
});
