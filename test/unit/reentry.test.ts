import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { runCheck } from '../../functions/core/check.ts';
import type { CheckState, StoredJoin } from '../../functions/core/check-state.ts';
import type { Join } from '../../functions/core/events.ts';
import type { Lost } from '../../functions/core/notices.ts';
import { ReentryQueue } from '../../functions/core/reentry-queue.ts';
import { type ReentryOutcome, hasFailed, mayReenter, reentryOutcome } from '../../functions/core/reentry.ts';
import type { Answer } from '../../functions/core/stanzas.ts';
import { Crash, HOST, REMOTE, World, elements } from './world.ts';

/** Rule 10 (docs/rules.md): users who are out of a room that exists are brought back, or notified if that fails. */

vi.setConfig({ testTimeout: 60_000 });

const REENTER = { reenter: true } as const;
const users = (count: number): string[] =>
  Array.from({ length: count }, (_, index) => `user${String(index).padStart(6, '0')}`);

/** A world in which so many users were in each of these rooms, none of which knows them any more. */
function lostIn(rooms: Readonly<Record<string, number>>): { world: World; joins: Join[] } {
  const world = new World();
  const joins = Object.entries(rooms).flatMap(([room, count]) =>
    users(count).map((user) => world.lose(world.join(user, room))),
  );
  return { world, joins };
}

const slot = ({ room, user }: Join): string => `${room} ${user}`;
const isBack = (world: World, join: Join): boolean => world.server.back.includes(slot(join));
/** The re-entries of each request, by their rooms' names. */
function requests(world: World): string[][] {
  const all: string[][] = [];
  world.hook = ({ port, phase, stanzas }) => {
    if (port !== 'send' || phase !== 'before' || stanzas === undefined) return undefined;
    const rooms = elements(stanzas)
      .filter((one) => one.name === 'presence' && one.attrs['type'] === undefined)
      .map((one) => String(one.attrs['to']).split('@')[0] ?? '');
    if (rooms.length > 0) all.push(rooms);
    return undefined;
  };
  return all;
}

describe('a user who is out', () => {
  it('is brought back and not notified; users who are in are left alone', async () => {
    const { world, joins } = lostIn({ room: 5 });
    const kept = world.join('kept', 'room');
    const { state } = await world.check(world.close(REENTER));
    expect(world.server.back.sort()).toEqual(joins.map(slot));
    expect(world.server.notices).toEqual([]);
    expect(state.totals).toEqual({
      pinged: 6,
      joined: 1,
      proved: 0,
      left: 5,
      undecided: 0,
      gone: 0,
      stale: 0,
      reentered: 5,
      gaps: 0,
      notified: 0,
      refused: 0,
    });
    expect([...world.table.rows.values()].map(({ user }) => user).sort()).toEqual(
      [...joins, kept].map(({ user }) => user).sort(),
    );
    for (const join of joins)
      expect(world.table.rows.get(`${HOST}\n${REMOTE}\n${join.room}#${join.user}`)?.at).toBeGreaterThan(join.at);
  });

  it('is notified if the close does not ask for re-entry', async () => {
    const { world, joins } = lostIn({ room: 3 });
    const { state } = await world.check(world.close());
    expect(world.server.reentries).toEqual([]);
    expect(state.totals).toMatchObject({ left: 3, reentered: 0, notified: 3, refused: 0 });
    expect(joins.map((join) => world.noticesTo(join))).toEqual([1, 1, 1]);
  });

  it('is notified if the room no longer exists: no new room is made', async () => {
    const { world, joins } = lostIn({ room: 300 });
    world.server.room(joins[0]?.room ?? '').exists = false;
    const { state } = await world.check(world.close(REENTER));
    expect(world.server.reentries).toEqual([]);
    expect(world.server.room(joins[0]?.room ?? '').exists).toBe(false);
    expect(state.totals).toMatchObject({ left: 300, reentered: 0, notified: 300, refused: 0 });
  });

  it('only because no answer came is notified after the last ping, and not brought back', async () => {
    const { world, joins } = lostIn({ room: 3 });
    world.server.room(joins[0]?.room ?? '').script = () => 'silence';
    const { state } = await world.check(world.close({ ...REENTER, patience: 20 }));
    expect(world.server.reentries).toEqual([]);
    expect(state.totals).toMatchObject({ undecided: 3, notified: 3, refused: 0 });
  });

  it('is brought back without waiting for another room that is asked whether it is there', async () => {
    const world = new World();
    world.join('user', 'a'); // alone
    world.lose(world.join('user', 'b'));
    world.join('user', 'c');
    world.server.room(`c@${REMOTE}`).exists = false;
    let release = (): void => undefined;
    world.hook = ({ phase, stanzas }) => {
      if (phase === 'after' && stanzas?.includes('<presence id=')) release();
      if (phase === 'after' || !stanzas?.includes('disco#info')) return undefined;
      return new Promise((resolve) => (release = resolve));
    };
    const { state } = await world.check(world.close(REENTER));
    expect(state.totals).toMatchObject({ joined: 1, left: 2, reentered: 1, notified: 1 });
  });

  it('is brought back although a newer close has come: the room has answered', async () => {
    const { world, joins } = lostIn({ room: 40 });
    world.hook = ({ port, phase }) => {
      if (port === 'send' && phase === 'after' && world.server.back.length === 0) world.server.closed = world.nextAt();
      return undefined;
    };
    await world.check(world.close(REENTER));
    expect(world.server.back).toHaveLength(joins.length);
  });

  it('in a dry run is asked for nothing, counted as back, and keeps its row', async () => {
    const { world } = lostIn({ room: 20, gone: 2 });
    world.server.room(`gone@${REMOTE}`).exists = false;
    const { state } = await world.check(world.close({ ...REENTER, dryRun: true }));
    expect([world.server.reentries, world.server.notices]).toEqual([[], []]);
    expect(state.totals).toMatchObject({ left: 22, reentered: 20, notified: 2, refused: 0 });
    expect(world.table.rows.size).toBe(22);
  });

  it('to whom the history did not bring all is counted', async () => {
    const { world } = lostIn({ a: 3, b: 2 });
    world.server.room(`b@${REMOTE}`).forgets = true;
    expect((await world.check(world.close(REENTER))).state.totals).toMatchObject({
      reentered: 5,
      gaps: 2,
      notified: 0,
    });
  });
});

describe('a re-entry that fails', () => {
  const refused = { type: 'auth', condition: 'registration-required', text: 'Members only' };

  /** One user, whom the room does not know, with a text of its own; and what it says to the re-entry. */
  function refusing(answer: ReturnType<NonNullable<ReturnType<World['server']['room']>['script']>>): {
    world: World;
    join: Join;
  } {
    const {
      world,
      joins: [join],
    } = lostIn({ room: 1 });
    world.server.room((join as Join).room).script = (kind) =>
      kind === 'reentry' ? answer : { type: 'cancel', condition: 'not-acceptable', text: 'Not here' };
    return { world, join: join as Join };
  }

  it.each([
    ['refused, with the room’s reason for it', refused, 'Members only'],
    ['refused without one, with what the room said to the ping', { type: 'cancel', condition: 'conflict' }, 'Not here'],
    ['refused for now', { type: 'wait', condition: 'resource-constraint', text: 'Full' }, 'Full'],
    [
      'refused by a policy of the room',
      { type: 'modify', condition: 'policy-violation', text: 'Bad nick' },
      'Bad nick',
    ],
    [
      'refused as the room is gone by now',
      { type: 'cancel', condition: 'item-not-found', text: 'No such room' },
      'No such room',
    ],
    ['not answered in time', 'silence', 'Not here'],
    ['lost with its stream, again and again', 'broken', 'Not here'],
    [
      'bounced, in words that are not the room’s',
      { type: 'cancel', condition: 'remote-server-not-found', text: 'Connection refused' },
      'Not here',
    ],
  ] as const)('is followed by a notice: %s', async (_what, answer, reason) => {
    const { world, join } = refusing(answer);
    const { state } = await world.check(world.close(REENTER));
    expect(world.server.notices).toEqual([{ user: join.user, room: join.room, nick: 'nick', at: join.at, reason }]);
    expect(state.totals).toMatchObject({ left: 1, reentered: 0, notified: 1, refused: 1 });
    expect(world.table.rows.size).toBe(0);
  });

  it.each([
    ['it does none', 'cancel', 'feature-not-implemented'],
    ['the room is too large', 'wait', 'resource-constraint'],
    ['it knows no such stanza, as it was put back meanwhile', 'modify', 'policy-violation'],
    ['it has a reason of tomorrow', 'cancel', 'not-allowed'],
  ])('is followed by a notice, and by none of the server’s own words: %s', async (_what, type, condition) => {
    const {
      world,
      joins: [join],
    } = lostIn({ room: 1 });
    world.server.noReentry = () => ({ type, condition, by: HOST, text: 'The limit is 500' });
    const { state } = await world.check(world.close(REENTER));
    expect(world.server.notices.map(({ reason }) => reason)).toEqual(['Connection to remote server lost']);
    expect(world.noticesTo(join as Join)).toBe(1);
    expect(state.totals).toMatchObject({ notified: 1, refused: 1 });
  });

  it('is asked for again, where it was lost with its stream', async () => {
    const { world, joins } = lostIn({ room: 3 });
    let isBroken = true;
    world.server.room(joins[0]?.room ?? '').script = (kind) => (kind === 'reentry' && isBroken ? 'broken' : undefined);
    world.onWait = () => (isBroken = false);
    const { state, waits } = await world.check(world.close({ ...REENTER, patience: 300 }));
    expect(waits).toHaveLength(1);
    expect(joins.map((join) => isBack(world, join))).toEqual([true, true, true]);
    expect(state.totals).toMatchObject({ left: 3, reentered: 3, notified: 0, refused: 0 });
  });

  it('is postponed for all when the link is down for a whole request, and done when it is up', async () => {
    const { world, joins } = lostIn(Object.fromEntries(Array.from({ length: 30 }, (_, room) => [`room-${room}`, 4])));
    let requests = 0;
    let isDown = true;
    world.server.noReentry = () =>
      isDown ? { type: 'cancel', condition: 'remote-server-not-found', by: HOST } : undefined;
    world.hook = ({ phase, stanzas }) => {
      if (isDown && phase === 'before' && stanzas?.includes('<presence id=')) requests += 1;
      return undefined;
    };
    world.onWait = () => (isDown = false);
    const { state, waits } = await world.check(world.close({ ...REENTER, patience: 300 }));
    expect([requests, waits.length]).toEqual([1, 1]);
    expect(world.server.notices).toEqual([]);
    expect(joins.every((join) => isBack(world, join))).toBe(true);
    expect(state.totals).toMatchObject({ left: 120, reentered: 120, notified: 0, refused: 0 });
  });

  it('ends with patience if the link stays down: all are notified', async () => {
    const { world, joins } = lostIn({ a: 20, b: 20 });
    world.server.noReentry = () => ({ type: 'cancel', condition: 'remote-server-not-found', by: HOST });
    const { state } = await world.check(world.close({ ...REENTER, patience: 300 }));
    expect(joins.filter((join) => world.noticesTo(join) !== 1)).toEqual([]);
    expect(state.totals).toMatchObject({ left: 40, reentered: 0, notified: 40, refused: 40 });
  });

  it('is personal: the others of the room are brought back all the same', async () => {
    const { world, joins } = lostIn({ room: 9 });
    world.server.room(joins[0]?.room ?? '').script = (kind, user) =>
      kind === 'reentry' && user === joins[4]?.user ? refused : undefined;
    const { state } = await world.check(world.close(REENTER));
    expect(joins.map((join) => [isBack(world, join), world.noticesTo(join)])).toEqual(
      joins.map((_, index) => (index === 4 ? [false, 1] : [true, 0])),
    );
    expect(state.totals).toMatchObject({ left: 9, reentered: 8, notified: 1, refused: 1 });
  });

  it('does not notify a user who came back by itself, nor count it as refused', async () => {
    const { world } = refusing(refused);
    world.hook = ({ phase, stanzas }) => {
      if (phase === 'before' && stanzas?.includes('type="unavailable"')) world.join('user000000', 'room');
      return undefined;
    };
    const { state } = await world.check(world.close(REENTER));
    expect(world.server.notices).toEqual([]);
    expect(state.totals).toMatchObject({ left: 0, stale: 1, notified: 0, refused: 0 });
  });
});

describe('the user’s own action wins', () => {
  /** Something happens to the one lost user just before the re-entry is asked for. */
  function meanwhile(act: (world: World, join: Join) => void): { world: World; join: Join } {
    const {
      world,
      joins: [join],
    } = lostIn({ room: 1 });
    let done = false;
    world.hook = ({ phase, stanzas }) => {
      if (!done && phase === 'before' && stanzas?.includes('<presence id=')) {
        done = true;
        act(world, join as Join);
      }
      return undefined;
    };
    return { world, join: join as Join };
  }

  it('who has ended the session is gone', async () => {
    const { world } = meanwhile(({ server }, { user }) => void server.sessions.delete(user));
    const { state } = await world.check(world.close(REENTER));
    expect([world.server.back, world.server.notices]).toEqual([[], []]);
    expect(state.totals).toMatchObject({ left: 0, gone: 1, reentered: 0, notified: 0, refused: 0 });
    expect(world.table.rows.size).toBe(0);
  });

  it('who has left the room has left it', async () => {
    const { world } = meanwhile(({ server }, join) => void server.joins.delete(slot(join)));
    const { state } = await world.check(world.close(REENTER));
    expect([world.server.back, world.server.notices]).toEqual([[], []]);
    expect(state.totals).toMatchObject({ left: 0, stale: 1, notified: 0 });
  });

  it('who has entered by itself keeps the row of that', async () => {
    const { world } = meanwhile((there) => void there.join('user000000', 'room'));
    const { state } = await world.check(world.close(REENTER));
    expect([world.server.back, world.server.notices]).toEqual([[], []]);
    expect(state.totals).toMatchObject({ stale: 1, notified: 0 });
    expect(world.table.rows.size).toBe(1);
  });

  it('who is just now entering is asked about again, and brought back if that comes to nothing', async () => {
    const { world, join } = meanwhile(({ server }, one) => void server.rejoining.add(slot(one)));
    world.onWait = () => world.server.rejoining.clear();
    const { state, waits } = await world.check(world.close(REENTER));
    expect(waits).toHaveLength(1);
    expect(isBack(world, join)).toBe(true);
    expect(state.totals).toMatchObject({ pinged: 2, left: 1, stale: 0, reentered: 1, notified: 0 });
  });

  it('who is just now entering for ever is left to the next check', async () => {
    const { world } = meanwhile(({ server }, one) => void server.rejoining.add(slot(one)));
    const { state, waits } = await world.check(world.close({ ...REENTER, timeout: 20 }));
    expect(waits.reduce((sum, wait) => sum + wait, 0)).toBeLessThanOrEqual(100);
    expect(state.totals).toMatchObject({ left: 0, stale: 1, reentered: 0, notified: 0 });
    expect(world.table.rows.size).toBe(1);
  });
});

describe('the pace', () => {
  it('is a window: 2 at most for one room, 16 for the host, and the next when these are back', async () => {
    const { world } = lostIn({ a: 3, b: 40, c: 5, d: 12, e: 9, f: 7, g: 8, h: 2, i: 6, j: 4, k: 30 });
    const all = requests(world);
    await world.check(world.close(REENTER));
    expect(world.most.reentries).toBe(16);
    expect(all.flat()).toHaveLength(126);
    for (const rooms of all) {
      expect(rooms.length).toBeLessThanOrEqual(16);
      for (const room of rooms) expect(rooms.filter((other) => other === room).length).toBeLessThanOrEqual(2);
    }
  });

  it('lets the smallest rooms go first, and fills up with the others', async () => {
    const { world } = lostIn({ a: 50, b: 6, c: 2, d: 1, e: 20 });
    world.join('user', '0'); // is asked first, and alone
    const all = requests(world);
    await world.check(world.close(REENTER));
    expect(all.slice(0, 4).map((rooms) => rooms.join(''))).toEqual(['dccb', 'bbeeaa', 'bbeeaa', 'beeaa']);
  });

  describe('follows the service', () => {
    /** Brings 2,000 users back, to so many rooms. Returns the sizes of the requests if each takes so long, in ms. */
    function sizes(rooms: number, takes: (request: readonly Lost[], turn: number) => number): number[] {
      const queue = new ReentryQueue();
      queue.add(
        Array.from({ length: 2000 }, (_, at): Lost => ({
          join: { room: `${at % rooms}`, at } as StoredJoin,
          reason: undefined,
        })),
      );
      const all: number[] = [];
      while (queue.size > 0) {
        const request = queue.next();
        queue.learn(
          request,
          request.map(() => 'back'),
          takes(request, all.length),
        );
        all.push(request.length);
      }
      return all;
    }

    it('begins with 4, and doubles where nobody waits, however long the way is', () => {
      for (const wayMs of [0, 5, 2000]) expect(sizes(100, () => wayMs).slice(0, 5)).toEqual([4, 8, 16, 16, 16]);
    });

    it.each([
      [10, 16, 16],
      [20, 16, 16],
      [40, 10, 10],
      [100, 5, 7],
      [1000, 2, 3],
    ])(
      'lets as many enter, where each takes %s ms, as keep others waiting for a quarter of a second: %s to %s',
      (eachMs, fewest, most) => {
        const later = sizes(100, (request) => 50 + eachMs * request.length).slice(5, 50);
        expect([Math.min(...later), Math.max(...later)]).toEqual([fewest, most]);
      },
    );

    it('goes back to 16 where it is fast again, one by one', () => {
      const all = sizes(100, (_request, turn) => (turn === 10 ? 5000 : 50));
      expect(all.slice(9, 14)).toEqual([16, 16, 2, 3, 4]);
      expect(all.slice(25, 30)).toEqual([16, 16, 16, 16, 16]);
    });

    it('asks two rooms where there are two, however slow they are, so that they can speak for their host', () => {
      const perRequest: number[] = [];
      const slow = (request: readonly Lost[]): number => {
        perRequest.push(new Set(request.map(({ join }) => join.room)).size);
        return 1000 * request.length;
      };
      sizes(2, slow);
      expect(new Set(perRequest.slice(0, -1))).toEqual(new Set([2]));
    });
  });

  it('runs beside the pings, and does not count towards their limit of 1,000', async () => {
    const { world, joins } = lostIn({ a: 900 });
    for (const user of users(3000)) world.join(user, 'b');
    let [pings, reentries, most] = [0, 0, 0];
    const story: string[] = [];
    world.hook = ({ port, phase, stanzas = '' }) => {
      if (port !== 'send') return undefined;
      const step = phase === 'before' ? 1 : -1;
      pings += step * (stanzas.match(/<ping/g)?.length ?? 0);
      reentries += step * (stanzas.match(/<presence id=/g)?.length ?? 0);
      most = Math.max(most, pings + reentries);
      if (phase === 'before') story.push(stanzas.includes('<ping') ? 'ping' : 'reenter');
      return undefined;
    };
    await world.check(world.close(REENTER));
    expect(world.server.back).toHaveLength(joins.length);
    expect(story.indexOf('reenter')).toBeLessThan(story.lastIndexOf('ping'));
    expect(most).toBeLessThanOrEqual(1000);
  });

  it('ends for a room that does not answer: its other users are notified', async () => {
    const { world, joins } = lostIn({ silent: 30, other: 30 });
    world.server.room(`silent@${REMOTE}`).script = (kind) => (kind === 'reentry' ? 'silence' : undefined);
    const { state } = await world.check(world.close(REENTER));
    expect(world.server.reentries.filter((one) => one.startsWith('silent'))).toHaveLength(2);
    expect(joins.map((join) => [isBack(world, join), world.noticesTo(join)])).toEqual(
      joins.map(({ room }) => (room.startsWith('silent') ? [false, 1] : [true, 0])),
    );
    expect(state.totals).toMatchObject({ left: 60, reentered: 30, notified: 30, refused: 30 });
  });

  it('does not let one silent room, which is the only one that was asked, speak for the host', async () => {
    const world = new World();
    world.lose(world.join('user', 'a')); // is asked first, and alone
    for (const user of users(20)) world.lose(world.join(user, 'b'));
    world.server.room(`a@${REMOTE}`).script = (kind) => (kind === 'reentry' ? 'silence' : undefined);
    const { state } = await world.check(world.close(REENTER));
    expect(state.totals).toMatchObject({ reentered: 20, notified: 1 });
  });

  it('ends for the invocation if a whole request is not answered: the rest is notified', async () => {
    const { world, joins } = lostIn(Object.fromEntries(users(20).map((room) => [room, 6])));
    for (const room of world.server.rooms.values())
      room.script = (kind) => (kind === 'reentry' ? 'silence' : undefined);
    world.join('user', '0'); // is asked first, and alone
    const { state } = await world.check(world.close(REENTER));
    expect(world.server.reentries).toHaveLength(4);
    expect(joins.filter((join) => world.noticesTo(join) !== 1)).toEqual([]);
    expect(state.totals).toMatchObject({ left: 120, reentered: 0, notified: 120, refused: 120 });
  });

  it('ends at once where the server does no re-entries, and for a room where it does none there', async () => {
    const off = lostIn({ a: 30, b: 30 });
    off.world.server.noReentry = () => ({ type: 'cancel', condition: 'feature-not-implemented', by: HOST });
    expect((await off.world.check(off.world.close(REENTER))).state.totals).toMatchObject({ notified: 60, refused: 60 });
    expect(off.world.server.reentries.length).toBeLessThanOrEqual(16);
    const large = lostIn({ a: 30, b: 30 });
    large.world.server.noReentry = (one) =>
      one.startsWith('a@') ? { type: 'wait', condition: 'resource-constraint', by: HOST } : undefined;
    expect((await large.world.check(large.world.close(REENTER))).state.totals).toMatchObject({
      reentered: 30,
      notified: 30,
      refused: 30,
    });
    expect(large.world.server.reentries.filter((one) => one.startsWith('a@')).length).toBeLessThanOrEqual(2);
  });

  it('notifies many users who cannot re-enter any more in requests as large as those of pings', async () => {
    const { world } = lostIn({ a: 700 });
    world.server.noReentry = () => ({ type: 'cancel', condition: 'feature-not-implemented', by: HOST });
    await world.check(world.close(REENTER));
    expect(world.most.stanzas).toBeLessThanOrEqual(246);
    expect(world.server.notices).toHaveLength(700);
  });
});

describe('the time of an invocation', () => {
  it('is not exceeded by re-entries: users for whom none is left are brought back later, not notified', async () => {
    const { world, joins } = lostIn({ a: 100, b: 100 });
    const close = world.close(REENTER);
    // 200 are pinged at once; a request of 4 begins while a time-out and two minutes are left, which is 180 s
    world.limit = 300_000;
    world.latency = 4000;
    const late: number[] = [];
    let ends = 0;
    let state: CheckState = { ...world.start(close) };
    world.now = close.at / 1000 + 60_000;
    let invocations = 0;
    for (; state.next !== 'done' || invocations === 0; invocations += 1) {
      ends = world.now + world.limit;
      world.hook = ({ phase, stanzas }) => {
        if (phase === 'before' && stanzas?.includes('<presence id=')) late.push(ends - world.now);
        return undefined;
      };
      state = await runCheck(state, world.ports(ends));
      if (state.next === 'wait') world.now += state.wait * 1000;
    }
    expect(invocations).toBeGreaterThan(1);
    expect(invocations).toBeLessThan(5);
    expect(late.filter((left) => left <= 180_000)).toEqual([]);
    expect(world.server.notices).toEqual([]);
    expect(world.server.back).toHaveLength(joins.length);
    expect(new Set(world.server.back).size).toBe(joins.length);
    expect(state.totals).toMatchObject({ left: 200, reentered: 200, stale: 0, notified: 0 });
  });

  it('does not keep users waiting for more than 20 minutes: those who are not back then are notified', async () => {
    const { world, joins } = lostIn({ a: 200, b: 200 });
    world.latency = 60_000; // of each request
    const since = world.now;
    const { state } = await world.check(world.close({ ...REENTER, timeout: 120 }));
    const back = joins.filter((join) => isBack(world, join));
    expect(back.length).toBeGreaterThan(40);
    expect(back.length).toBeLessThan(joins.length);
    expect(world.server.notices).toHaveLength(joins.length - back.length);
    expect(state.totals).toMatchObject({ reentered: back.length, notified: joins.length - back.length });
    expect((world.now - since) / 60_000).toBeLessThan(30);
  });

  it('lets one request of them through at least, however little there is', async () => {
    const { world, joins } = lostIn({ a: 4 });
    world.limit = 1000;
    const { state, invocations } = await world.check(world.close(REENTER));
    expect(invocations).toBe(4);
    expect(world.server.back).toHaveLength(joins.length);
    expect(state.totals).toMatchObject({ left: 4, reentered: 4, notified: 0 });
  });

  it('goes to those who are lost before more are pinged: some 5,000 wait at most', async () => {
    const { world, joins } = lostIn({ a: 12_000 });
    const release = Promise.withResolvers<undefined>();
    world.hook = ({ phase, stanzas }) =>
      phase === 'before' && stanzas?.includes('<presence id=') ? release.promise : undefined;
    const invocation = runCheck(world.start(world.close(REENTER)), world.ports());
    for (let pinged = -1; pinged < world.server.pings.length; await new Promise((resolve) => setTimeout(resolve, 300)))
      pinged = world.server.pings.length;
    expect(world.server.pings.length).toBeGreaterThan(4000);
    expect(world.server.pings.length).toBeLessThanOrEqual(4000 + 4 * 246);
    release.resolve(undefined);
    const state = await invocation;
    expect(state.next).toBe('page');
    expect(state.totals.reentered).toBe(world.server.pings.length);
    expect(joins.filter((join) => world.noticesTo(join) > 0)).toEqual([]);
  });
});

describe('never both, and nobody forgotten', () => {
  const situations = ['kept', 'lost', 'refused', 'silent', 'ended', 'rejoined', 'room gone'] as const;
  interface Scene {
    readonly joins: readonly (readonly [room: string, situation: (typeof situations)[number]])[];
    readonly patience: number;
  }
  const scenes = fc.record<Scene>({
    joins: fc.array(fc.tuple(fc.constantFrom('r1', 'r2', 'r3'), fc.constantFrom(...situations)), {
      minLength: 1,
      maxLength: 8,
    }),
    patience: fc.constantFrom(0, 20),
  });

  function play(scene: Scene): { world: World; notified: Set<string>; back: Set<string>; either: Set<string> } {
    const world = new World();
    const [notified, back, either] = [new Set<string>(), new Set<string>(), new Set<string>()];
    const hasSilent = new Set(scene.joins.filter(([, situation]) => situation === 'silent').map(([room]) => room));
    scene.joins.forEach(([name, situation], index) => {
      const room = situation === 'room gone' ? `gone${index}` : name;
      const join = world.join(`user${index}`, room);
      const there = world.server.room(join.room);
      if (situation !== 'kept' && situation !== 'ended' && situation !== 'rejoined') world.lose(join);
      if (situation === 'room gone') there.exists = false;
      if (situation === 'ended') world.server.sessions.delete(join.user);
      if (situation === 'rejoined') world.server.joins.set(slot(join), { nick: 'nick', at: world.nextAt() });
      const earlier = there.script;
      there.script = (kind, user) => {
        if (kind === 'reentry' && user === join.user && situation === 'silent') return 'silence';
        if (kind === 'reentry' && user === join.user && situation === 'refused')
          return { type: 'auth', condition: 'forbidden' };
        return earlier?.(kind, user);
      };
      if (situation === 'silent' || situation === 'refused' || situation === 'room gone') notified.add(slot(join));
      else if (situation === 'lost') (hasSilent.has(name) ? either : back).add(slot(join)); // after a silent one
    });
    return { world, notified, back, either };
  }

  function judge({ world, notified, back, either }: ReturnType<typeof play>, what: string): void {
    const [noticed, entered] = [world.server.notices.map(({ room, user }) => `${room} ${user}`), world.server.back];
    expect(new Set(noticed).size, what).toBe(noticed.length);
    expect(new Set(entered).size, what).toBe(entered.length);
    expect(
      noticed.filter((one) => entered.includes(one)),
      what,
    ).toEqual([]);
    expect(
      [...notified].filter((one) => !noticed.includes(one)),
      what,
    ).toEqual([]);
    expect(
      [...either].filter((one) => !noticed.includes(one) && !entered.includes(one)),
      what,
    ).toEqual([]);
    const hasRoomSilence = notified.size > 0 && either.size > 0;
    if (!hasRoomSilence) expect(entered.slice().sort(), what).toEqual([...back].sort());
    expect(
      noticed.filter((one) => !notified.has(one) && !either.has(one)),
      what,
    ).toEqual([]);
  }

  it('whatever the rooms do, and the totals add up', async () => {
    await fc.assert(
      fc.asyncProperty(scenes, async (scene) => {
        const played = play(scene);
        const { state } = await played.world.check(played.world.close({ ...REENTER, patience: scene.patience }));
        judge(played, 'whole');
        const { joined, left, undecided, gone, stale, reentered, notified } = state.totals;
        expect(joined + left + undecided + gone + stale).toBe(scene.joins.length);
        expect(left).toBe(reentered + notified);
      }),
      { numRuns: 200 },
    );
  });

  it('also when the check dies at any call of any port, before or after its effect, and is run again', async () => {
    await fc.assert(
      fc.asyncProperty(scenes, async (scene) => {
        const whole = play(scene);
        await whole.world.check(whole.world.close({ ...REENTER, patience: scene.patience }));
        for (let n = 1; n <= whole.world.calls; n += 1) {
          for (const phase of ['before', 'after'] as const) {
            const played = play(scene);
            let died = false;
            played.world.hook = (call) => {
              if (died || call.n !== n || call.phase !== phase) return undefined;
              died = true;
              throw new Crash(`${call.port} ${phase}`);
            };
            await played.world.check(played.world.close({ ...REENTER, patience: scene.patience }));
            judge(played, `died ${phase} call ${n}`);
          }
        }
      }),
      { numRuns: 25 },
    );
  });

  it('also when a re-entry is still under way as the invocation that asked for it has died', async () => {
    const {
      world,
      joins: [join],
    } = lostIn({ room: 1 });
    let died = false;
    world.hook = ({ phase, stanzas }) => {
      if (died || phase !== 'before' || !stanzas?.includes('<presence id=')) return undefined;
      died = true;
      // what the server answers while it waits for the room's answer to the first
      world.server.rejoining.add(slot(join as Join));
      throw new Crash();
    };
    world.onWait = () => world.server.rejoining.clear(); // which never comes
    const { state } = await world.check(world.close(REENTER));
    expect(isBack(world, join as Join)).toBe(true);
    expect(state.totals).toMatchObject({ reentered: 1, notified: 0, stale: 0 });
  });

  it('when a re-entry fails as a request, nothing more is begun, and what is in flight comes to its end', async () => {
    const { world } = lostIn({ a: 3000 });
    let [reentries, inFlight] = [0, 0];
    world.hook = ({ phase, stanzas, port }) => {
      if (port !== 'send' && port !== 'deleteJoin') return undefined;
      if (phase === 'after') inFlight -= 1;
      else if (stanzas?.includes('<presence id=') && (reentries += 1) === 2) throw new Crash();
      else inFlight += 1;
      return undefined;
    };
    const unheard: unknown[] = [];
    const listen = (reason: unknown): unknown => unheard.push(reason);
    process.on('unhandledRejection', listen);
    await expect(runCheck(world.start(world.close(REENTER)), world.ports())).rejects.toThrow(Crash);
    await new Promise((resolve) => setTimeout(resolve, 20));
    process.off('unhandledRejection', listen);
    expect([reentries, inFlight, unheard]).toEqual([2, 0, []]);
    expect(world.server.pings.length).toBeLessThan(3000);
  });

  it('when pings fail, no more re-entries are asked for', async () => {
    const { world } = lostIn({ a: 3000 });
    let [failed, after] = [false, 0];
    world.hook = ({ phase, stanzas, port }) => {
      if (port !== 'send' || phase !== 'before') return undefined;
      if (failed && stanzas?.includes('<presence id=')) after += 1;
      if (!stanzas?.includes('<ping') || world.server.pings.length < 1000) return undefined;
      failed = true;
      throw new Crash();
    };
    await expect(runCheck(world.start(world.close(REENTER)), world.ports())).rejects.toThrow(Crash);
    expect(failed).toBe(true);
    expect(after).toBeLessThanOrEqual(1);
  });
});

describe('the parts', () => {
  it('only `left` may re-enter, and only where the close says so', () => {
    for (const verdict of ['joined', 'no-room', 'undecided', 'inconclusive', 'gone', 'stale', 'ask-room'] as const)
      expect(mayReenter({ reenter: true }, verdict), verdict).toBe(false);
    expect([mayReenter({ reenter: true }, 'left'), mayReenter({ reenter: false }, 'left')]).toEqual([true, false]);
  });

  const error = (condition: string, more: Partial<Extract<Answer, { kind: 'error' }>> = {}): Answer => ({
    kind: 'error',
    type: 'cancel',
    condition,
    ...more,
  });
  const own = { by: HOST };

  it.each<[answer: string, Answer | undefined, ReentryOutcome, isTold: boolean]>([
    ['success', { kind: 'result' }, 'back', false],
    ['success with a gap', { kind: 'result', hasGap: true }, 'back', false],
    ['nothing', undefined, 'unanswered', true],
    ['no answer, as our server says', error('remote-server-timeout', { ...own, silence: 'room' }), 'unanswered', true],
    [
      'no answer, and a stream broke, as our server says',
      error('remote-server-timeout', { ...own, silence: 'broken' }),
      'broken',
      false,
    ],
    [
      'no answer, and a stream broke, as somebody else says',
      error('remote-server-timeout', { silence: 'broken' }),
      'unanswered',
      true,
    ],
    ['out of reach, as our server says', error('remote-server-not-found', own), 'broken', false],
    ['not connected in time, as our server says', error('remote-server-timeout', own), 'broken', false],
    ['out of reach, as somebody else says', error('remote-server-not-found'), 'unanswered', true],
    ['recipient-unavailable by our server', error('recipient-unavailable', own), 'gone', false],
    ['conflict by our server', error('conflict', own), 'stale', false],
    [
      'conflict by our server, as the session is rejoining',
      error('conflict', { ...own, isRejoining: true }),
      'rejoining',
      false,
    ],
    ['resource-constraint by our server', error('resource-constraint', own), 'too large', true],
    ['feature-not-implemented by our server', error('feature-not-implemented', own), 'off', true],
    ['policy-violation by our server', error('policy-violation', own), 'off', true],
    ['unexpected-request by our server', error('unexpected-request', own), 'refused', true],
    ['item-not-found by our server', error('item-not-found', own), 'refused', true],
    ['an error of tomorrow by our server', error('not-allowed', own), 'refused', true],
    ['recipient-unavailable from the room', error('recipient-unavailable'), 'refused', true],
    ['a taken nick', error('conflict'), 'refused', true],
    ['a taken nick, in words that only our server may use', error('conflict', { isRejoining: true }), 'refused', true],
    ['resource-constraint from the room', error('resource-constraint'), 'refused', true],
    ['feature-not-implemented by the room’s host', error('feature-not-implemented', { by: REMOTE }), 'refused', true],
  ])('what an answer means: %s', (_what, answer, outcome, isTold) => {
    expect(reentryOutcome(answer, HOST)).toBe(outcome);
    expect(hasFailed(outcome)).toBe(isTold);
  });

  it('a queue gives out everyone once, in windows, whatever comes in between', () => {
    const rooms = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k');
    const steps = fc.array(
      fc.oneof(fc.array(rooms, { maxLength: 40 }), fc.constant('next' as const), fc.constant('hopeless' as const)),
      { maxLength: 30 },
    );
    fc.assert(
      fc.property(steps, (script) => {
        const queue = new ReentryQueue();
        const out: number[] = [];
        let count = 0;
        for (const step of script) {
          if (typeof step !== 'string')
            queue.add(
              step.map((room): Lost => ({ join: { room, at: (count += 1) } as StoredJoin, reason: undefined })),
            );
          const taken = step === 'next' ? queue.next() : step === 'hopeless' ? queue.takeShut() : [];
          if (step === 'hopeless') expect(taken).toEqual([]);
          expect(taken.length).toBeLessThanOrEqual(16);
          for (const { length } of Map.groupBy(taken, ({ join }) => join.room).values())
            expect(length).toBeLessThanOrEqual(2);
          out.push(...taken.map(({ join }) => join.at));
          expect(queue.size).toBe(count - out.length);
        }
        out.push(...queue.takeAll().map(({ join }) => join.at));
        expect(queue.size).toBe(0);
        expect(out.sort((one, other) => one - other)).toEqual(Array.from({ length: count }, (_, index) => index + 1));
      }),
    );
  });
});
