import { type Answer, type Stanza, stanzaId } from '../core/stanzas.ts';

/** Joins whose answers are kept: those in flight or waiting to be written (5,000 in all), and as many again. */
const MAX_JOINS = 10_000;

/**
 * The answers about each join, for the log line that says what was decided. If the first answer shows that the user is
 * still in the room, it is not kept, so an invocation that finds nothing wrong keeps nothing. A result that follows
 * another answer is kept: the room exists after all, or has let the session in again.
 */
export class AnswerHistory {
  readonly #answers = new Map<string, string[]>();

  add(stanzas: readonly Stanza[], answers: ReadonlyMap<string, Answer>): void {
    for (const { id } of stanzas) {
      const answer = answers.get(id);
      const known = this.#answers.get(id);
      if (known !== undefined || answer?.kind !== 'result') this.#answers.set(id, [...(known ?? []), word(answer)]);
    }
    for (const oldest of this.#answers.keys()) {
      if (this.#answers.size <= MAX_JOINS) break;
      this.#answers.delete(oldest);
    }
  }

  /** In the order of the questions: ping, room, re-entry, notice. For a notice, `none` means delivered. */
  of(at: number): readonly string[] {
    return this.#answers.get(stanzaId({ at })) ?? [];
  }
}

function word(answer: Answer | undefined): string {
  if (answer?.kind !== 'result') return answer?.condition ?? 'none';
  return answer.hasGap ? 'result, with lines missing' : 'result';
}
