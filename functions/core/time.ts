import type { CheckState } from './check-state.ts';
import type { CheckRequest } from './events.ts';
import { CLOSING_MS } from './limits.ts';
import { MORE_TIMEOUTS } from './supersession.ts';

/** When a check is due (rule 3 in docs/rules.md), how long it lasts (rule 7), and the time of one invocation of it. */

/** Seconds before undecided joins are pinged again. They double from the first value to the last. */
const FIRST_WAIT_SECONDS = 5;
const LAST_WAIT_SECONDS = 60;
/** After the first round has begun, users are brought back for so long. 5,000 in rooms of ten take two minutes. */
const LONGEST_REENTRY_SECONDS = 1200;

/**
 * How long to wait so that the check begins `delay` seconds after the close, in whole seconds (rule 3).
 *
 * Both moments are from the server's clock, so a difference to our clock does not matter.
 * @param sentSeconds the sender's own timestamp of the report
 */
export function waitSeconds(close: CheckRequest, sentSeconds: number): number {
  return Math.min(close.delay, Math.max(0, Math.ceil(close.delay - reportedAfter(close, sentSeconds))));
}

/**
 * How long after the close it was reported, in seconds, by the server's clock.
 * @param sentSeconds the sender's own timestamp of the report
 */
export function reportedAfter({ at }: Pick<CheckRequest, 'at'>, sentSeconds: number): number {
  return Math.max(0, sentSeconds - at / 1e6);
}

/** How long to wait before the next round: with back-off, but not past the end of patience. */
export function secondsToNextRound(state: CheckState, nowMs: number): number {
  const backoff = Math.min(LAST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** Math.min(state.round, 10));
  const left = (state.deadline ?? 0) - nowMs / 1000;
  return Math.max(1, Math.ceil(left > 0 ? Math.min(backoff, left) : backoff));
}

/** Whether the check must come to an end: it leaves no join open any more. */
export function isOver({ deadline = 0, timeout }: CheckState, nowMs: number): boolean {
  return nowMs / 1000 >= deadline + MORE_TIMEOUTS * timeout;
}

/**
 * Whether users have waited too long for their re-entry (rule 10): a notice now is the better help. The time for which
 * an operator has stopped the check does not count.
 */
export function isTooLateForReentry({ deadline, patience }: CheckState, nowMs: number): boolean {
  return deadline !== undefined && nowMs / 1000 >= deadline - patience + LONGEST_REENTRY_SECONDS;
}

/** Whether an invocation has time for another batch: a ping, a question to the room, and the end. */
export function hasTimeForBatch({ timeout }: CheckState, remainingMs: number): boolean {
  return remainingMs > 2 * timeout * 1000 + CLOSING_MS;
}

/** Whether an invocation has time for a re-entry that is not answered, and for the end. */
export function hasTimeForReentry({ timeout }: CheckState, remainingMs: number): boolean {
  return remainingMs > timeout * 1000 + CLOSING_MS;
}
