import type { Answer } from './stanzas.ts';

/** Rule 6 (docs/rules.md), after XEP-0410 1.1.0 §3.2: what the answer to a self-ping says of a join. */
export type Verdict =
  /** The room knows the occupant. */
  | 'joined'
  /** The room does not: the user is to be told. */
  | 'left'
  /** The room itself is gone, and with it all who were in it: the user is to be told. */
  | 'no-room'
  /** It can't be told, now. */
  | 'undecided'
  /** Nothing at all was learned: the stream broke while the answer was awaited. Never a reason to tell anybody. */
  | 'inconclusive'
  /** The session itself has ended. */
  | 'gone'
  /** The join was replaced by a newer one, or has ended. */
  | 'stale';

/** The occupant may have changed its nick, or the whole room may be gone: only the room can tell. */
export type PingVerdict = Verdict | 'ask-room';

/** What the local server's own errors say about a join. Its other errors, such as policy-violation, are no verdict. */
const OWN_WORD: Readonly<Record<string, Verdict>> = { 'recipient-unavailable': 'gone', conflict: 'stale' };
const OUT_OF_REACH: ReadonlySet<string> = new Set(['remote-server-not-found', 'remote-server-timeout']);

/**
 * The verdict of a ping's answer.
 * @param host the local host: errors that it made itself carry its name in `by`
 */
export function pingVerdict(answer: Answer | undefined, host: string): PingVerdict {
  if (answer === undefined) return 'undecided';
  if (answer.kind === 'result') return 'joined';
  const { condition, type, by, silence } = answer;
  if (isOutOfReach(answer)) return by === host && silence === 'broken' ? 'inconclusive' : 'undecided';
  if (by === host) return OWN_WORD[condition] ?? 'inconclusive';
  if (condition === 'service-unavailable' || condition === 'feature-not-implemented') return 'joined';
  if (condition === 'item-not-found') return 'ask-room';
  return type === 'wait' ? 'undecided' : 'left';
}

/**
 * The verdict of a room's own answer to disco#info, for all its occupants whose ping came back `item-not-found`.
 * `gone` and `stale` speak only of the session that asked.
 */
export function roomVerdict(answer: Answer | undefined, host: string): Verdict {
  const verdict = pingVerdict(answer, host);
  if (verdict === 'ask-room') return 'no-room'; // the commonest real loss, after a restart
  return verdict === 'left' ? 'joined' : verdict; // it answers, if only to refuse: it is there, and the nick changed
}

/** Whether a verdict leaves the join open: nothing is known about it yet. */
export function isOpen(verdict: Verdict): boolean {
  return verdict === 'undecided' || verdict === 'inconclusive';
}

/** Whether an answer says that nobody has answered, be it the server's word or somebody else's. */
export function isOutOfReach(answer: Answer): boolean {
  return answer.kind === 'error' && OUT_OF_REACH.has(answer.condition);
}

/**
 * Whether the answers to a batch of pings speak for the whole remote host: it is out of reach, so nothing more need be sent.
 *
 * Only the local server can say so. One silent room does not, even where it is the only one that was asked: it takes several
 * pings, and nothing at all from that host meanwhile.
 */
export function speakForHost(answers: readonly (Answer | undefined)[], host: string): boolean {
  return answers.every((answer) => {
    if (answer?.kind !== 'error' || answer.by !== host || !isOutOfReach(answer)) return false;
    return answer.silence === undefined || (answer.silence === 'host' && answers.length > 1);
  });
}
