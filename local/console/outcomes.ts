/** The log lines about joins (functions/check.ts), in plain words. */

/** Answers of the user's own server: the session, or this join, has ended. */
const SESSION_ENDED = 'recipient-unavailable';
const JOIN_REPLACED = 'conflict';
/** For a notice: it was delivered. For a question: no answer came. */
const NONE = 'none';

/**
 * What became of a join, by rules 6 to 10 (docs/rules.md).
 * @param message of the log line
 * @param answers in the order of the questions: ping, room, re-entry, notice
 */
export function outcome(message: string, answers: readonly string[]): string {
  const last = answers.at(-1);
  switch (message) {
    case 'join ended':
      if (last === undefined) return 'The join ended.';
      if (last === SESSION_ENDED) return 'The session had ended. Nothing was sent.';
      if (last === JOIN_REPLACED) return 'The user had left or joined again. Nothing was sent.';
      if (answers.length > 1 && last === NONE) return 'Was out of the room, and was notified.';
      if (answers.length > 1 && last.startsWith('result'))
        return `Was out of the room, and was brought back${last === 'result' ? '' : '; some messages are missing'}.`;
      return 'Was out of the room.';
    case 'join undecided':
      return 'Nothing certain was learned. The room will be asked again.';
    case 'join decided':
      return last === undefined || last.startsWith('result')
        ? 'Is still in the room.'
        : 'Was decided. The join stays recorded.';
    default:
      return message;
  }
}

/** The answers, each with the question where that is certain. */
export function namedAnswers(message: string, answers: readonly string[]): readonly string[] {
  const isEnded = message === 'join ended';
  return answers.map((answer, index) => {
    if (isEnded && index > 0 && index === answers.length - 1 && answer === NONE) return 'notice: delivered';
    const words = answer === NONE ? 'no answer' : answer;
    if (index === 0) return `ping: ${words}`;
    // after item-not-found, the second answer may also be the room's (rule 6)
    const isReentry = isEnded && index === 1 && answers[0] !== 'item-not-found' && isOfReentry(answers);
    return isReentry ? `re-entry: ${words}` : words;
  });
}

/** Two answers may also be those to a ping and a notice. */
const isOfReentry = ({ length, 1: second = '' }: readonly string[]): boolean =>
  length > 2 || second.startsWith('result');
