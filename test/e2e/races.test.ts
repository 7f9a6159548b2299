import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import { post } from '../../lab/requests.ts';
import { error, held, refusal, result, silence } from '../../lab/scripted-muc.ts';
import { ScriptedRooms } from '../../lab/scripted-rooms.ts';
import type { RecordingProxy } from '../../lab/recording-proxy.ts';
import type { User } from '../../lab/user.ts';

/**
 * Rule 5 (docs/rules.md) and `docs/decisions.md`: in every race, each lost user is notified exactly once, and no user
 * who is in, or in again, is notified. Each race is forced: an interceptor or the chat service holds one side until the
 * other has arrived.
 */
const DELAY = 1;
const TIMEOUT = 10;
const PATIENCE = 30;
let testBed: ScriptedRooms;
let room: string;
let rooms = 0;
/** Users whom the room has dropped without notifying them. */
let lost: readonly User[];
/** A user who is in the room. */
let kept: User;

beforeAll(async () => {
  testBed = await ScriptedRooms.open({ ping_muc_delay: DELAY, ping_muc_timeout: TIMEOUT, ping_muc_patience: PATIENCE });
});
afterAll(() => testBed.close());

beforeEach(async () => {
  rooms += 1;
  room = testBed.muc().room(`room-${rooms}`);
  // in the order of their rows: the first lost user is pinged alone, the others in the second batch
  const users = await Promise.all(['a', 'b', 'c', 'd'].map((resource) => testBed.user('juliet', resource)));
  await Promise.all(users.map((user) => testBed.join(user, room, nickOf(user))));
  [lost, kept] = [users.slice(0, 3), users[3] as User];
  for (const user of lost) testBed.muc().dropOccupant(room, user.jid);
});
afterEach(async () => {
  testBed.webhooks.interceptor = {};
  testBed.stanzas.interceptor = {};
  await Promise.all([...lost, kept].map((user) => user.leaveServer()));
});

const nickOf = (user: User): string => `nick-${user.jid.split('/')[1]}`;
const occupant = (user: User): string => `${room}/${nickOf(user)}`;
const isNotice = (body: string): boolean => body.includes('<presence');
/** The number of notices that a user has received for this room. */
const noticeCount = (user: User): number =>
  user.notices().filter(({ stanza }) => String(stanza.attrs['from']).startsWith(`${room}/`)).length;

/** When everything has arrived, the lost users have been notified once, and the kept user has not. */
async function expectOnce(users = lost): Promise<void> {
  await Promise.all([...lost, kept].map((user) => testBed.settle(user)));
  expect(lost.map(noticeCount)).toEqual(lost.map((user) => (users.includes(user) ? 1 : 0)));
  expect(noticeCount(kept)).toBe(0);
}

/** A barrier: callers of `wait` wait until `release`. */
function newBarrier(): { wait: () => Promise<void>; release: () => void; waiting: number } {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const it = {
    waiting: 0,
    wait: async (): Promise<void> => {
      it.waiting += 1;
      await promise;
    },
    release: (): void => resolve(undefined),
  };
  return it;
}

const totals = (since: number): readonly unknown[] => testBed.lines('check done', since).map((line) => line['totals']);
const reported = (since: number, count: number): Promise<unknown> =>
  until(`${count} closes are reported`, () => testBed.closes(since).length >= count);
/** Waits until this number of checks have ended, and none is running. */
async function done(since: number, count: number): Promise<void> {
  const ended = (): number =>
    ['check done', 'check superseded by a newer close'].flatMap((message) => testBed.lines(message, since)).length;
  await until(`${count} checks have ended`, () => ended() >= count, 40_000);
  await until('no check is running', async () => (await running()) === 0, 40_000);
}

/** Executions that have not ended. */
async function running(): Promise<number> {
  const folder = join(testBed.runtime.data, 'executions');
  const files = await Promise.all(
    (await readdir(folder)).map((file) => readFile(join(folder, file), 'utf8').catch(() => '')),
  );
  return files.filter((text) => text.includes('"status":"RUNNING"')).length;
}

describe('several closes:', () => {
  const LONGER = 2;
  beforeAll(() => testBed.set({ ping_muc_delay: LONGER }));
  afterAll(() => testBed.set({}));

  it('both streams of a link close while a webhook is in flight: this is one close, and one check', async () => {
    const barrier = newBarrier();
    testBed.webhooks.interceptor.before = barrier.wait;
    await kept.enter(testBed.muc().room('elsewhere'), 'Juliet');
    await until('a webhook is in flight', () => barrier.waiting === 1);
    const areOpen = async (): Promise<boolean> => (await testBed.home.streams(testBed.muc().domain)).length > 0;
    expect(await areOpen()).toBe(true);
    const at = testBed.dropStreams();
    await until('the server has seen both close', async () => !(await areOpen()));
    barrier.release();
    await done(at, 1);
    await expectOnce();
    expect(testBed.closes(at)).toHaveLength(1);
    expect(totals(at)).toMatchObject([{ joined: 2, left: 3, stale: 0, notified: 3 }]); // and elsewhere
  });

  it('both streams of a link close, one after the other: the check of the second covers both', async () => {
    const at = testBed.dropOutgoing();
    await reported(at, 1);
    testBed.dropIncoming();
    await reported(at, 2);
    await done(at, 2);
    await expectOnce();
    expect(testBed.lines('check superseded by a newer close', at)).toHaveLength(1);
    expect(totals(at)).toMatchObject([{ pinged: 4, left: 3, notified: 3 }]);
    expect(testBed.muc().count('ping', room)).toBe(4);
  });

  it('a flapping link: the check is postponed, with a limit, and one check covers all closes', async () => {
    const at = Date.now();
    const began = (): number | undefined => testBed.stanzas.requests.find((request) => request.at >= at)?.at;
    for (let entered = testBed.muc().count('enter'); began() === undefined && Date.now() < at + 30_000; entered += 1) {
      testBed.dropOutgoing();
      await sleep(LONGER * 300);
      await kept.enter(room, nickOf(kept)); // opens a new stream
      await until('the stream is open', () => testBed.muc().count('enter') > entered);
    }
    const closes = testBed.closes(at);
    const first = (closes[0]?.at ?? 0) / 1000;
    expect(closes.length).toBeGreaterThan(5);
    expect(began()).toBeGreaterThan(first + 2 * LONGER * 1000);
    expect(began()).toBeLessThan(first + (5 * LONGER + 3) * 1000);
    expect(testBed.lines('check superseded by a newer close', at).length).toBeGreaterThan(2);
    await done(at, closes.length);
    await expectOnce();
  });
});

describe('a webhook delivered twice', () => {
  it('because its answer was lost: there is one check', async () => {
    // a webhook that failed is repeated as it was if it has one event; several are then sent in two webhooks
    await Promise.all([...lost, kept].map((user) => testBed.settle(user)));
    let losses = 0;
    testBed.webhooks.interceptor.after = (body) => {
      if (!body.includes('s2s.closed') || losses > 0) return;
      losses += 1;
      throw new Error('the answer is lost');
    };
    const at = testBed.dropOutgoing();
    const deliveries = (): RecordingProxy['requests'] =>
      testBed.webhooks.requests.filter(
        (request) => request.at >= at && request.body.includes('s2s.closed') && request.answer !== undefined,
      );
    await until('it is delivered again', () => deliveries().length === 2);
    await done(at, 1);
    const [first, second] = deliveries();
    expect(second?.headers['webhook-id']).toBe(first?.headers['webhook-id']);
    await expectOnce();
    expect(testBed.lines('check done', at)).toHaveLength(1);
  });

  it('much later, with all earlier ones: there is no check, and nobody is notified again', async () => {
    const at = testBed.dropOutgoing();
    await done(at, 1);
    const delivered = testBed.webhooks.requests.filter((request) => request.at >= at || request.body.includes(room));
    const [first] = lost as [User, ...User[]];
    await testBed.join(first, room, nickOf(first));
    for (const { headers, body } of delivered) {
      const again = {
        'webhook-signature': String(headers['webhook-signature']),
        'webhook-timestamp': String(headers['webhook-timestamp']),
        'webhook-id': String(headers['webhook-id']),
      };
      expect((await post({ url: testBed.runtime.webhookUrl, body, headers: again })).status).toBe(200);
    }
    await sleep((DELAY + 1) * 1000);
    expect(testBed.lines('check done', at)).toHaveLength(1);

    // the rows that came back are those of joins that have ended
    const next = testBed.dropOutgoing();
    await done(next, 1);
    expect(totals(next)).toMatchObject([{ joined: 2, left: 0, stale: 2, notified: 0 }]);
    await expectOnce();
  });
});

describe('a check that has notified some users', () => {
  /** Whether a request has the other notices: the first request has notified the first user alone. */
  const second = (tries = 1): ((body: string) => boolean) => {
    let notices = 0;
    return (body) => isNotice(body) && (notices += 1) >= 2 && notices < 2 + tries;
  };
  /** A request over a lost keep-alive connection is sent once more before the server counts as out of reach. */
  const BOTH_TRIES = 2;

  it('and loses a keep-alive connection sends the other notices once more, and continues', async () => {
    const isSecond = second();
    testBed.stanzas.interceptor.before = (body) => {
      if (isSecond(body)) throw new Error('the connection is cut');
    };
    const at = testBed.dropOutgoing();
    await done(at, 1);
    await expectOnce();
    expect(testBed.lines('check interrupted', at)).toEqual([]);
    expect(totals(at)).toMatchObject([{ left: 3, stale: 0, joined: 1 }]);
  });

  it('and cannot deliver the other notices is run again', async () => {
    const isSecond = second(BOTH_TRIES);
    testBed.stanzas.interceptor.before = (body) => {
      if (isSecond(body)) throw new Error('the connection is cut');
    };
    const at = testBed.dropOutgoing();
    await done(at, 1);
    await expectOnce();
    expect(testBed.lines('check interrupted', at)).toHaveLength(1);
  });

  it('and does not learn that the other notices were delivered is run again', async () => {
    const isSecond = second(BOTH_TRIES);
    testBed.stanzas.interceptor.after = (body) => {
      if (isSecond(body)) throw new Error('the answer is lost');
    };
    const at = testBed.dropOutgoing();
    await done(at, 1);
    await expectOnce();
    expect(testBed.lines('check interrupted', at)).toHaveLength(1);
    expect(totals(at)).toMatchObject([{ stale: 2, left: 0, joined: 1 }]);
  });

  it.each(['before', 'after'] as const)(
    'ends with the runtime, %s the other notices are delivered, and continues when it is started again',
    async (when) => {
      const isSecond = second();
      const barrier = newBarrier();
      testBed.stanzas.interceptor[when] = async (body: string) => {
        if (!isSecond(body)) return;
        await barrier.wait();
        throw new Error('the runtime was killed');
      };
      const at = testBed.dropOutgoing();
      await until('the other notices are in flight', () => barrier.waiting === 1);
      await testBed.runtime.end('SIGKILL');
      barrier.release();
      await testBed.runtime.start();
      await done(at, 1);
      await expectOnce();
    },
  );
});

it('two checks of one pair at once: both ping, one notifies', async () => {
  const barrier = newBarrier();
  for (const user of lost)
    testBed.muc().script('ping', occupant(user), held(barrier.wait, error('cancel', 'not-acceptable')));
  testBed.muc().script('ping', occupant(kept), held(barrier.wait, result()));
  const at = testBed.dropOutgoing();
  await until('the first check has pinged', () => barrier.waiting === 1);
  testBed.dropIncoming(); // the stream of the answers, so that the pings are not lost
  await until('the second check has pinged', () => barrier.waiting === 2);
  barrier.release();
  await done(at, 2);
  await expectOnce();
  const notified = totals(at).map((total) => (total as { notified: number }).notified);
  expect(notified).toHaveLength(2);
  expect((notified[0] ?? 0) + (notified[1] ?? 0)).toBe(3);
});

describe('the module reloads', () => {
  const reload = (): Promise<void> => testBed.home.reloadModule();

  it('during the pings: they are sent again, and the first answers have no effect', async () => {
    const barrier = newBarrier();
    for (const user of lost)
      testBed.muc().script('ping', occupant(user), held(barrier.wait, error('cancel', 'not-acceptable')));
    testBed.muc().script('ping', occupant(kept), held(barrier.wait, error('cancel', 'not-acceptable')));
    const at = testBed.dropOutgoing();
    await until('the first one is pinged', () => barrier.waiting === 1);
    await reload();
    testBed.muc().script('ping', occupant(kept));
    await until('it is pinged again', () => barrier.waiting === 2);
    barrier.release();
    await done(at, 1);
    await expectOnce();
    expect(testBed.lines('check interrupted', at)).toEqual([]);
  });

  it('between the answers and the notices', async () => {
    const barrier = newBarrier();
    testBed.stanzas.interceptor.before = (body) => (isNotice(body) ? barrier.wait() : undefined);
    const at = testBed.dropOutgoing();
    await until('the first notice is in flight', () => barrier.waiting === 1);
    await reload();
    barrier.release();
    await done(at, 1);
    await expectOnce();
  });

  it('between two notices of one loss, when the answer to the first is lost', async () => {
    let cuts = 0;
    testBed.stanzas.interceptor.after = async (body) => {
      if (!isNotice(body) || cuts > 0) return;
      cuts += 1;
      await reload();
      throw new Error('the answer is lost');
    };
    const at = testBed.dropOutgoing();
    await done(at, 1);
    await expectOnce();
    expect(cuts).toBe(1);
  });
});

describe('between its ping and its notice a user', () => {
  /** Holds the first notice, which is for the first lost user alone, until an action is done. */
  async function meanwhile(
    what: (user: User) => Promise<void>,
    ends: (at: number) => Promise<unknown> = (at) => done(at, 1),
  ): Promise<number> {
    const [first] = lost as [User, ...User[]];
    const barrier = newBarrier();
    testBed.stanzas.interceptor.before = (body) =>
      isNotice(body) && body.includes(first.jid) ? barrier.wait() : undefined;
    const at = testBed.dropOutgoing();
    await until('its notice is in flight', () => barrier.waiting === 1);
    await what(first);
    barrier.release();
    await ends(at);
    return at;
  }
  const asksAgain = (at: number): Promise<unknown> =>
    until('the check will ask again', () => testBed.lines('check will ask again', at)[0]);
  const others = (): readonly User[] => lost.slice(1);

  it('rejoins: it is not notified, and the next check pings its new join', async () => {
    const at = await meanwhile((user) => testBed.join(user, room, nickOf(user)));
    await expectOnce(others());
    expect(totals(at)).toMatchObject([{ joined: 1, left: 2, stale: 1, notified: 2 }]);
    const next = testBed.dropOutgoing();
    await done(next, 1);
    expect(totals(next)).toMatchObject([{ pinged: 2, joined: 2 }]);
  });

  it('has sent a new join that the room has not answered: it is not notified, and is in later', async () => {
    const entryBarrier = newBarrier();
    testBed.muc().script(
      'enter',
      room,
      held(entryBarrier.wait, (question) => testBed.muc().admit(question)),
    );
    const at = await meanwhile(async (user) => {
      await user.enter(room, nickOf(user));
      await until('the room has received its presence', () => entryBarrier.waiting === 1);
    }, asksAgain);
    const [first] = lost as [User, ...User[]];
    expect(noticeCount(first)).toBe(0);
    entryBarrier.release();
    await testBed.waitForHistory(room, [`joined ${nickOf(first)}`, `joined ${nickOf(first)}`], first);
    await done(at, 1);
    await expectOnce(others());
    const next = testBed.dropOutgoing();
    await done(next, 1);
    expect(totals(next)).toMatchObject([{ pinged: 2, joined: 2 }]);
  });

  it('has sent a new join that the room refuses: it receives the refusal, and no notice', async () => {
    const entryBarrier = newBarrier();
    testBed.muc().script('enter', room, held(entryBarrier.wait, refusal('auth', 'forbidden')));
    const at = await meanwhile(async (user) => {
      await user.enter(room, nickOf(user));
      await until('the room has received its presence', () => entryBarrier.waiting === 1);
    }, asksAgain);
    const [first] = lost as [User, ...User[]];
    entryBarrier.release();
    await testBed.waitForHistory(room, [`joined ${nickOf(first)}`, 'left'], first);
    await done(at, 1);
    await expectOnce(others());
    const next = testBed.dropOutgoing();
    await done(next, 1);
    expect(totals(next)).toMatchObject([{ pinged: 1, joined: 1 }]);
  });

  it('has sent a new join that the room never answers: it is notified after time-out and ping', async () => {
    testBed.muc().script('enter', room, silence);
    const since = Date.now();
    const at = await meanwhile(async (user) => {
      const attempts = testBed.muc().count('enter', room);
      await user.enter(room, nickOf(user));
      await until('the room has received its presence', () => testBed.muc().count('enter', room) > attempts);
    }, asksAgain);
    const [first] = lost as [User, ...User[]];
    expect(noticeCount(first)).toBe(0);
    await done(at, 1);
    await expectOnce();
    expect(
      first.notices().findLast(({ stanza }) => String(stanza.attrs['from']).startsWith(`${room}/`))?.at,
    ).toBeGreaterThan(since + TIMEOUT * 1000);
    expect(totals(at)).toMatchObject([{ left: 3, stale: 0, notified: 3 }]);
  });

  it('changes its nick: it is not notified under the old one', async () => {
    await meanwhile(async (user) => {
      testBed.muc().admit({ user: user.jid, room, nick: nickOf(user) });
      await user.enter(room, 'another');
      await testBed.waitForHistory(room, [`joined ${nickOf(user)}`, 'joined another'], user);
    });
    await expectOnce(others());
  });

  it('leaves the room: it is not notified', async () => {
    testBed.muc().script('leave', room, silence);
    await meanwhile(async (user) => {
      await user.leave(room, nickOf(user));
      await testBed.waitForHistory(room, [`joined ${nickOf(user)}`, 'left'], user);
    });
    await expectOnce(others());
  });

  it('ends its session: no notice is sent, and the check counts it as gone', async () => {
    const at = await meanwhile(async (user) => {
      await user.leaveServer();
      await testBed.waitForHistory(room, [`joined ${nickOf(user)}`, 'left'], user);
    });
    lost = others();
    await expectOnce();
    expect(totals(at)).toMatchObject([{ joined: 1, left: 2, gone: 1, notified: 2 }]);
  });
});
