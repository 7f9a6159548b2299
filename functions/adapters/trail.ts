import { type Answer, type Stanza, stanzaId } from '../core/stanzas.ts';

/** Joins whose answers are kept: those in flight, and those that wait to be written (5,000 in all), and as many again. */
const MAX_JOINS = 10_000;

/**
 * What was answered about joins, for the log lines that say what became of them. The answers of those that are simply
 * still joined are not kept, so an invocation that finds nothing wrong keeps nothing.
 */
export class Trail {
  readonly #answers = new Map<string, string[]>();

  keep(stanzas: readonly Stanza[], answers: Map<string, Answer>): Map<string, Answer> {
    for (const { id } of stanzas) {
      const answer = answers.get(id);
      if (answer?.kind !== 'result') this.#answers.set(id, [...(this.#answers.get(id) ?? []), answer?.condition ?? 'none']);
    }
    for (const oldest of this.#answers.keys()) {
      if (this.#answers.size <= MAX_JOINS) break;
      this.#answers.delete(oldest);
    }
    return answers;
  }

  /** In the order of the questions: the ping, the room, the notice, for which `none` means delivered. */
  of(at: number): readonly string[] {
    return this.#answers.get(stanzaId({ at })) ?? [];
  }
}
