import { describe, expect, it } from 'vitest';
import { runCheck } from '../../functions/core/check.ts';
import type { CheckRequest, Join } from '../../functions/core/events.ts';
import { REMOTE, World } from './world.ts';

/** Rule 11 (docs/rules.md): a check of one room, for another cause than a close. */
const ROOM = `room@${REMOTE}`;
const OTHER = `other@${REMOTE}`;

/** What the server sends when a room says to a session that it is not in. */
const doubt = (world: World, options: Partial<CheckRequest> = {}): CheckRequest =>
  world.close({ cause: 'room-error', room: ROOM, delay: 0, ...options });

/** Some users in a room, and as many in another, none of whom their rooms know. */
function lostCrowd(count = 3): { world: World; here: Join[]; elsewhere: Join[] } {
  const world = new World();
  const enter = (room: string): Join[] =>
    Array.from({ length: count }, (_, n) => world.lose(world.join(`user${n}`, room)));
  return { world, here: enter('room'), elsewhere: enter('other') };
}
const noticesTo = (world: World, joins: readonly Join[]): number[] => joins.map((join) => world.noticesTo(join));

describe('a check of one room', () => {
  it('asks about the users of that room, notifies them, and no others', async () => {
    const { world, here, elsewhere } = lostCrowd();
    const { state } = await world.check(doubt(world));
    expect(state).toMatchObject({
      next: 'done',
      cause: 'room-error',
      room: ROOM,
      totals: { pinged: 3, left: 3, notified: 3 },
    });
    expect([noticesTo(world, here), noticesTo(world, elsewhere)]).toEqual([
      [1, 1, 1],
      [0, 0, 0],
    ]);
    expect(world.server.pings.every((slot) => slot.startsWith(`${ROOM} `))).toBe(true);
  });

  it('is due at once, and asks nobody who joined after it', async () => {
    const { world } = lostCrowd();
    const close = doubt(world);
    const late = world.lose(world.join('late', 'room'));
    expect(world.start(close)).toMatchObject({ wait: 0, due: world.now / 1000 });
    expect((await world.check(close)).state.totals).toMatchObject({ pinged: 3 });
    expect(world.noticesTo(late)).toBe(0);
  });

  it('continues where an invocation ended, within the room', async () => {
    const world = new World();
    const lost = Array.from({ length: 700 }, (_, n) => world.lose(world.join(`user${n}`, 'room')));
    world.join('somebody', 'after');
    world.limit = 1000;
    const { state, pages } = await world.check(doubt(world));
    expect(pages).toBeGreaterThan(0);
    expect(state.totals).toMatchObject({ pinged: 700, left: 700, notified: 700 });
    expect(lost.every((join) => world.noticesTo(join) === 1)).toBe(true);
  });

  it('brings back users who are out, and counts them as any other check does', async () => {
    const { world, here } = lostCrowd();
    const { state } = await world.check(doubt(world, { reenter: true }));
    expect(state.totals).toMatchObject({ left: 3, reentered: 3, notified: 0 });
    expect(world.server.back).toEqual(here.map(({ room, user }) => `${room} ${user}`));
  });

  it('in a dry run sends no notice', async () => {
    const { world, here } = lostCrowd();
    expect((await world.check(doubt(world, { dryRun: true }))).state.totals).toMatchObject({ notified: 3 });
    expect(noticesTo(world, here)).toEqual([0, 0, 0]);
  });
});

describe('a check of one room and one of its host', () => {
  it('a newer doubt does not supersede the check of a close, nor does it postpone it', async () => {
    const { world, here, elsewhere } = lostCrowd();
    const close = world.close();
    const room = doubt(world, { delay: 60 });
    expect((await world.check(close)).state).toMatchObject({ totals: { pinged: 6, notified: 6 } });
    expect((await world.check(room)).state.superseded).toBeUndefined();
    expect([noticesTo(world, here), noticesTo(world, elsewhere)]).toEqual([
      [1, 1, 1],
      [1, 1, 1],
    ]);
  });

  it('a newer close does not supersede the check of a room: it is due at once', async () => {
    const { world, here } = lostCrowd();
    const room = doubt(world);
    const close = world.close();
    expect((await world.check(room)).state.totals).toMatchObject({ left: 3, notified: 3 });
    expect((await world.check(close)).state.totals).toMatchObject({ pinged: 3, left: 3, notified: 3 });
    expect(noticesTo(world, here)).toEqual([1, 1, 1]);
  });

  it('a doubt about one room does not supersede that of another', async () => {
    const { world, here, elsewhere } = lostCrowd();
    const [first, second] = [doubt(world), doubt(world, { room: OTHER })];
    await world.check(first);
    await world.check(second);
    expect([noticesTo(world, here), noticesTo(world, elsewhere)]).toEqual([
      [1, 1, 1],
      [1, 1, 1],
    ]);
  });

  it('a newer doubt about the same room, with a delay, supersedes the older, as closes do', async () => {
    const { world, here } = lostCrowd();
    const [first, second] = [doubt(world, { delay: 10 }), doubt(world, { delay: 10 })];
    expect((await world.check(first)).state).toMatchObject({ superseded: true, totals: { pinged: 0 } });
    expect((await world.check(second)).state.totals).toMatchObject({ notified: 3 });
    expect(noticesTo(world, here)).toEqual([1, 1, 1]);
  });

  it.each(['a stream breaks while the room is asked', 'the host is out of reach'] as const)(
    'what it cannot decide is left to a newer close that the server names: %s',
    async (what) => {
      const { world, here } = lostCrowd();
      const room = doubt(world, { patience: 0 });
      const at = world.nextAt();
      if (what.startsWith('the host')) world.server.link = 'remote-server-timeout';
      else world.server.room(ROOM).script = () => 'broken';
      world.server.closed = at;
      expect((await world.check(room)).state).toMatchObject({
        next: 'done',
        superseded: true,
        totals: { undecided: 0, notified: 0 },
      });
      expect(noticesTo(world, here)).toEqual([0, 0, 0]);
      world.server.link = 'up';
      delete world.server.room(ROOM).script;
      const close = world.close({ at });
      expect((await world.check(close)).state.totals).toMatchObject({ left: 6, notified: 6 });
      expect(noticesTo(world, here)).toEqual([1, 1, 1]);
    },
  );

  it('what it left to a close does not count against doubts of another day', async () => {
    const { world, here } = lostCrowd(1);
    world.server.room(ROOM).script = () => 'broken';
    const first = doubt(world);
    world.server.closed = world.nextAt();
    await world.check(first);
    world.now += 86_400_000;
    const second = doubt(world);
    expect(world.table.readClose(second)?.oldestUnanswered).toBe(second.at);
    world.server.closed = world.nextAt();
    expect((await world.check(second)).state).toMatchObject({ superseded: true });
    expect(noticesTo(world, here)).toEqual([0]);
  });

  it('what it left to newer causes counts: users who cannot be confirmed are notified after all', async () => {
    const { world, here } = lostCrowd(1);
    world.server.room(ROOM).script = () => 'silence';
    let close = doubt(world);
    let checks = 0;
    for (; noticesTo(world, here)[0] === 0 && checks < 20; checks += 1) {
      let next: CheckRequest | undefined;
      world.hook = ({ port, phase }) => {
        if (port === 'send' && phase === 'before') next ??= doubt(world);
        return undefined;
      };
      await world.check(close);
      close = next as unknown as CheckRequest;
    }
    expect(noticesTo(world, here)).toEqual([1]);
    expect(checks).toBeLessThanOrEqual(4);
  });

  it('both ask at the same time: no user is notified twice, and none is left by each to the other', async () => {
    const { world, here } = lostCrowd();
    world.server.room(ROOM).script = () => 'silence';
    const close = world.close({ patience: 30 });
    const room = doubt(world, { patience: 30 });
    let [one, other] = [
      await runCheck(world.start(close), world.ports()),
      await runCheck(world.start(room), world.ports()),
    ];
    for (let n = 0; n < 20 && (one.next !== 'done' || other.next !== 'done'); n += 1) {
      if (one.next !== 'done') one = await runCheck(one, world.ports());
      if (other.next !== 'done') other = await runCheck(other, world.ports());
      world.now += 10_000;
    }
    expect([one.next, other.next]).toEqual(['done', 'done']);
    expect(noticesTo(world, here)).toEqual([1, 1, 1]);
  });
});
