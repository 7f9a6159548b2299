import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Scale } from '../lab/scale.ts';

/**
 * Rules 5 to 7 (docs/rules.md) at size: the streams break again while a check asks, and nobody whose room still has it is told.
 * `npm run bench -- flap` plays it with 5,000 joins at 25 moments.
 */
const JOINS = 600;
/** Seconds after the moment at which the check is due: while it connects, pings and reads the answers. */
const MOMENTS = [0.02, 0.1, 0.2, 0.3];
const FIVE_TIMES = [0.1, 0.3, 0.2, 0.1];
const KEPT = (): boolean => false;
const HALF_LOST = (index: number): boolean => index % 2 === 0;

describe.each([
  ['with stream management', true],
  ['without', false],
])('a link between real servers, %s,', (_what, isManaged) => {
  let scale: Scale;
  beforeAll(async () => {
    scale = await Scale.open({ joins: JOINS, timeout: 5, isManaged });
  });
  afterAll(() => scale.close());

  const flap = async (isLost: (index: number) => boolean, again: readonly number[]): Promise<object> => {
    await scale.enter();
    const { wrong, missed, double } = await scale.flap(isLost, again);
    return { wrong, missed, double };
  };
  const right = { wrong: 0, missed: 0, double: 0 };

  it.each(MOMENTS)('that breaks again %s s into the check: nobody is told', { timeout: 120_000 }, async (moment) => {
    expect(await flap(KEPT, [moment])).toEqual(right);
  });

  it('that breaks five times in a row, each time while a check asks: nobody is told', { timeout: 120_000 }, async () => {
    expect(await flap(KEPT, FIVE_TIMES)).toEqual(right);
  });

  it('that breaks again while every second join is lost: exactly those are told, once', { timeout: 120_000 }, async () => {
    expect(await flap(HALF_LOST, [0.1])).toEqual(right);
  });

  it('that breaks five times in a row while every second join is lost: exactly those are told, once', { timeout: 120_000 }, async () => {
    expect(await flap(HALF_LOST, FIVE_TIMES)).toEqual(right);
  });
});
