import type { Synthesized } from './stack.ts';
import { HOUR, MINUTE, SECOND, type Size, World } from './world.ts';

/** A day on which nothing is wrong, with what happens on real days. */
export interface Day extends Size {
  /** Users who enter a room, and as many who leave one, a minute. */
  readonly visits: number;
  /** Closes an hour after which all users are still in their rooms. */
  readonly closes: number;
}

export const SMALL_DAY: Day = { hosts: 2, remotes: 5, joins: 100, visits: 1, closes: 4 };
export const LARGE_DAY: Day = { hosts: 5, remotes: 200, joins: 100_000, visits: 50, closes: 40 };

/** What came of it. */
export interface CleanDay {
  readonly day: Day;
  /** What the functions counted, by metric, and warnings and errors, by message. */
  readonly counts: ReadonlyMap<string, number>;
  /** Alarms that were raised. */
  readonly raised: readonly { readonly name: string; readonly at: number; readonly reason: string }[];
}

/** Until the first heartbeats there is no data. */
const WARM_UP_MS = 30 * MINUTE;
const HOURS = 24;

/** Plays the day. @param progress is called once an hour */
export function cleanDay(
  synthesized: Synthesized,
  day: Day,
  progress: (hour: number) => void = () => undefined,
): Promise<CleanDay> {
  return World.with(synthesized, day, async (world) => {
    const { clock, stack } = world;
    await clock.pass(WARM_UP_MS);
    const began = clock.now;
    everyMinute(world, day);
    for (let hour = 0; hour < HOURS; hour += 1) {
      special(world, hour);
      await clock.pass(HOUR);
      progress(hour + 1);
    }
    const raised = stack.transitions.filter(({ at, to }) => at > began && to === 'ALARM');
    return { day, counts: stack.counts, raised };
  });
}

function everyMinute(world: World, { visits, closes }: Day): void {
  world.every(MINUTE, () => {
    for (let n = 0; n < visits; n += 1) {
      world.join();
      world.leave();
    }
    world.renew();
  });
  world.every(HOUR / closes, () => world.close());
  world.every(30 * MINUTE, () => world.askAbout());
  // a scanner: a request without a signature
  world.every(HOUR, () => void world.stack.deliver({ 'content-type': 'application/json' }, '{}'));
}

/** What happens some times a day. */
function special(world: World, hour: number): void {
  const later = (ms: number, act: () => void): void => void world.clock.sleep(ms).then(act);
  const [first, second] = world.senders;
  // a remote host restarts: a third of the users is no longer in the rooms
  if (hour % 4 === 1) later(7 * MINUTE, () => world.close(1 / 3));
  // a link that flaps: it closes every 20 seconds for ten minutes
  if (hour % 8 === 2)
    for (let n = 0; n < 30; n += 1) later(n * 20 * SECOND, () => world.close(0, first?.host, world.remotes[0]));
  // Prosody restarts, while a check is due
  if (hour % 12 === 5 && second !== undefined) {
    later(20 * MINUTE, () => world.close(0, second.host));
    later(21 * MINUTE - 10 * SECOND, () => void world.restart(second, 30 * SECOND));
  }
}
