import type { CloseRecord } from './check-state.ts';
import type { Close } from './events.ts';

/** When a check is due (rule 3), and when a newer close takes its place (rule 5): docs/rules.md. */

/** A flapping link postpones what users are told by at most so many delays. */
const MAX_DELAYS_POSTPONED = 5;

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
 * It takes a newer close of within five delays after the oldest one that this check answers.
 * @param newest the newest close of the pair, µs
 */
export function isNewerToDecide(close: Close & { readonly oldest?: number }, newest: number): boolean {
  return newest > close.at && newest <= lastMoment(close.oldest ?? close.at, close.delay);
}

/** The oldest close that is unanswered when this one's check begins, µs. */
export function oldestOf(close: Close, record: CloseRecord): number {
  return Math.min(record.since ?? close.at, close.at);
}

function lastMoment(oldest: number, delay: number): number {
  return oldest + MAX_DELAYS_POSTPONED * delay * 1e6;
}
