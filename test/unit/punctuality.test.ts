import { describe, expect, it } from 'vitest';
import { firstState } from '../../functions/core/check-state.ts';
import { Punctuality } from '../../functions/core/punctuality.ts';
import { reportedAfter, waitSeconds } from '../../functions/core/time.ts';
import { worldWith } from './world-with.ts';
import { World } from './world.ts';

/** The objective (docs/rules.md): who is told in time, by whose clock, and who counts. */

const T = 1_795_355_000;
const CLOSE = new World().close();

/** The state of a check whose close was reported so many seconds later, by the server's clock, and arrived at T. */
function reported(after: number, clockDifference = 0): ReturnType<typeof firstState> {
  const sent = T + clockDifference;
  const close = { ...CLOSE, at: (sent - after) * 1e6, delay: 60 };
  return firstState(close, 'check', waitSeconds(close, sent), T, reportedAfter(close, sent));
}

describe('the time from a close', () => {
  it('includes what its report waited at the server', () => {
    const punctuality = new Punctuality(reported(3600), T * 1000);
    punctuality.answered((T + 1) * 1000);
    punctuality.told(2, (T + 2) * 1000);
    expect(punctuality.answerLateness).toBe(3541_000);
    expect(punctuality.closeToNotice).toBe(3602_000);
    expect([punctuality.inTime, punctuality.late]).toEqual([0, 2]);
  });

  it.each([-3600, 0, 3600])('does not depend on the clocks’ difference: %d s', (difference) => {
    const punctuality = new Punctuality(reported(10, difference), T * 1000);
    punctuality.answered((T + 51) * 1000);
    punctuality.told(1, (T + 52) * 1000);
    expect(punctuality.answerLateness).toBe(1000);
    expect(punctuality.closeToNotice).toBe(62_000);
  });

  it('does not include for how long an operator has stopped the check: rules 13 and 14', () => {
    const state = { ...reported(0), stoppedFor: 100, stoppedAt: T + 300 };
    const punctuality = new Punctuality(state, (T + 1000) * 1000); // it continues after 700 seconds, and 100 before
    punctuality.told(1, (T + 1000) * 1000);
    expect(punctuality.closeToNotice).toBe(200_000);
  });

  it('counts from the due moment in a state of an earlier release, which does not know the close’s', () => {
    const { closedAt: _closedAt, ...state } = reported(0);
    const punctuality = new Punctuality(state, T * 1000);
    punctuality.answered((T + 63) * 1000);
    expect(punctuality.answerLateness).toBe(3000);
  });

  it('is that of the first answer, and that of the last notice', () => {
    const punctuality = new Punctuality(reported(0), T * 1000);
    for (const second of [61, 70]) {
      punctuality.answered((T + second) * 1000);
      punctuality.told(1, (T + second) * 1000);
    }
    expect(punctuality.answerLateness).toBe(1000);
    expect(punctuality.closeToNotice).toBe(70_000);
  });

  it('is not known where nothing was answered and nobody was told', () => {
    const punctuality = new Punctuality(reported(0), T * 1000);
    expect([punctuality.answerLateness, punctuality.closeToNotice]).toEqual([undefined, undefined]);
  });
});

it('users are told in time until a minute after the delay, and late after that', () => {
  const punctuality = new Punctuality(reported(0), T * 1000);
  punctuality.told(3, (T + 120) * 1000);
  punctuality.told(2, (T + 120) * 1000 + 1);
  expect([punctuality.inTime, punctuality.late]).toEqual([3, 2]);
});

describe('the objective counts', () => {
  const told = (world: World): number => world.told.reduce((sum, { users }) => sum + users, 0);

  it('users whose room has said in the first round that they are out, when their notice is delivered', async () => {
    const { world, joins } = worldWith(4);
    for (const join of joins.slice(0, 3)) world.lose(join);
    const close = world.close();
    await world.check(close);
    expect(told(world)).toBe(3);
    expect(world.told.every(({ at }) => at > close.at / 1000 + 60_000 && at < close.at / 1000 + 61_000)).toBe(true);
  });

  it('users who are back, and those who were to be brought back and got a notice', async () => {
    const { world, joins } = worldWith(4);
    for (const join of joins) world.lose(join);
    const { state } = await world.check(world.close({ reenter: true }));
    expect(state.totals.reentered + state.totals.notified).toBe(4);
    expect(told(world)).toBe(4);
  });

  it('none whose session has ended meanwhile', async () => {
    const { world, joins } = worldWith(2);
    for (const join of joins) world.server.sessions.delete(world.lose(join).user);
    await world.check(world.close());
    expect(world.told).toEqual([]);
  });

  it('none of a dry run', async () => {
    const { world, joins } = worldWith(2);
    for (const join of joins) world.lose(join);
    await world.check(world.close({ dryRun: true }));
    expect(world.told).toEqual([]);
  });

  it.each([0, 100])('none about whom nothing could be learned, with %d s of patience', async (patience) => {
    const { world, joins } = worldWith(2);
    world.server.room(joins[0]?.room ?? '').script = () => 'silence';
    const { state } = await world.check(world.close({ patience, timeout: 1 }));
    expect(state.totals).toMatchObject({ undecided: 2, notified: 2 });
    expect(world.told).toEqual([]);
  });

  it('none whose room answers in a later round, because that delay is the room’s', async () => {
    const { world, joins } = worldWith(1);
    let asked = 0;
    world.server.room(joins[0]?.room ?? '').script = () =>
      (asked += 1) === 1 ? 'silence' : { type: 'cancel', condition: 'not-acceptable' };
    const { state } = await world.check(world.close({ patience: 100, timeout: 1 }));
    expect(state.totals).toMatchObject({ left: 1, notified: 1 });
    expect(world.told).toEqual([]);
  });
});
