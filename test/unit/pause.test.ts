import { describe, expect, it, vi } from 'vitest';
import { runCheck } from '../../functions/core/check.ts';
import type { CheckState } from '../../functions/core/check-state.ts';
import type { Join } from '../../functions/core/events.ts';
import { notifiedOtherwise, users, worldWith } from './world-with.ts';
import { World } from './world.ts';

/** Rule 14 (docs/rules.md): an operator can pause all checks. */

vi.setConfig({ testTimeout: 60_000 }); // a second or two, on a machine that does nothing else

/** Lets a paused check wait for so many seconds, and returns its state and how often it looked. */
async function waitFor(world: World, from: CheckState, seconds: number): Promise<{ state: CheckState; looks: number }> {
  const end = world.now + seconds * 1000;
  let [state, looks] = [from, 0];
  for (; world.now < end; looks += 1) {
    world.now += state.wait * 1000;
    state = await runCheck(state, world.ports());
  }
  return { state, looks };
}

describe('a paused check', () => {
  it('that has not begun asks nobody, and runs when the pause is over', async () => {
    const { world, joins } = worldWith(600);
    joins.forEach((join) => world.lose(join));
    const close = world.close({ patience: 300 });
    world.now += 60_000;
    world.isPaused = true;
    const paused = await runCheck(world.start(close), world.ports());
    expect(paused).toMatchObject({ next: 'wait', wait: 60, paused: true, stoppedAt: world.now / 1000, round: 0 });
    expect(paused).not.toHaveProperty('deadline');
    expect([world.server.pings, world.calls]).toEqual([[], 0]);
    const { state: still } = await waitFor(world, paused, 3600);
    expect(still).toEqual(paused);
    world.isPaused = false;
    const { state } = await world.check(close, still);
    expect(state).toMatchObject({ next: 'done', totals: { left: 600, notified: 600 } });
    expect(state).not.toHaveProperty('paused');
    expect(state.due).toBeGreaterThanOrEqual(close.at / 1e6 + 60 + 3600);
    expect(notifiedOtherwise(world, joins, 1)).toEqual([]);
  });

  it('looks again after 60 seconds, and after two hours every five minutes', async () => {
    const { world } = worldWith(1);
    world.isPaused = true;
    const paused = await runCheck(world.start(world.close()), world.ports());
    const { state, looks } = await waitFor(world, paused, 7200);
    expect([looks, state.wait]).toEqual([120, 300]);
    expect((await waitFor(world, state, 86_400)).looks).toBe(288);
  });

  it('does not use up its patience', async () => {
    const { world, joins } = worldWith(2);
    const [silent] = joins as [Join];
    world.server.room(silent.room).script = (_kind, user) => (user === silent.user ? 'silence' : undefined);
    const close = world.close({ patience: 300 });
    let pausedFor = 0;
    world.onWait = (state) => {
      if (state.round === 1 && pausedFor === 0) world.isPaused = true;
      if (state.paused === true) pausedFor += state.wait;
      if (pausedFor >= 7200) world.isPaused = false;
    };
    const { state } = await world.check(close);
    expect(state.totals).toMatchObject({ joined: 1, undecided: 1, notified: 1 });
    expect(world.now / 1000).toBeGreaterThan(close.at / 1e6 + 60 + 300 + 7200);
  });

  it('answers the newest close of those that came meanwhile, and asks each room once', async () => {
    const { world, joins } = worldWith(300);
    joins.forEach((join) => world.lose(join));
    world.isPaused = true;
    const states: CheckState[] = [];
    for (let n = 0; n < 60; n += 1) {
      states.push(await runCheck(world.start(world.close()), world.ports()));
      world.now += 60_000;
    }
    world.isPaused = false;
    const runs = [];
    for (const state of states) runs.push((await world.check(state, state)).state);
    expect(runs.slice(0, -1).filter(({ superseded }) => superseded !== true)).toEqual([]);
    expect(runs.at(-1)).toMatchObject({ totals: { pinged: 300, notified: 300 } });
    expect(world.server.pings).toHaveLength(300);
  });

  it('leaves its undecided joins to a newer close as if there had been no pause', async () => {
    const { world, joins } = worldWith(1);
    const [join] = joins as [Join];
    world.server.room(join.room).script = () => 'silence';
    const close = world.close({ patience: 20 });
    let newer: CheckState | undefined;
    world.onWait = (state) => {
      if (state.round === 1 && state.paused !== true) world.isPaused = true;
      if (world.now > close.at / 1000 + 3_600_000 && newer === undefined) {
        world.isPaused = false;
        newer = world.start(world.close());
      }
    };
    expect((await world.check(close)).state).toMatchObject({ superseded: true, totals: { notified: 0 } });
  });
});

describe('a check that is running when the pause begins', () => {
  it.each([false, true])(
    'sends nothing more ten seconds later, and continues where it was (re-entry: %s)',
    async (reenter) => {
      const { world, joins } = worldWith(4000);
      joins.forEach((join) => world.lose(join));
      world.latency = 2000;
      let pausedAt = Infinity;
      const sentAt: number[] = [];
      world.hook = ({ port, phase }) => {
        if (port === 'send' && phase === 'before') sentAt.push(world.now);
        if (sentAt.length === 12 && pausedAt === Infinity) {
          pausedAt = world.now;
          world.isPaused = true;
        }
        return undefined;
      };
      const close = world.close({ patience: 300, reenter });
      world.now += 60_000;
      const paused = await runCheck(world.start(close), world.ports());
      expect(paused).toMatchObject({ next: 'wait', wait: 60, paused: true });
      expect(Math.max(...sentAt)).toBeLessThanOrEqual(pausedAt + 10_000);
      const sent = world.server.pings.length;
      expect(sent).toBeLessThan(4000);
      expect(world.server.notices.length + world.server.back.length).toBeGreaterThan(0);
      world.now += 600_000;
      world.isPaused = false;
      world.latency = 100; // so that all re-entries come in time
      const { state } = await world.check(close, paused);
      expect(state.totals).toMatchObject(reenter ? { reentered: 4000 } : { notified: 4000 });
      const told = [...world.server.noticeCounts.values(), ...world.server.back.map(() => 1)];
      expect([told.length, told.filter((times) => times !== 1)]).toEqual([4000, []]);
    },
  );

  it('holds back the notices, too: the users of batches in flight are asked again', async () => {
    const { world, joins } = worldWith(500);
    joins.forEach((join) => world.lose(join));
    const [{ room }] = joins as [Join];
    // one in each batch is silent, so that no batch is answered within ten seconds
    world.server.room(room).script = (_kind, user) => (user.includes('99@') ? 'silence' : undefined);
    world.hook = ({ port, phase }) => {
      if (port === 'send' && phase === 'before' && world.server.pings.length > 0) world.isPaused = true;
      return undefined;
    };
    const close = world.close({ patience: 300 });
    const paused = await runCheck(world.start(close), world.ports());
    expect(paused).toMatchObject({ paused: true, totals: { notified: 1 } });
    world.hook = undefined;
    world.isPaused = false;
    world.server.room(room).occupants.set(joins[100]?.user ?? '', 'nick');
    const { state } = await world.check(close, paused);
    expect(state.totals).toMatchObject({ joined: 1, left: 494, undecided: 5, notified: 499 });
  });

  it('reads the pause once in ten seconds, however many batches it takes', async () => {
    const world = new World();
    users(8000).forEach((user) => world.join(user, 'room'));
    world.latency = 200;
    const ports = world.ports();
    let reads = 0;
    const began = world.now;
    await runCheck(world.start(world.close()), {
      ...ports,
      isPaused: () => {
        reads += 1;
        return Promise.resolve(false);
      },
    });
    const seconds = (world.now - began) / 1000;
    expect(seconds).toBeGreaterThan(1);
    expect(reads).toBeLessThanOrEqual(1 + Math.ceil(seconds / 10));
  });
});

it('a held check stays held during a pause, and after it', async () => {
  const { world, joins } = worldWith(300);
  joins.forEach((join) => world.lose(join));
  const held = await runCheck(world.start(world.close({ limit: { notices: 10, share: 0.5 } })), world.ports());
  expect(held.held).toBe(true);
  world.isPaused = true;
  world.decide(held.id, 'release');
  const both = await runCheck(held, world.ports());
  expect(both).toMatchObject({ held: true, paused: true, stoppedAt: held.stoppedAt });
  world.isPaused = false;
  const { state } = await world.check(both, both);
  expect(state.totals).toMatchObject({ notified: 300 });
});
