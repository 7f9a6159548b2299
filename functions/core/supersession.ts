import type { CloseRecord } from './check-state.ts';
import type { CheckRequest } from './events.ts';

/** When a newer close supersedes a check (rule 5 in docs/rules.md). */

type Check = CheckRequest & {
  /** The oldest close that it answers, µs. */
  readonly oldest?: number;
  /** Seconds for which it has waited for an operator (rules 13 and 14). */
  readonly stoppedFor?: number;
};

/** A flapping link postpones a check that has not begun by at most this many delays. */
const MAX_DELAYS_POSTPONED = 5;
/**
 * For so many time-outs after patience, a check still asks about two groups: joins whose ping was lost with its stream,
 * and sessions that are entering again. One time-out is for the session's own attempt, one for a ping after it.
 */
export const MORE_TIMEOUTS = 2;

/**
 * Whether the check of a newer close will do all the work of this one, which has not begun (rule 5).
 *
 * A newer close postpones the check, but not beyond five delays after the oldest unanswered close.
 */
export function isSuperseded(close: Check, record: CloseRecord): boolean {
  if (record.checkBegun === close.at) return false; // this check has begun, and runs again
  if (record.checkBegun !== undefined && record.checkBegun > close.at) return true;
  if (record.at <= close.at) return false;
  return record.at + record.delay * 1e6 <= lastMoment(countedFrom(close, oldestOf(close, record)), record.delay);
}

/**
 * Whether a newer close takes over what a check that has begun cannot decide (rule 5): the link broke again while rooms
 * were asked, so their silence means nothing.
 *
 * The newer close must be within five delays after the oldest close that this check answers, or within the longest time
 * that a check may take, whichever is longer. So a close in the last round of a patient check counts, too.
 * @param newest the newest close of the pair, µs
 */
export function isNewerToDecide(close: Check, newest: number): boolean {
  const oldest = countedFrom(close);
  const longest = oldest + (close.delay + close.patience + MORE_TIMEOUTS * close.timeout) * 1e6;
  return newest > close.at && newest <= Math.max(lastMoment(oldest, close.delay), longest);
}

/** The oldest unanswered close when this check began, µs. The same if the check runs again. */
export function oldestOf(close: CheckRequest, record: CloseRecord): number {
  const oldest = record.checkBegun === close.at ? record.oldestAnswered : record.oldestUnanswered;
  return Math.min(oldest ?? close.at, close.at);
}

/**
 * The moment from which a check counts five delays, µs: that of the oldest close that it answers. The time for which it
 * has waited for an operator does not count.
 */
export function countedFrom(close: Check, oldest = close.oldest ?? close.at): number {
  const { at, stoppedFor } = close;
  return stoppedFor === undefined ? oldest : Math.max(oldest, Math.round(at + stoppedFor * 1e6));
}

function lastMoment(oldest: number, delay: number): number {
  return oldest + MAX_DELAYS_POSTPONED * delay * 1e6;
}
