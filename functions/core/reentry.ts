import type { CheckRequest } from './events.ts';
import type { Answer } from './stanzas.ts';
import { type PingVerdict, isOutOfReach } from './verdict.ts';

/** Rule 10 (docs/rules.md): who may enter the room again, and what the answer to it means. */

/** Whether a session may re-enter: the room exists, and has itself said that the session is not in it. */
export function mayReenter(close: Pick<CheckRequest, 'reenter'>, verdict: PingVerdict): boolean {
  return close.reenter && verdict === 'left'; // not `no-room`: that would make a new room with this user as its owner
}

/** Why a re-entry failed, so that the user is notified. */
type Failure =
  /** The room, or whatever answers for it, does not let this session in. */
  | 'refused'
  /** No answer came. */
  | 'unanswered'
  /** The server lets no session re-enter this room, because the room is too large. */
  | 'too large'
  /** The server lets no session re-enter any room. */
  | 'off';

/** What a re-entry came to. */
export type ReentryOutcome =
  | Failure
  /** The room has let the session in: a new join. */
  | 'back'
  /** The session has ended. */
  | 'gone'
  /** The join has been left, replaced or notified. */
  | 'stale'
  /** The session is entering the room by itself, or an earlier re-entry is under way. */
  | 'rejoining'
  /** The host is out of reach, or a stream ended before the answer came: the room may have admitted the session. */
  | 'broken';

const FAILURES: ReadonlySet<ReentryOutcome> = new Set<Failure>(['refused', 'unanswered', 'too large', 'off']);

/**
 * What the local server's own errors mean for a re-entry. A server older than re-entry does not accept the stanza:
 * policy-violation.
 */
const OWN_ERRORS: Readonly<Record<string, ReentryOutcome>> = {
  'recipient-unavailable': 'gone',
  conflict: 'stale',
  'resource-constraint': 'too large',
  'feature-not-implemented': 'off',
  'policy-violation': 'off',
};

/**
 * What the answer to a re-entry means.
 * @param host the local host: errors that it made itself carry its name in `by`
 */
export function reentryOutcome(answer: Answer | undefined, host: string): ReentryOutcome {
  if (answer === undefined) return 'unanswered';
  if (isOutOfReach(answer))
    return answer.kind === 'error' && answer.by === host && isLinkDown(answer) ? 'broken' : 'unanswered';
  if (answer.kind === 'result') return 'back';
  if (answer.by !== host) return 'refused';
  return answer.isRejoining ? 'rejoining' : (OWN_ERRORS[answer.condition] ?? 'refused');
}

/** Whether our server could not send it, or lost the stream: that says nothing about the room (rule 7). */
function isLinkDown({ silence }: Pick<Extract<Answer, { kind: 'error' }>, 'silence'>): boolean {
  return silence === undefined || silence === 'broken';
}

/** Whether a notice must follow. */
export function hasFailed(outcome: ReentryOutcome): outcome is Failure {
  return FAILURES.has(outcome);
}
