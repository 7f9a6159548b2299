import type { Totals } from '../../functions/core/check-state.ts';
import type { Join } from '../../functions/core/events.ts';
import { World } from './world.ts';

/** What the tests of checks have in common. */

export const users = (count: number): string[] =>
  Array.from({ length: count }, (_, index) => `user${String(index).padStart(6, '0')}`);

/** A world in which so many users are in one room. */
export function worldWith(count: number, room = 'room'): { world: World; joins: Join[] } {
  const world = new World();
  return { world, joins: users(count).map((user) => world.join(user, room)) };
}

/** The joins that a check counted as decided. */
export const settled = ({ joined, left, undecided, gone, stale }: Totals): number =>
  joined + left + undecided + gone + stale;

/** The totals of re-entry in a check without it. */
export const NO_REENTRY = { reentered: 0, gaps: 0, refused: 0 };

/** The joins with more or fewer notices than this. */
export const notifiedOtherwise = (world: World, joins: readonly Join[], times: number): Join[] =>
  joins.filter((join) => world.noticesTo(join) !== times);
