import { type Answer, type Stanza, stanzaId } from '../core/stanzas.ts';

/** Joins whose answers are kept: those in flight, and those that wait to be written (5,000 in all), and as many again. */
const MAX_JOINS = 10_000;

/**
 * What was answered about joins, for the log lines that say what became of them. The answers of those that are simply
 * still joined are not kept, so an invocation that finds nothing wrong keeps nothing; a result that comes after something
 * else is: the room is there after all, or has let the session in again.
 */
export class Trail {
  readonly #answers = new Map<string, string[]>();

  keep(stanzas: readonly Stanza[], answers: Map<string, Answer>): Map<string, Answer> {
    for (const { id } of stanzas) {
      const answer = answers.get(id);
      const known = this.#answers.get(id);
      if (known !== undefined || answer?.kind !== 'result') this.#answers.set(id, [...(known ?? []), word(answer)]);
    }
    for (const oldest of this.#answers.keys()) {
      if (this.#answers.size <= MAX_JOINS) break;
      this.#answers.delete(oldest);
    }
    return answers;
  }

  /** In the order of the questions: the ping, the room, the re-entry, the notice, for which `none` means delivered. */
  of(at: number): readonly string[] {
    return this.#answers.get(stanzaId({ at })) ?? [];
  }
}

function word(answer: Answer | undefined): string {
  if (answer?.kind !== 'result') return answer?.condition ?? 'none';
  return answer.hasGap ? 'result, with lines missing' : 'result';
}
