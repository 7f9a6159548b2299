import type { Answer } from './stanzas.ts';

/** The design's rule 6, after XEP-0410 1.1.0 §3.2: what the answer to a self-ping says of a join. */
export type Verdict =
  /** The room knows the occupant. */
  | 'joined'
  /** The room does not: the user is to be told. */
  | 'left'
  /** It can't be told, now. */
  | 'undecided'
  /** The session itself has ended. */
  | 'gone'
  /** The join was replaced by a newer one, or has ended. */
  | 'stale';

/** The occupant may have changed its nick, or the whole room may be gone: only the room can tell. */
export type PingVerdict = Verdict | 'ask-room';

const OUT_OF_REACH: ReadonlySet<string> = new Set(['remote-server-not-found', 'remote-server-timeout']);

/**
 * The verdict of a ping's answer.
 * @param host the local host: errors that it made itself carry its name in `by`
 */
export function pingVerdict(answer: Answer | undefined, host: string): PingVerdict {
  if (answer === undefined) return 'undecided';
  if (answer.kind === 'result') return 'joined';
  const { condition, type, by } = answer;
  if (OUT_OF_REACH.has(condition)) return 'undecided';
  if (by === host) return condition === 'recipient-unavailable' ? 'gone' : 'stale';
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
  if (verdict === 'ask-room') return 'left'; // the room is gone: the commonest real loss, after a restart
  return verdict === 'left' ? 'joined' : verdict; // it answers, if only to refuse: it is there, and the nick changed
}

/**
 * Whether this answer speaks for the whole remote host: nothing reaches it, so nothing more need be sent.
 * Where the local server says that it is only this room that is silent, it does not.
 */
export function speaksForHost(answer: Answer | undefined, host: string): boolean {
  return answer?.kind === 'error' && OUT_OF_REACH.has(answer.condition) && !(answer.noAnswer && answer.by === host);
}
