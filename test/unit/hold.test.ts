import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { runCheck } from '../../functions/core/check.ts';
import type { CheckState } from '../../functions/core/check-state.ts';
import type { CheckRequest, Join } from '../../functions/core/events.ts';
import { notifiedOtherwise, users, worldWith } from './world-with.ts';
import { Crash, World } from './world.ts';

/** Rule 13 (docs/rules.md): beyond the limit of notices, a check is held for an operator. */

vi.setConfig({ testTimeout: 60_000 }); // a second or two, on a machine that does nothing else

const limit = (notices: number, share = 0.5): Partial<CheckRequest> => ({ limit: { notices, share } });
const told = (world: World): number => world.server.notices.length + world.server.back.length;

/** A world in which so many of the users are out of their rooms, evenly over all of them. */
function lossOf(count: number, lost: number): { world: World; joins: Join[]; out: Join[] } {
  const { world, joins } = worldWith(count);
  const out = joins.filter((_, index) => (index * lost) % count < lost).map((join) => world.lose(join));
  return { world, joins, out };
}

/** Runs a check until it is held, or has ended. */
async function untilHeld(world: World, close: CheckRequest): Promise<CheckState> {
  world.now = Math.max(world.now, close.at / 1000 + close.delay * 1000);
  let state = world.start(close);
  while (state.held !== true && (state.next !== 'done' || state.round === 0)) {
    state = await runCheck(state, world.ports());
    if (state.next === 'done') break;
    if (state.next === 'wait' && state.held !== true) world.now += state.wait * 1000;
  }
  return state;
}

describe('the limit', () => {
  it('holds the check before it would notify more users, and nobody else is notified', async () => {
    const { world, out } = lossOf(2000, 2000);
    const state = await untilHeld(world, world.close(limit(300)));
    expect(state).toMatchObject({ held: true, next: 'wait', wait: 60, stoppedAt: world.now / 1000 });
    expect(told(world)).toBeLessThanOrEqual(300);
    expect(state.totals.notified).toBe(told(world));
    expect(world.table.rows.size).toBe(out.length - told(world));
    expect(world.holds.get(state.id)?.state).toEqual(state);
  });

  it.each([
    ['without a limit', {}],
    ['if they are just as many', limit(1000)],
    ['if no more than the share of the joins are left', limit(10, 0.55)],
    ['if the share is 1, which nothing exceeds', limit(10, 1)],
  ])('does not hold it %s', async (_what, options) => {
    const { world, out } = lossOf(2000, 1000);
    const { state } = await world.check(world.close(options));
    expect(state).toMatchObject({ next: 'done', totals: { left: 1000, notified: 1000 } });
    expect(state).not.toHaveProperty('held');
    expect(notifiedOtherwise(world, out, 1)).toEqual([]);
  });

  it('counts users who come back like those who are notified', async () => {
    const { world } = lossOf(1000, 1000);
    const state = await untilHeld(world, world.close({ ...limit(100), reenter: true }));
    expect(state).toMatchObject({ held: true });
    expect(world.server.back.length).toBeLessThanOrEqual(100);
    expect(world.server.back.length, 'requests of 16 fit until there is no room for one').toBeGreaterThan(84);
    expect(world.server.notices).toEqual([]);
  });

  it('counts a user once who is notified because the re-entry was refused', async () => {
    const { world } = lossOf(1000, 1000);
    world.server.noReentry = () => ({ type: 'auth', condition: 'registration-required' });
    const state = await untilHeld(world, world.close({ ...limit(100), reenter: true }));
    expect(state.held).toBe(true);
    expect(world.server.notices.length).toBeLessThanOrEqual(100);
    expect(world.server.notices.length).toBeGreaterThan(84);
    expect(world.holds.get(state.id)?.told).toBe(told(world));
  });

  it('does not count users whose session has ended, or whose join was replaced', async () => {
    const { world, out } = lossOf(400, 400);
    world.hook = ({ port, phase }) => {
      // the answer to the ping is under way: by the notice, half of the sessions have ended
      if (port === 'send' && phase === 'after')
        out.filter((_, index) => index % 2 === 0).forEach(({ user }) => world.server.sessions.delete(user));
      return undefined;
    };
    const { state } = await world.check(world.close(limit(400)));
    expect(state.totals.notified).toBe(told(world));
    expect(state.totals.gone).toBeGreaterThan(100);
    expect(world.holds.get(state.id)?.told).toBe(told(world));
  });

  it('holds a dry run, too, which would notify as many', async () => {
    const { world } = lossOf(1000, 1000);
    expect(await untilHeld(world, world.close({ ...limit(100), dryRun: true }))).toMatchObject({ held: true });
    expect(told(world)).toBe(0);
  });

  it('applies to users about whom nothing could be learned', async () => {
    const { world } = worldWith(1000);
    world.server.link = 'remote-server-timeout';
    const state = await untilHeld(world, world.close({ ...limit(50), patience: 20 }));
    expect(state).toMatchObject({ held: true, final: true });
    expect(told(world)).toBeLessThanOrEqual(50);
  });

  it('is exact, however the requests overlap and whatever fails and runs again', async () => {
    const scenes = fc.record({
      notices: fc.integer({ min: 1, max: 500 }),
      joins: fc.integer({ min: 1, max: 900 }),
      reenter: fc.boolean(),
      refused: fc.boolean(),
      crashes: fc.array(fc.integer({ min: 1, max: 400 }), { maxLength: 3 }),
      late: fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 8 }),
    });
    await fc.assert(
      fc.asyncProperty(scenes, async ({ notices, joins: count, reenter, refused, crashes, late }) => {
        const { world } = lossOf(count, count);
        if (refused) world.server.noReentry = () => ({ type: 'auth', condition: 'registration-required' });
        world.hook = async ({ phase, n }) => {
          if (phase === 'after' && crashes.includes(n)) throw new Crash();
          for (let turns = late[n % late.length] ?? 0; turns > 0; turns -= 1) await new Promise(setImmediate);
        };
        let most = 0;
        world.onWait = ({ id, held }) => {
          if (held !== true) return;
          most = told(world);
          world.decide(id, 'release');
        };
        const { state } = await world.check(world.close({ ...limit(notices), reenter }));
        expect(most).toBeLessThanOrEqual(notices);
        expect(count <= notices || most > 0 || world.holds.get(state.id)?.decision === 'release').toBe(true);
        expect(told(world), 'once it is released, each user is told once').toBe(count);
        expect([...world.server.noticeCounts.values()].filter((times) => times !== 1)).toEqual([]);
      }),
      { numRuns: 25 },
    );
  });
});

describe('a held check', () => {
  it('waits, and asks nobody, while nobody has decided', async () => {
    const { world } = lossOf(600, 600);
    const held = await untilHeld(world, world.close(limit(10)));
    const [pings, notices] = [world.server.pings.length, told(world)];
    let state = held;
    for (let minutes = 0; minutes < 180; minutes += 1) {
      world.now += state.wait * 1000;
      state = await runCheck(state, world.ports());
    }
    expect(state).toEqual(held);
    expect([world.server.pings.length, told(world)]).toEqual([pings, notices]);
  });

  it('asks the rooms again when it is released: no notice follows from an old answer', async () => {
    const { world, joins, out } = lossOf(600, 600);
    const held = await untilHeld(world, world.close(limit(10)));
    const alreadyTold = new Set(world.server.notices.map(({ user }) => user));
    // meanwhile the room has admitted every other user again
    const admitted = out.filter(({ user }, index) => index % 2 === 1 && !alreadyTold.has(user));
    for (const { room, user, nick } of admitted) world.server.room(room).occupants.set(user, nick);
    world.now += 60_000;
    world.decide(held.id, 'release');
    const { state } = await world.check(held, held);
    expect(state).toMatchObject({ next: 'done', totals: { joined: admitted.length } });
    expect(state).not.toHaveProperty('held');
    expect(notifiedOtherwise(world, admitted, 0)).toEqual([]);
    const others = joins.filter((join) => !admitted.includes(join));
    expect(notifiedOtherwise(world, others, 1)).toEqual([]);
  });

  it('has no limit any more when it is released, and keeps its patience', async () => {
    const { world, joins } = lossOf(2000, 1900);
    world.server.room(joins[0]?.room ?? '').script = (_kind, user) =>
      user === joins[1999]?.user ? 'silence' : undefined;
    const close = world.close({ ...limit(10), patience: 300 });
    const held = await untilHeld(world, close);
    world.now += 3600_000;
    world.decide(held.id, 'release');
    const continued = await runCheck(held, world.ports());
    expect(continued).not.toHaveProperty('limit');
    expect(continued.deadline).toBe((held.deadline ?? 0) + 3600);
    expect(continued.due).toBe(held.due + 3600);
    const { state } = await world.check(close, continued);
    expect(state.totals.notified).toBe(state.totals.left + state.totals.undecided);
    expect(world.now / 1000).toBeGreaterThanOrEqual((held.deadline ?? 0) + 3600);
  });

  it('ends without the remaining joins when it is dropped; they stay in the table', async () => {
    const { world } = lossOf(600, 600);
    const held = await untilHeld(world, world.close(limit(10)));
    const [rows, notices] = [world.table.rows.size, told(world)];
    world.decide(held.id, 'drop');
    const state = await runCheck(held, world.ports());
    expect(state).toMatchObject({ next: 'done', dropped: true });
    expect(state).not.toHaveProperty('held');
    expect([world.table.rows.size, told(world)]).toEqual([rows, notices]);
    const next = await world.check(world.close());
    expect(next.state.totals.notified).toBe(rows);
  });

  it('is dropped by itself after 24 hours, and not before', async () => {
    const { world } = lossOf(600, 600);
    const held = await untilHeld(world, world.close(limit(10)));
    world.now += 86_399_000;
    expect(await runCheck(held, world.ports())).toMatchObject({ next: 'wait', held: true });
    world.now += 1000;
    expect(await runCheck(held, world.ports())).toMatchObject({ next: 'done', dropped: true, expired: true });
    expect(world.holds.has(held.id)).toBe(false);
  });

  it.each([60, 10 * 3600])('is taken over by a newer close after %i s, as a running check is', async (seconds) => {
    const { world, out } = lossOf(600, 600);
    const held = await untilHeld(world, world.close(limit(10)));
    world.now += seconds * 1000;
    const newer = world.close();
    expect(await runCheck(held, world.ports())).toMatchObject({ next: 'done', superseded: true });
    expect(world.holds.has(held.id)).toBe(false);
    const { state } = await world.check(newer);
    expect(state).not.toHaveProperty('superseded');
    expect(notifiedOtherwise(world, out, 1)).toEqual([]);
  });

  it('that was held in the middle of a round asks about the rest of it, too', async () => {
    const world = new World();
    const first = users(300).map((user) => world.lose(world.join(user, 'a')));
    const rest = users(3000).map((user) => world.join(user, 'b'));
    const held = await untilHeld(world, world.close(limit(100)));
    expect(held.cursor).toBeDefined();
    expect(world.server.pings.length).toBeLessThan(2000);
    world.decide(held.id, 'release');
    const { state } = await world.check(held, held);
    expect(state.totals).toMatchObject({ joined: rest.length, left: first.length, notified: first.length });
  });
});
