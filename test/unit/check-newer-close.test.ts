import { describe, expect, it, vi } from 'vitest';
import { runCheck } from '../../functions/core/check.ts';
import type { CheckRequest, Join } from '../../functions/core/events.ts';
import { worldWith, notifiedOtherwise } from './world-with.ts';
import { Crash, HOST, REMOTE, type World } from './world.ts';

/** Rule 5 (docs/rules.md): a check that has begun leaves what it cannot decide to a newer close. */

vi.setConfig({ testTimeout: 60_000 }); // a second or two, on a machine that does nothing else

describe('a newer close during a check', () => {
  const closes = { 'on record in the table': true, 'named by the server, its report still on its way': false } as const;

  /** The link breaks again before the first ping: it gets no answer. The close is on record, or not yet reported. */
  function broken(world: World, isReported: boolean): () => CheckRequest {
    let second: CheckRequest | undefined;
    world.hook = ({ port, phase }) => {
      if (port !== 'send' || phase !== 'before' || second !== undefined) return undefined;
      const at = world.nextAt();
      world.server.link = 'remote-server-timeout';
      world.server.closed = at;
      second = isReported
        ? world.close({ at })
        : {
            host: HOST,
            remote: REMOTE,
            at,
            delay: 60,
            timeout: 60,
            patience: 0,
            dryRun: false,
            reenter: false,
            cause: 'close',
          };
      return undefined;
    };
    return () => second as CheckRequest;
  }

  it.each(Object.entries(closes))(
    'takes over all users who were being asked, without patience: no notice before its check (%s)',
    async (_how, isReported) => {
      const { world, joins } = worldWith(1200);
      const lost = joins.filter((_, index) => index % 2 === 0).map((join) => world.lose(join));
      const second = broken(world, isReported);
      const { state } = await world.check(world.close());
      expect(state).toMatchObject({ next: 'done', superseded: true, totals: { undecided: 0, notified: 0 } });
      expect(world.server.notices).toEqual([]);
      expect(world.table.rows.size).toBe(1200);
      world.hook = undefined;
      world.server.link = 'up';
      if (!isReported) world.table.recordClose(second());
      const newer = await world.check(second());
      expect(newer.state.totals).toMatchObject({ pinged: 1200, joined: 600, left: 600, notified: 600 });
      expect(notifiedOtherwise(world, lost, 1)).toEqual([]);
    },
  );

  it('takes over in the last round of a patient check, too, which begins after five delays', async () => {
    const {
      world,
      joins: [join],
    } = worldWith(1);
    world.server.room((join as Join).room).script = () => 'silence';
    const first = world.close({ patience: 300 });
    let second: CheckRequest | undefined;
    world.hook = ({ port, phase }) => {
      if (port !== 'send' || phase !== 'before' || second !== undefined || world.now < first.at / 1000 + 360_000)
        return undefined;
      second = world.close({ patience: 300 });
      return undefined;
    };
    expect((await world.check(first)).state).toMatchObject({ superseded: true, totals: { notified: 0 } });
    expect(world.noticesTo(join as Join)).toBe(0);
    world.hook = undefined;
    expect((await world.check(second as unknown as CheckRequest)).state.totals).toMatchObject({
      undecided: 1,
      notified: 1,
    });
  });

  it('keeps its mark: an older check never overwrites it, so neither leaves a user to the other', async () => {
    const {
      world,
      joins: [join],
    } = worldWith(1);
    const row = (): number | undefined => [...world.table.rows.values()][0]?.undecidedBy;
    world.server.room((join as Join).room).script = () => 'silence';
    const first = world.close({ patience: 600 });
    const older = await runCheck(world.start(first), world.ports());
    const second = world.close({ patience: 600 });
    const newer = await runCheck(world.start(second), world.ports());
    expect(row()).toBe(second.at);
    await runCheck(older, world.ports());
    expect(row()).toBe(second.at);
    expect((await world.check(second, newer)).state.totals).toMatchObject({ undecided: 1, notified: 1 });
  });

  it('that had begun when joins were passed on does not count against closes of another day', () => {
    const { world } = worldWith(3);
    const first = world.close();
    const second = world.close();
    world.table.claimClose(second, world.table.readClose(second) ?? { at: 0, delay: 0 }, second.at);
    world.table.passOn(first, first.at);
    world.now += 86_400_000;
    const third = world.close();
    expect(world.table.readClose(third)?.oldestUnanswered).toBe(third.at);
  });

  it('counts the five delays from the same close if its check runs again', async () => {
    const {
      world,
      joins: [join],
    } = worldWith(1);
    const first = world.close();
    world.now += 100_000;
    const second = world.close();
    let crashes = 0;
    world.hook = ({ port, phase }) => {
      if (port === 'send' && phase === 'before' && (crashes += 1) === 1) throw new Crash();
      return undefined;
    };
    world.server.room((join as Join).room).script = () => 'silence';
    const state = world.start(second);
    await expect(runCheck(state, world.ports())).rejects.toThrow(Crash);
    expect((await runCheck(state, world.ports())).oldest).toBe(first.at);
  });

  it('does not postpone the notices to users whose room has answered', async () => {
    const { world, joins } = worldWith(3);
    const [lost, kept, silent] = joins as [Join, Join, Join];
    world.lose(lost);
    world.server.room(lost.room).script = (_kind, user) => (user === silent.user ? 'broken' : undefined);
    world.server.closed = world.nextAt() + 5;
    const { state } = await world.check(world.close({ at: world.nextAt() }));
    expect(state).toMatchObject({ superseded: true, totals: { joined: 1, left: 1, undecided: 0, notified: 1 } });
    expect([lost, kept, silent].map((join) => world.noticesTo(join))).toEqual([1, 0, 0]);
  });

  it('five times in a row, while all are asked, without patience: no user is notified wrongly', async () => {
    const { world, joins } = worldWith(600);
    const lost = joins.filter((_, index) => index % 2 === 0).map((join) => world.lose(join));
    let close = world.close({ delay: 5, timeout: 5 });
    for (let again = 0; again < 4; again += 1) {
      let next: CheckRequest | undefined;
      world.hook = ({ port, phase }) => {
        if (port !== 'send' || phase !== 'before' || next !== undefined) return undefined;
        world.now += 300;
        world.server.link = 'remote-server-timeout';
        next = world.close({ delay: 5, timeout: 5 });
        return undefined;
      };
      expect((await world.check(close)).state.superseded).toBe(true);
      close = next as unknown as CheckRequest;
      world.server.link = 'up';
    }
    world.hook = undefined;
    expect((await world.check(close)).state.totals).toMatchObject({ joined: 300, left: 300, notified: 300 });
    expect(notifiedOtherwise(world, lost, 1)).toEqual([]);
    expect(world.server.notices).toHaveLength(300);
  });

  it('each time, without end: users who cannot be confirmed are notified after five delays', async () => {
    const {
      world,
      joins: [join],
    } = worldWith(1);
    let close = world.close();
    let checks = 0;
    for (; world.noticesTo(join as Join) === 0 && checks < 20; checks += 1) {
      let next: CheckRequest | undefined;
      world.hook = ({ port, phase }) => {
        if (port !== 'send' || phase !== 'before' || next !== undefined) return undefined;
        world.server.link = 'remote-server-timeout';
        next = world.close();
        return undefined;
      };
      await world.check(close);
      close = next as unknown as CheckRequest;
    }
    expect(world.noticesTo(join as Join)).toBe(1);
    expect(checks).toBe(6); // the closes of five delays, and the one after
  });

  it('that never comes: this check notifies the undecided when patience is over', async () => {
    const {
      world,
      joins: [join],
    } = worldWith(1);
    world.server.link = 'remote-server-timeout';
    const close = world.close({ patience: 30 });
    world.server.closed = close.at; // its own
    expect((await world.check(close)).state.totals).toMatchObject({ undecided: 1, notified: 1 });
    expect(world.noticesTo(join as Join)).toBe(1);
  });

  it('can take a ping with it: the ping is sent again after patience, for at most two time-outs', async () => {
    const {
      world,
      joins: [join],
    } = worldWith(1);
    const room = world.server.room((join as Join).room);
    room.script = () => 'broken';
    const { waits, state } = await world.check(world.close({ timeout: 20 }));
    expect(waits.length).toBeGreaterThan(0);
    expect(waits.reduce((sum, wait) => sum + wait, 0)).toBeLessThanOrEqual(60);
    expect(state.totals).toMatchObject({ undecided: 1, notified: 1 });
    const other = worldWith(1);
    other.world.server.room((join as Join).room).script = () => 'broken';
    other.world.onWait = () => delete other.world.server.room((join as Join).room).script;
    expect((await other.world.check(other.world.close({ timeout: 20 }))).state.totals).toMatchObject({
      joined: 1,
      notified: 0,
    });
  });
});
