import type { Send, StoredJoin } from './check-state.ts';
import { type Answer, notice, stanzaId } from './stanzas.ts';
import type { Stop } from './stop.ts';

/** A session that is out of its room. */
export interface Lost {
  readonly join: StoredJoin;
  /** What the room said about it, for a notice. */
  readonly reason: string | undefined;
}

/** What a notice came to. */
export type NoticeOutcome =
  /** It was delivered; in a dry run, it would have been sent. */
  | 'notified'
  /** The session has ended. */
  | 'gone'
  /** The join was replaced, or has ended. */
  | 'stale'
  /** The session is entering the room again at this moment (rule 7 in docs/rules.md). */
  | 'rejoining'
  /** It was not sent: the check was stopped, or there was no time. A later round asks the room again. */
  | 'postponed';

/**
 * Sends notices (rule 8 in docs/rules.md), and returns what each came to. If the check has to stop, none is sent (rules
 * 13 and 14).
 */
export async function notify(
  those: readonly Lost[],
  isDryRun: boolean,
  stop: Pick<Stop, 'reserve' | 'giveBack'>,
  send: Send,
): Promise<ReadonlyMap<StoredJoin, NoticeOutcome>> {
  if (!(await stop.reserve(those.length))) return new Map(those.map(({ join }) => [join, 'postponed']));
  const outcomes = await sendNotices(those, isDryRun, send);
  await stop.giveBack([...outcomes.values()].filter((outcome) => outcome !== 'notified').length);
  return outcomes;
}

/** A dry run sends none (rule 9). */
async function sendNotices(
  those: readonly Lost[],
  isDryRun: boolean,
  send: Send,
): Promise<ReadonlyMap<StoredJoin, NoticeOutcome>> {
  if (isDryRun || those.length === 0) return new Map(those.map(({ join }) => [join, 'notified']));
  const answers = await send(those.map(({ join, reason }) => notice(join, reason)));
  return new Map(those.map(({ join }) => [join, noticeOutcome(answers.get(stanzaId(join)))]));
}

function noticeOutcome(answer: Answer | undefined): NoticeOutcome {
  if (answer?.kind !== 'error') return 'notified';
  if (answer.condition === 'recipient-unavailable') return 'gone';
  return answer.isRejoining ? 'rejoining' : 'stale';
}

/**
 * The text that a room gave with an error.
 * @param host the local host, whose own texts are not for users
 */
export function roomText(answer: Answer | undefined, host: string): string | undefined {
  return answer?.kind === 'error' && answer.by !== host ? answer.text : undefined;
}
