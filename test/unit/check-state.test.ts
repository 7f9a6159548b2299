import { describe, expect, it, vi } from 'vitest';
import { runCheck } from '../../functions/core/check.ts';
import type { CheckState } from '../../functions/core/check-state.ts';
import { NO_REENTRY, worldWith, notifiedOtherwise } from './world-with.ts';
import type { Run } from './world.ts';

/** The state that a check hands from one invocation to the next, also across releases. */

vi.setConfig({ testTimeout: 60_000 }); // a second or two, on a machine that does nothing else

describe('an execution of an earlier release', () => {
  it('continues, and counts from its own totals', async () => {
    const { world, joins } = worldWith(600);
    world.limit = 1000;
    const half = await runCheck(world.start(world.close()), world.ports());
    expect(half.next).toBe('page');
    const {
      version: _version,
      oldest: _oldest,
      totals: { proved: _proved, ...totals },
      ...rest
    } = half;
    const { state } = await world.check(half, { ...rest, totals } as unknown as CheckState);
    expect(state.totals).toMatchObject({ pinged: 600, joined: 600, proved: 0 });
    expect(notifiedOtherwise(world, joins, 0)).toEqual([]);
  });

  it('without re-entry continues, with notices', async () => {
    const { world, joins } = worldWith(600);
    joins.forEach((join) => world.lose(join));
    world.limit = 1000;
    const half = await runCheck(world.start(world.close()), world.ports());
    const {
      reenter: _reenter,
      cause: _cause,
      totals: { reentered: _reentered, gaps: _gaps, refused: _refused, ...totals },
      ...rest
    } = half;
    const { state } = await world.check(half, { ...rest, version: 2, totals } as unknown as CheckState);
    expect(state).toMatchObject({ version: 3, reenter: false, cause: 'close' });
    expect(state.totals).toMatchObject({ pinged: 600, left: 600, notified: 600, ...NO_REENTRY });
    expect(notifiedOtherwise(world, joins, 1)).toEqual([]);
  });

  it('that is of a later release fails, and says so', async () => {
    const { world } = worldWith(1);
    await expect(runCheck({ ...world.start(world.close()), version: 99 }, world.ports())).rejects.toThrow(
      /version 99.*deploy the newer release again/,
    );
  });
});

describe('the state of an execution', () => {
  it('holds all that the next invocation needs, and can be written as JSON', async () => {
    const { world } = worldWith(3);
    world.limit = 1000;
    const close = world.close({ patience: 5 });
    const state: CheckState = await runCheck(world.start(close), world.ports());
    expect(JSON.parse(JSON.stringify(state))).toEqual(state);
    expect(state).toMatchObject({
      ...close,
      next: 'page',
      cursor: expect.stringContaining('#user000000@') as string,
      round: 0,
      open: 0,
    });
    const run: Run = await world.check(close, state);
    expect(run.state).toMatchObject({ id: state.id, next: 'done', totals: { joined: 3 } });
  });
});
