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
 * Rule 5 (docs/rules.md) and what `docs/decisions.md` says of it: whatever meets whatever, each lost user is told exactly once, and nobody
 * who is in, or in again, is told at all. Each race is forced: a gate or the chat service holds one side until the other has come.
 */
const DELAY = 1;
const TIMEOUT = 10;
const PATIENCE = 30;
let testBed: ScriptedRooms;
let room: string;
let rooms = 0;
/** In the room, and lost: the room does not know them any more, which they are not told. */
let lost: readonly User[];
/** In the room. */
let kept: User;

beforeAll(async () => {
  testBed = await ScriptedRooms.open({ ping_muc_delay: DELAY, ping_muc_timeout: TIMEOUT, ping_muc_patience: PATIENCE });
});
afterAll(() => testBed.close());

beforeEach(async () => {
  rooms += 1;
  room = testBed.muc().room(`room-${rooms}`);
  // in the order of their rows: the first lost one goes alone, the others make the second batch
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
/** How often a user was told of this room. */
const noticeCount = (user: User): number =>
  user.notices().filter(({ stanza }) => String(stanza.attrs['from']).startsWith(`${room}/`)).length;

/** All that has been sent has come by now; the lost were told once, the kept one was not. */
async function expectOnce(users = lost): Promise<void> {
  await Promise.all([...lost, kept].map((user) => testBed.settle(user)));
  expect(lost.map(noticeCount)).toEqual(lost.map((user) => (users.includes(user) ? 1 : 0)));
  expect(noticeCount(kept)).toBe(0);
}

/** A gate: who comes waits until it is opened. */
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
/** Waits until so many checks have ended, and none is left. */
async function done(since: number, count: number): Promise<void> {
  const ended = (): number =>
    ['check done', 'check superseded by a newer close'].flatMap((message) => testBed.lines(message, since)).length;
  await until(`${count} checks have ended`, () => ended() >= count, 40_000);
  await until('no check is under way', async () => (await running()) === 0, 40_000);
}

/** Executions that have not ended. */
async function running(): Promise<number> {
  const folder = join(testBed.runtime.data, 'executions');
  const files = await Promise.all(
    (await readdir(folder)).map((file) => readFile(join(folder, file), 'utf8').catch(() => '')),
  );
  return files.filter((text) => text.includes('"status":"RUNNING"')).length;
}

describe('closes that follow each other:', () => {
  const LONGER = 2;
  beforeAll(() => testBed.set({ ping_muc_delay: LONGER }));
  afterAll(() => testBed.set({}));

  it('the two streams of one link close while a webhook is under way: they are one close, and one check', async () => {
    const barrier = newBarrier();
    testBed.webhooks.interceptor.before = barrier.wait;
    await kept.enter(testBed.muc().room('elsewhere'), 'Juliet');
    await until('a webhook is under way', () => barrier.waiting === 1);
    const streams = (): Promise<string> => testBed.home.shell('s2s:show()');
    expect(await streams()).toContain(testBed.muc().domain);
    const at = testBed.dropStreams();
    await until('the server has seen both close', async () => !(await streams()).includes(testBed.muc().domain));
    barrier.release();
    await done(at, 1);
    await expectOnce();
    expect(testBed.closes(at)).toHaveLength(1);
    expect(totals(at)).toMatchObject([{ joined: 2, left: 3, stale: 0, notified: 3 }]); // and elsewhere
  });

  it('the two streams of one link close one after the other: the check of the second does the work of both', async () => {
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

  it('a flapping link: the check is put off, but not for ever, and one does the work of all', async () => {
    const at = Date.now();
    const began = (): number | undefined => testBed.stanzas.requests.find((request) => request.at >= at)?.at;
    for (let entered = testBed.muc().count('enter'); began() === undefined && Date.now() < at + 30_000; entered += 1) {
      testBed.dropOutgoing();
      await sleep(LONGER * 300);
      await kept.enter(room, nickOf(kept)); // makes the link anew
      await until('the link is there', () => testBed.muc().count('enter') > entered);
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
  it('as its answer was lost: one check', async () => {
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

  it('long after, with all that was delivered before: no check, and nobody is told again', async () => {
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

describe('a check that notified half', () => {
  /** Whether a request is the one that tells the other half: the first one has told the first user alone. */
  const second = (tries = 1): ((body: string) => boolean) => {
    let notices = 0;
    return (body) => isNotice(body) && (notices += 1) >= 2 && notices < 2 + tries;
  };
  /** A connection that was kept alive and dies is tried once more before the server counts as out of reach. */
  const BOTH_TRIES = 2;

  it('and lost a connection that was kept alive sends the other half once more, and goes on', async () => {
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

  it('and could not hand on the other half, is run again', async () => {
    const isSecond = second(BOTH_TRIES);
    testBed.stanzas.interceptor.before = (body) => {
      if (isSecond(body)) throw new Error('the connection is cut');
    };
    const at = testBed.dropOutgoing();
    await done(at, 1);
    await expectOnce();
    expect(testBed.lines('check interrupted', at)).toHaveLength(1);
  });

  it('and did not learn that the other half was delivered, is run again', async () => {
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
    'dies with the whole runtime, %s the other half was delivered, and goes on when it is back',
    async (when) => {
      const isSecond = second();
      const barrier = newBarrier();
      testBed.stanzas.interceptor[when] = async (body: string) => {
        if (!isSecond(body)) return;
        await barrier.wait();
        throw new Error('who asked is dead');
      };
      const at = testBed.dropOutgoing();
      await until('the other half is under way', () => barrier.waiting === 1);
      await testBed.runtime.end('SIGKILL');
      barrier.release();
      await testBed.runtime.start();
      await done(at, 1);
      await expectOnce();
    },
  );
});

it('two checks of one pair at once: both ask, one tells', async () => {
  const barrier = newBarrier();
  for (const user of lost)
    testBed.muc().script('ping', occupant(user), held(barrier.wait, error('cancel', 'not-acceptable')));
  testBed.muc().script('ping', occupant(kept), held(barrier.wait, result()));
  const at = testBed.dropOutgoing();
  await until('the first check has asked', () => barrier.waiting === 1);
  testBed.dropIncoming(); // the way of the answers, so that the questions stay
  await until('the second check has asked', () => barrier.waiting === 2);
  barrier.release();
  await done(at, 2);
  await expectOnce();
  const notified = totals(at).map((total) => (total as { notified: number }).notified);
  expect(notified).toHaveLength(2);
  expect((notified[0] ?? 0) + (notified[1] ?? 0)).toBe(3);
});

describe('the module reloads', () => {
  const reload = (): Promise<string> => testBed.home.shell(`module:reload("ping_muc_webhook", "${testBed.home.host}")`);

  it('while rooms are asked: they are asked again, and their first answers do no harm', async () => {
    const barrier = newBarrier();
    for (const user of lost)
      testBed.muc().script('ping', occupant(user), held(barrier.wait, error('cancel', 'not-acceptable')));
    testBed.muc().script('ping', occupant(kept), held(barrier.wait, error('cancel', 'not-acceptable')));
    const at = testBed.dropOutgoing();
    await until('the first one is asked', () => barrier.waiting === 1);
    await reload();
    testBed.muc().script('ping', occupant(kept));
    await until('it is asked again', () => barrier.waiting === 2);
    barrier.release();
    await done(at, 1);
    await expectOnce();
    expect(testBed.lines('check interrupted', at)).toEqual([]);
  });

  it('between the answers and the notices', async () => {
    const barrier = newBarrier();
    testBed.stanzas.interceptor.before = (body) => (isNotice(body) ? barrier.wait() : undefined);
    const at = testBed.dropOutgoing();
    await until('the first notice is under way', () => barrier.waiting === 1);
    await reload();
    barrier.release();
    await done(at, 1);
    await expectOnce();
  });

  it('between two notices of one loss, of which the first was not heard of', async () => {
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
  /** Holds the first notice, which is that of the first lost user alone, for as long as something takes. */
  async function meanwhile(
    what: (user: User) => Promise<void>,
    ends: (at: number) => Promise<unknown> = (at) => done(at, 1),
  ): Promise<number> {
    const [first] = lost as [User, ...User[]];
    const barrier = newBarrier();
    testBed.stanzas.interceptor.before = (body) =>
      isNotice(body) && body.includes(first.jid) ? barrier.wait() : undefined;
    const at = testBed.dropOutgoing();
    await until('its notice is under way', () => barrier.waiting === 1);
    await what(first);
    barrier.release();
    await ends(at);
    return at;
  }
  const asksAgain = (at: number): Promise<unknown> =>
    until('the check will ask again', () => testBed.lines('check will ask again', at)[0]);
  const others = (): readonly User[] => lost.slice(1);

  it('rejoins: it is not told, and the next check asks about its new join', async () => {
    const at = await meanwhile((user) => testBed.join(user, room, nickOf(user)));
    await expectOnce(others());
    expect(totals(at)).toMatchObject([{ joined: 1, left: 2, stale: 1, notified: 2 }]);
    const next = testBed.dropOutgoing();
    await done(next, 1);
    expect(totals(next)).toMatchObject([{ pinged: 2, joined: 2 }]);
  });

  it('has asked to be let in again, and the room has not answered yet: it is not told, and is in when the room answers', async () => {
    const entryBarrier = newBarrier();
    testBed.muc().script(
      'enter',
      room,
      held(entryBarrier.wait, (question) => testBed.muc().admit(question)),
    );
    const at = await meanwhile(async (user) => {
      await user.enter(room, nickOf(user));
      await until('the room has its wish', () => entryBarrier.waiting === 1);
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

  it('has asked to be let in again, and the room refuses: the refusal tells it', async () => {
    const entryBarrier = newBarrier();
    testBed.muc().script('enter', room, held(entryBarrier.wait, refusal('auth', 'forbidden')));
    const at = await meanwhile(async (user) => {
      await user.enter(room, nickOf(user));
      await until('the room has its wish', () => entryBarrier.waiting === 1);
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

  it('has asked to be let in again, and the room never answers: it is told, once its attempt is older than the time-out and a ping', async () => {
    testBed.muc().script('enter', room, silence);
    const since = Date.now();
    const at = await meanwhile(async (user) => {
      const attempts = testBed.muc().count('enter', room);
      await user.enter(room, nickOf(user));
      await until('the room has its attempt', () => testBed.muc().count('enter', room) > attempts);
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

  it('changes its nick: it is not told under the old one', async () => {
    await meanwhile(async (user) => {
      testBed.muc().admit({ user: user.jid, room, nick: nickOf(user) });
      await user.enter(room, 'another');
      await testBed.waitForHistory(room, [`joined ${nickOf(user)}`, 'joined another'], user);
    });
    await expectOnce(others());
  });

  it('leaves the room: it is not told', async () => {
    testBed.muc().script('leave', room, silence);
    await meanwhile(async (user) => {
      await user.leave(room, nickOf(user));
      await testBed.waitForHistory(room, [`joined ${nickOf(user)}`, 'left'], user);
    });
    await expectOnce(others());
  });

  it('ends its session: nobody is told in its place, and the check says so', async () => {
    const at = await meanwhile(async (user) => {
      await user.leaveServer();
      await testBed.waitForHistory(room, [`joined ${nickOf(user)}`, 'left'], user);
    });
    lost = others();
    await expectOnce();
    expect(totals(at)).toMatchObject([{ joined: 1, left: 2, gone: 1, notified: 2 }]);
  });
});
