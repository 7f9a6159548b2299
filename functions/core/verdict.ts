import type { Answer } from './stanzas.ts';

/** Rule 6 (docs/rules.md), after XEP-0410 1.1.0 §3.2: what the answer to a self-ping says about a join. */
export type Verdict =
  /** The room knows the occupant. */
  | 'joined'
  /** The room does not know the occupant: the user is to be brought back or notified. */
  | 'left'
  /** The room no longer exists: the user is to be notified. */
  | 'no-room'
  /** The answer does not decide it. */
  | 'undecided'
  /** Nothing was learned: the stream broke before the answer came. Never a reason to notify a user. */
  | 'inconclusive'
  /** The session itself has ended. */
  | 'gone'
  /** The join was replaced by a newer one, or has ended. */
  | 'stale';

/** The occupant may have changed its nick, or the room may no longer exist: the room must be asked. */
export type PingVerdict = Verdict | 'ask-room';

/** What the local server's own errors mean for a join. Its other errors, such as policy-violation, are no verdict. */
const OWN_ERRORS: Readonly<Record<string, Verdict>> = { 'recipient-unavailable': 'gone', conflict: 'stale' };
const OUT_OF_REACH: ReadonlySet<string> = new Set(['remote-server-not-found', 'remote-server-timeout']);

/**
 * The verdict from the answer to a ping.
 * @param host the local host: errors that it made itself carry its name in `by`
 */
export function pingVerdict(answer: Answer | undefined, host: string): PingVerdict {
  if (answer === undefined) return 'undecided';
  if (answer.kind === 'result') return 'joined';
  const { condition, type, by, silence } = answer;
  if (isOutOfReach(answer)) return by === host && silence === 'broken' ? 'inconclusive' : 'undecided';
  if (by === host) return OWN_ERRORS[condition] ?? 'inconclusive';
  if (condition === 'service-unavailable' || condition === 'feature-not-implemented') return 'joined';
  if (condition === 'item-not-found') return 'ask-room';
  return type === 'wait' ? 'undecided' : 'left';
}

/**
 * The verdict from a room's own answer to disco#info, for all its occupants whose ping was answered `item-not-found`.
 * `gone` and `stale` apply only to the session that asked.
 */
export function roomVerdict(answer: Answer | undefined, host: string): Verdict {
  const verdict = pingVerdict(answer, host);
  if (verdict === 'ask-room') return 'no-room'; // the most common real loss: after a restart
  // a refusal is an answer, too: the room exists, and the nick has changed
  return verdict === 'left' ? 'joined' : verdict;
}

/** Whether a verdict leaves the join open: nothing is known about it yet. */
export function isOpen(verdict: Verdict): boolean {
  return verdict === 'undecided' || verdict === 'inconclusive';
}

/** Whether an answer says that no answer came, whether our server says so or another host. */
export function isOutOfReach(answer: Answer): boolean {
  return answer.kind === 'error' && OUT_OF_REACH.has(answer.condition);
}

/**
 * Whether the answers to a batch of pings show that the whole remote host is out of reach, so no more pings are needed.
 *
 * Only the local server can report this. One silent room is not enough, even if no other room was asked: it takes
 * several pings, and no stanza at all from that host in that time.
 */
export function isHostOutOfReach(answers: readonly (Answer | undefined)[], host: string): boolean {
  return answers.every((answer) => {
    if (answer?.kind !== 'error' || answer.by !== host || !isOutOfReach(answer)) return false;
    return answer.silence === undefined || (answer.silence === 'host' && answers.length > 1);
  });
}
