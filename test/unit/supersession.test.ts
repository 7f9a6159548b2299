import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { runCheck } from '../../functions/core/check.ts';
import type { Totals } from '../../functions/core/check-state.ts';
import type { CheckRequest, Join } from '../../functions/core/events.ts';
import { isNewerToDecide, isSuperseded } from '../../functions/core/supersession.ts';
import { waitSeconds } from '../../functions/core/time.ts';
import { worldWith } from './world-with.ts';
import { BEGINNING, HOST, REMOTE, World } from './world.ts';

/** Rules 3 and 5 (docs/rules.md): when a check is due, and when a newer one supersedes it. */

vi.setConfig({ testTimeout: 60_000 }); // a second or two, on a machine that does nothing else

describe('waitSeconds', () => {
  const close: CheckRequest = {
    host: HOST,
    remote: REMOTE,
    at: BEGINNING * 1e6,
    delay: 60,
    timeout: 60,
    patience: 0,
    dryRun: false,
    reenter: false,
    cause: 'close',
  };

  it.each([
    ['a report in the same second waits the whole delay', BEGINNING, 60],
    ['a late report waits the rest', BEGINNING + 45, 15],
    ['a report that came after the delay does not wait', BEGINNING + 61, 0],
    ['a report of hours ago does not wait', BEGINNING + 86_400, 0],
    ['a timestamp before the close (it is cut to seconds) waits no more than the delay', BEGINNING - 1, 60],
  ])('%s', (_what, sent, seconds) => {
    expect(waitSeconds(close, sent)).toBe(seconds);
  });

  it('is a whole number of seconds, and not less than what is left', () => {
    const moments = fc.integer({ min: 0, max: 999_999 });
    fc.assert(
      fc.property(
        moments,
        fc.integer({ min: 0, max: 70 }),
        fc.integer({ min: 1, max: 86_400 }),
        (micros, later, delay) => {
          const wait = waitSeconds({ ...close, at: close.at + micros, delay }, BEGINNING + later);
          expect(Number.isInteger(wait)).toBe(true);
          expect(wait).toBeGreaterThanOrEqual(0);
          expect(wait).toBeLessThanOrEqual(delay);
          const left = delay - (later - micros / 1e6);
          expect(wait).toBeGreaterThanOrEqual(Math.min(delay, left) - 1e-6);
          expect(wait).toBeLessThan(Math.max(left, 0) + 1);
        },
      ),
    );
  });
});

describe('isSuperseded', () => {
  const T = BEGINNING * 1e6;
  const second = 1e6;
  const close = (at: number, delay = 60): CheckRequest => ({
    host: HOST,
    remote: REMOTE,
    at,
    delay,
    timeout: 60,
    patience: 0,
    dryRun: false,
    reenter: false,
    cause: 'close',
  });

  it.each([
    ['the only close', T, { at: T, delay: 60, oldestUnanswered: T }, false],
    ['a newer close whose check comes in time', T, { at: T + 10 * second, delay: 60, oldestUnanswered: T }, true],
    [
      'a newer close whose check comes five delays after the oldest',
      T,
      { at: T + 240 * second, delay: 60, oldestUnanswered: T },
      true,
    ],
    [
      'a newer close whose check comes later than that',
      T,
      { at: T + 240 * second + 1, delay: 60, oldestUnanswered: T },
      false,
    ],
    [
      'an older close is still unanswered: the bound counts from it',
      T,
      { at: T + 200 * second, delay: 60, oldestUnanswered: T - 100 * second },
      false,
    ],
    [
      'a report that came too late to be the oldest on record: the bound counts from its own close',
      T,
      { at: T + 250 * second, delay: 60, oldestUnanswered: T + 100 * second },
      false,
    ],
    [
      'its own check, which began and runs again',
      T,
      { at: T + 10 * second, delay: 60, oldestUnanswered: T, checkBegun: T },
      false,
    ],
    [
      'a newer check that has begun, whatever came since',
      T,
      { at: T + 900 * second, delay: 60, oldestUnanswered: T + 10 * second, checkBegun: T + 10 * second },
      true,
    ],
    ['an older check that has begun', T, { at: T, delay: 60, checkBegun: T - 50 * second }, false],
    ['the delay was shortened in between', T, { at: T + 200 * second, delay: 10, oldestUnanswered: T }, false],
  ] as const)('%s', (_what, at, record, superseded) => {
    expect(isSuperseded(close(at), record)).toBe(superseded);
  });

  it.each([
    ['no newer close', T, T, false],
    ['a newer close', T, T + second, true],
    ['one at five delays after the oldest', T, T + 300 * second, true],
    ['one after that', T, T + 300 * second + 1, false],
    ['five delays are counted from the oldest close that is unanswered', T - 100 * second, T + 201 * second, false],
  ] as const)(
    'a check that has begun leaves what it cannot decide to a newer close: %s',
    (_what, oldest, newest, isNewer) => {
      expect(isNewerToDecide({ ...close(T), oldest }, newest)).toBe(isNewer);
    },
  );

  it('a check that finds no record runs: better twice than never', async () => {
    const {
      world,
      joins: [join],
    } = worldWith(1);
    world.lose(join as Join);
    const last = world.close();
    world.table.closes.clear();
    expect((await world.check(last)).state.totals.notified).toBe(1);
  });

  it('a superseded check sends nothing', async () => {
    const {
      world,
      joins: [join],
    } = worldWith(1);
    world.lose(join as Join);
    const [older, newer] = [world.close(), world.close()];
    const { state } = await world.check(older);
    expect(state).toMatchObject({ next: 'done', superseded: true, totals: { pinged: 0, notified: 0 } });
    expect(world.most.requests).toBe(0);
    expect((await world.check(newer)).state.totals.notified).toBe(1);
  });

  it('a newer close does not stop a check that has pinged already', async () => {
    const { world } = worldWith(3);
    world.limit = 1000;
    const first = world.close();
    const state = await runCheck(world.start(first), world.ports());
    expect(state.next).toBe('page');
    const second = world.close();
    expect((await world.check(second)).state.totals.pinged).toBe(3);
    expect((await world.check(first, state)).state).toMatchObject({ totals: { pinged: 3, joined: 3 } });
  });

  it('a check that waits for the undecided leaves them to a newer close, whose check notifies them once', async () => {
    const {
      world,
      joins: [join],
    } = worldWith(1);
    world.server.link = 'remote-server-timeout';
    const first = world.close({ patience: 30 });
    let second: CheckRequest | undefined;
    world.onWait = ({ round }) => {
      if (round === 1) second = world.close();
    };
    expect((await world.check(first)).state).toMatchObject({
      next: 'done',
      superseded: true,
      totals: { undecided: 0, notified: 0 },
    });
    expect(world.noticesTo(join as Join)).toBe(0);
    expect((await world.check(second as CheckRequest)).state).toMatchObject({
      next: 'done',
      totals: { undecided: 1, notified: 1 },
    });
    expect(world.noticesTo(join as Join)).toBe(1);
  });

  it('a close between reading and claiming is noticed', async () => {
    const { world } = worldWith(1);
    const first = world.close();
    world.hook = ({ port, phase, n }) => {
      if (port === 'readClose' && phase === 'after' && n === 1) world.close();
      return undefined;
    };
    expect((await world.check(first)).state.superseded).toBe(true);
  });

  it('closes that come faster than they can be read do not stop the check', async () => {
    const { world } = worldWith(1);
    const first = world.close({ delay: 1 });
    world.now += 10_000;
    world.hook = ({ port, phase }) => {
      if (port === 'readClose' && phase === 'after') world.close({ delay: 1 });
      return undefined;
    };
    expect((await world.check(first)).state.totals.joined).toBe(1);
  });

  /** Plays closes after gaps (in seconds), each with its check after the delay, and returns when which check ran. */
  async function flap(
    gaps: readonly number[],
    delay: number,
    lateness: readonly number[],
  ): Promise<{ closes: CheckRequest[]; runs: { at: number; close: CheckRequest; totals: Totals }[] }> {
    const world = new World();
    const closes: CheckRequest[] = [];
    const agenda: { at: number; act: () => Promise<void> }[] = [];
    const runs: { at: number; close: CheckRequest; totals: Totals }[] = [];
    let moment = BEGINNING;
    gaps.forEach((gap, index) => {
      moment += gap;
      const at = moment;
      agenda.push({
        at,
        act: async () => {
          world.now = at * 1000;
          world.join(`user${index}`, 'room'); // joined before this close
          const made = world.close({ delay });
          closes.push(made);
          const due = made.at / 1e6 + delay + (lateness[index % lateness.length] ?? 0);
          agenda.push({
            at: due,
            act: async () => {
              world.now = due * 1000;
              const { state } = await world.check(made);
              if (!state.superseded) runs.push({ at: due, close: made, totals: state.totals });
            },
          });
          await Promise.resolve();
        },
      });
    });
    while (agenda.length > 0) {
      agenda.sort((one, other) => one.at - other.at);
      await agenda.shift()?.act();
    }
    return { closes, runs };
  }

  it('no user waits for more than five delays, however the link flaps', async () => {
    const delay = 10;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.double({ min: 0.2, max: 15, noNaN: true }), { minLength: 1, maxLength: 60 }),
        async (gaps) => {
          const { closes, runs } = await flap(gaps, delay, [0]);
          for (const one of closes) {
            const answer = runs.find(({ close }) => close.at >= one.at);
            expect(answer, 'a check of this close or a newer one').toBeDefined();
            expect((answer?.at ?? Infinity) - one.at / 1e6).toBeLessThanOrEqual(5 * delay + 0.001);
          }
          expect(runs.at(-1)?.close).toBe(closes.at(-1));
          expect(runs.at(-1)?.totals.joined).toBe(closes.length);
        },
      ),
      // the second to last: two closes in one delay, of which the first check begins to answer only one
      { numRuns: 150, examples: [[[1, 9, 9, 9, 4.1, 0.9, 9, 9, 9, 9, 9, 4]]] },
    );
  });

  it('no user waits longer than that if checks are late, but for the lateness itself', async () => {
    const delay = 10;
    const late = 7;
    const gap = fc.double({ min: 0.2, max: 15, noNaN: true });
    const lateness = fc.array(fc.double({ min: 0, max: late, noNaN: true }), { minLength: 1, maxLength: 10 });
    await fc.assert(
      fc.asyncProperty(fc.array(gap, { minLength: 1, maxLength: 40 }), lateness, async (gaps, lates) => {
        const { closes, runs } = await flap(gaps, delay, lates);
        for (const one of closes) {
          const answer = runs.filter(({ close }) => close.at >= one.at).map(({ at }) => at);
          expect(Math.min(...answer) - one.at / 1e6).toBeLessThanOrEqual(5 * delay + late + 0.001);
        }
      }),
      { numRuns: 100 },
    );
  });

  it('one check does the work of many: a link that flaps for an hour is checked every few minutes', async () => {
    const { runs } = await flap(
      Array.from({ length: 720 }, () => 5),
      60,
      [0],
    );
    expect(runs.length).toBeGreaterThanOrEqual(3600 / 300);
    expect(runs.length).toBeLessThanOrEqual(3600 / 180);
  });
});
