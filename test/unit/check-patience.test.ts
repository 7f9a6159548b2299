import { describe, expect, it, vi } from 'vitest';
import { runCheck } from '../../functions/core/check.ts';
import type { Join } from '../../functions/core/events.ts';
import { NO_REENTRY, worldWith, notifiedOtherwise } from './world-with.ts';
import type { World } from './world.ts';

/** Rule 7 (docs/rules.md): undecided joins. */

vi.setConfig({ testTimeout: 60_000 }); // a second or two, on a machine that does nothing else

describe('patience', () => {
  /** A world whose room answers only these users. */
  function silent(count: number, ...answering: number[]): { world: World; joins: Join[] } {
    const scene = worldWith(count);
    const named = new Set(answering.map((index) => scene.joins[index]?.user));
    scene.world.server.room(scene.joins[0]?.room ?? '').script = (_kind, user) =>
      named.has(user) ? undefined : 'silence';
    return scene;
  }

  it('of 0 notifies users who cannot be confirmed at once', async () => {
    const { world } = silent(3, 1);
    const { state, waits } = await world.check(world.close());
    expect(waits).toEqual([]);
    expect(state.totals).toMatchObject({ pinged: 3, joined: 1, undecided: 2, notified: 2 });
  });

  it('pings only the undecided again, with doubling waits, and notifies them when it ends', async () => {
    const { world, joins } = silent(3, 1);
    const { state, waits } = await world.check(world.close({ patience: 1000, timeout: 1 }));
    expect(waits.slice(0, 5)).toEqual([5, 10, 20, 40, 60]);
    expect(Math.max(...waits)).toBe(60);
    expect(world.server.pings.filter((ping) => ping.endsWith(joins[1]?.user ?? ''))).toHaveLength(1);
    expect(state.totals).toEqual({
      pinged: 1 + 2 * (waits.length + 1),
      joined: 1,
      proved: 0,
      left: 0,
      undecided: 2,
      gone: 0,
      stale: 0,
      notified: 2,
      ...NO_REENTRY,
    });
    const spent = waits.reduce((sum, wait) => sum + wait, 0);
    expect(spent).toBeGreaterThan(900);
    expect(spent).toBeLessThanOrEqual(1001);
  });

  it('notifies no undecided user before its end', async () => {
    const { world } = silent(2);
    const close = world.close({ patience: 100, timeout: 1 });
    const notifiedAt: number[] = [];
    world.hook = ({ stanzas, phase }) => {
      if (phase === 'before' && stanzas?.includes('<presence')) notifiedAt.push(world.now - close.at / 1000 - 60_000);
      return undefined;
    };
    await world.check(close);
    expect(notifiedAt).toHaveLength(2);
    expect(Math.min(...notifiedAt)).toBeGreaterThanOrEqual(100_000);
    expect(Math.max(...notifiedAt)).toBeLessThan(105_000);
  });

  it('asks soon after the host is back, and then notifies the users whom it no longer knows', async () => {
    const { world, joins } = worldWith(600);
    const lost = joins.filter((_, index) => index % 4 === 0).map((join) => world.lose(join));
    world.server.link = 'remote-server-not-found';
    const close = world.close({ patience: 3600 });
    world.onWait = ({ round }) => {
      if (round === 3) world.server.link = 'up';
    };
    const { state, waits } = await world.check(close);
    expect(waits).toEqual([5, 10, 20]);
    expect(state.totals).toEqual({
      pinged: 3 + 600,
      joined: 450,
      proved: 0,
      left: 150,
      undecided: 0,
      gone: 0,
      stale: 0,
      notified: 150,
      ...NO_REENTRY,
    });
    expect(notifiedOtherwise(world, lost, 1)).toEqual([]);
    expect(world.server.notices).toHaveLength(150);
  });

  it('writes no mark for each join while the host is out of reach: one key stands for all', async () => {
    const { world } = worldWith(2000);
    world.server.link = 'remote-server-timeout';
    let marks = 0;
    world.hook = ({ port, phase }) => {
      if (port === 'markUndecided' && phase === 'before') marks += 1;
      return undefined;
    };
    const state = await runCheck(world.start(world.close({ patience: 600 })), world.ports());
    expect(state).toMatchObject({ next: 'wait', wait: 5, round: 1, open: 0, unaskedAfter: '' });
    expect(marks).toBe(0);
    expect(world.server.pings).toHaveLength(1);
  });

  it('asks about every open join if the host goes out of reach during a later round', async () => {
    const { world, joins } = worldWith(3000);
    const lost = joins.filter((_, index) => index % 2 === 0).map((join) => world.lose(join));
    world.server.link = 'remote-server-timeout';
    let comesAndGoes = 0;
    world.onWait = ({ round }) => {
      world.server.link = round % 2 === 1 ? 'up' : 'remote-server-timeout';
      comesAndGoes = world.server.pings.length;
    };
    world.hook = ({ phase }) => {
      // up for some 1,200 pings at a time
      if (phase === 'before' && world.server.pings.length - comesAndGoes > 1200)
        world.server.link = 'remote-server-timeout';
      return undefined;
    };
    const { state } = await world.check(world.close({ patience: 86_400 }));
    expect(state.totals).toMatchObject({ joined: 1500, left: 1500, undecided: 0, notified: 1500 });
    expect(notifiedOtherwise(world, lost, 1)).toEqual([]);
  });

  it('notifies all users of a host that never comes back, once, when it ends', async () => {
    const { world, joins } = worldWith(700);
    world.server.link = 'remote-server-not-found';
    const { state } = await world.check(world.close({ patience: 300 }));
    expect(state.totals).toMatchObject({ undecided: 700, notified: 700 });
    expect(notifiedOtherwise(world, joins, 1)).toEqual([]);
  });

  it('removes the mark from a join that is confirmed later', async () => {
    const {
      world,
      joins: [join],
    } = silent(1);
    world.onWait = () => {
      expect([...world.table.rows.values()]).toEqual([expect.objectContaining({ undecidedBy: close.at })]);
      delete world.server.room(join?.room ?? '').script;
    };
    const close = world.close({ patience: 60 });
    const { state } = await world.check(close);
    expect(state.totals).toMatchObject({ pinged: 2, joined: 1, notified: 0 });
    expect([...world.table.rows.values()][0]).not.toHaveProperty('undecidedBy');
  });

  it('covers the joins that an earlier invocation of the round left open', async () => {
    const { world, joins } = worldWith(1500);
    const silent = new Set(joins.filter((_, index) => index < 700 && index % 50 === 7).map(({ user }) => user));
    world.server.room(joins[0]?.room ?? '').script = (_kind, user) => (silent.has(user) ? 'silence' : undefined);
    world.limit = 241_000;
    world.latency = 400;
    const { state, pages, waits } = await world.check(world.close({ patience: 300 }));
    expect(pages).toBeGreaterThan(1);
    expect(waits.length).toBeGreaterThan(1);
    expect(state.totals).toMatchObject({ joined: 1486, undecided: 14, notified: 14 });
    expect(world.server.notices.map(({ user }) => user).sort()).toEqual([...silent].sort());
  });

  it('does not ask again about joins that are decided, even if the host was out of reach in between', async () => {
    const { world, joins } = worldWith(3000);
    const room = world.server.room(joins[0]?.room ?? '');
    room.script = (_kind, user) => (user === joins[10]?.user ? 'silence' : undefined);
    world.hook = ({ phase }) => {
      if (phase === 'before' && world.server.pings.length > 1200) world.server.link = 'remote-server-timeout';
      return undefined;
    };
    world.onWait = ({ round }) => {
      if (round !== 2) return; // the first due in round 1 is refused
      world.hook = undefined;
      delete room.script;
      world.server.link = 'up';
    };
    const { state } = await world.check(world.close({ patience: 3600 }));
    expect(state.totals).toMatchObject({ joined: 3000, undecided: 0, notified: 0 });
    expect(state.round).toBe(2);
  });

  it('leaves joins that another check marked undecided to that check', async () => {
    const { world, joins } = silent(3, 1);
    world.onWait = () => {
      const row = [...world.table.rows.values()].find(({ user }) => user === joins[1]?.user);
      if (row) world.table.markUndecided(row, 12345);
    };
    await world.check(world.close({ patience: 30 }));
    expect(world.server.pings.filter((ping) => ping.endsWith(joins[1]?.user ?? ''))).toHaveLength(1);
  });
});

describe('a session that is entering the room again', () => {
  it('is not notified, and is asked about again; the row stays until the room has answered', async () => {
    const {
      world,
      joins: [join],
    } = worldWith(1);
    const { room, user } = world.lose(join as Join);
    world.server.rejoining.add(`${room} ${user}`);
    world.onWait = () => world.server.rejoining.clear();
    const { state, waits } = await world.check(world.close());
    expect(waits).toHaveLength(1);
    expect(state.totals).toMatchObject({ left: 1, stale: 0, notified: 1 });
    expect(world.noticesTo(join as Join)).toBe(1);
  });

  it('without end does not prolong the check beyond two time-outs, and keeps its row for the next check', async () => {
    const {
      world,
      joins: [join],
    } = worldWith(1);
    const { room, user } = world.lose(join as Join);
    world.server.rejoining.add(`${room} ${user}`);
    const { state, waits } = await world.check(world.close({ timeout: 20 }));
    expect(waits.reduce((sum, wait) => sum + wait, 0)).toBeLessThanOrEqual(100);
    expect(state.totals).toMatchObject({ left: 0, stale: 1, notified: 0 });
    expect([...world.table.rows.values()].map((row) => [row.user, row.undecidedBy])).toEqual([[user, undefined]]);
  });
});
