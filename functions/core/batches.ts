import type { CheckPorts, CheckState, StoredJoin } from './check-state.ts';
import { BATCH_SIZE } from './limits.ts';

/** Joins that are pinged in one request, and the key of the join before them. '' is before all keys. */
export interface Batch {
  readonly joins: readonly StoredJoin[];
  readonly after: string;
}

/**
 * Reads the joins of a round in batches, for one invocation.
 *
 * The first batch is one join: its ping shows whether the host can be reached. It is taken in every invocation, so that
 * each invocation makes progress. The other batches are taken while `mayTake` allows it.
 */
export class BatchReader {
  readonly #state: CheckState;
  readonly #ports: Pick<CheckPorts, 'readJoins'>;
  readonly #mayTake: () => boolean;
  #waiting: StoredJoin[] = [];
  #isFirst = true;
  #cursor: string | undefined;
  #isAtEnd = false;

  constructor(state: CheckState, ports: Pick<CheckPorts, 'readJoins'>, mayTake: () => boolean) {
    this.#state = state;
    this.#ports = ports;
    this.#mayTake = mayTake;
    this.#cursor = state.cursor;
  }

  /** The key of the last join that was taken. */
  get cursor(): string | undefined {
    return this.#cursor;
  }

  /** All joins of the round have been taken. */
  get isAtEnd(): boolean {
    return this.#isAtEnd;
  }

  /** The batches. While the last batch of a page of rows is in flight, the next page is read. */
  async *batches(): AsyncGenerator<Batch, void> {
    const pages = this.#ports.readJoins(this.#state, this.#state.cursor)[Symbol.asyncIterator]();
    let page = pages.next();
    try {
      for (let joins = await page; !joins.done; joins = await page) {
        let isReadAhead = false;
        for (const join of joins.value) {
          if (!isDue(this.#state, join)) continue;
          this.#waiting.push(join);
          if (this.#waiting.length < (this.#isFirst ? 1 : BATCH_SIZE)) continue;
          if (!this.#mayTakeNext()) return;
          yield this.#take();
          if (isReadAhead || !this.#mayTakeNext()) continue;
          page = pages.next();
          page.catch(() => undefined); // the loop awaits it, and throws the error
          isReadAhead = true;
        }
        if (!isReadAhead) page = pages.next();
      }
    } finally {
      await page.catch(() => undefined); // no read is left in flight
    }
    if (this.#waiting.length > 0) {
      if (!this.#mayTakeNext()) return;
      yield this.#take();
    }
    this.#isAtEnd = true;
  }

  #mayTakeNext(): boolean {
    return this.#isFirst || this.#mayTake();
  }

  #take(): Batch {
    const batch = { joins: this.#waiting, after: this.#cursor ?? '' };
    this.#waiting = [];
    this.#isFirst = false;
    this.#cursor = batch.joins.at(-1)?.key;
    return batch;
  }
}

/** Whether this round asks about a join: a later round asks only about those that are undecided or were never asked. */
function isDue({ round, at, unaskedAfter }: CheckState, join: StoredJoin): boolean {
  return round === 0 || join.undecidedBy === at || (unaskedAfter !== undefined && isAfter(join.key, unaskedAfter));
}

/** Whether a key comes after another in the table's order, which is that of their bytes. */
function isAfter(key: string, other: string): boolean {
  return Buffer.compare(Buffer.from(key), Buffer.from(other)) > 0;
}

/** The later of two keys in the table's order. */
export function laterKey(one: string, other: string): string {
  return isAfter(one, other) ? one : other;
}

/** The earlier of two keys in the table's order. */
export function earlierKey(one: string, other: string): string {
  return isAfter(one, other) ? other : one;
}
