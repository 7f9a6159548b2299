import type { CloseRecord } from './check-state.ts';
import type { Close } from './events.ts';

/** When a check is due (rule 3), and when a newer close takes its place (rule 5): docs/rules.md. */

/** A flapping link postpones a check that has not begun by at most this many delays. */
const MAX_DELAYS_POSTPONED = 5;
/**
 * After patience, those whose ping was lost with its stream, and those who are just now joining again, are asked about for so
 * many more time-outs: one for their own attempt to join, one for a ping after it.
 */
export const MORE_TIMEOUTS = 2;

/**
 * How long to wait so that the check begins `delay` seconds after the close, in whole seconds (rule 3).
 *
 * Both moments are of the server's clock, so that it does not matter how far ours is from it.
 * @param sentSeconds the sender's own timestamp of the report
 */
export function waitSeconds(close: Close, sentSeconds: number): number {
  const elapsed = sentSeconds - close.at / 1e6;
  return Math.min(close.delay, Math.max(0, Math.ceil(close.delay - elapsed)));
}

/**
 * Whether a newer close's check will do all the work of this one, which has not begun (rule 5).
 *
 * A newer close postpones, but never beyond five delays after the oldest close that is still unanswered.
 */
export function isSuperseded(close: Close, record: CloseRecord): boolean {
  if (record.checked === close.at) return false; // it is this check that began, and now runs again
  if (record.checked !== undefined && record.checked > close.at) return true;
  if (record.at <= close.at) return false;
  return record.at + record.delay * 1e6 <= lastMoment(oldestOf(close, record), record.delay);
}

/**
 * Whether a newer close is to decide what a check that has begun can't (rule 5): the link broke again while rooms were
 * asked, so that their silence says nothing.
 *
 * It takes a newer close within five delays after the oldest one that this check answers, or within all the time that a
 * check may take, where that is longer: a close in the last round of a patient check counts, too.
 * @param newest the newest close of the pair, µs
 */
export function isNewerToDecide(close: Close & { readonly oldest?: number }, newest: number): boolean {
  const oldest = close.oldest ?? close.at;
  const longest = oldest + (close.delay + close.patience + MORE_TIMEOUTS * close.timeout) * 1e6;
  return newest > close.at && newest <= Math.max(lastMoment(oldest, close.delay), longest);
}

/** The oldest close that is unanswered when this one's check begins, or began before it now runs again, µs. */
export function oldestOf(close: Close, record: CloseRecord): number {
  const oldest = record.checked === close.at ? record.answers : record.since;
  return Math.min(oldest ?? close.at, close.at);
}

function lastMoment(oldest: number, delay: number): number {
  return oldest + MAX_DELAYS_POSTPONED * delay * 1e6;
}
