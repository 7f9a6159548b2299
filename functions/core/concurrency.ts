/** Runs tasks at the same time, within limits. */

/** Runs tasks, at most `limit` at a time. Throws the first failure, but only when all tasks that began have ended. */
export async function inParallel(tasks: readonly (() => Promise<void>)[], limit: number): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let task = tasks[next++]; task !== undefined; task = tasks[next++]) await task();
  };
  await allToTheirEnd(Array.from({ length: Math.min(limit, tasks.length) }, worker));
}

/** Returns when all have ended. @throws the first failure */
export async function allToTheirEnd(promises: readonly Promise<void>[]): Promise<void> {
  const ends = await Promise.allSettled(promises);
  const failure = ends.find((end) => end.status === 'rejected');
  if (failure) throw failure.reason;
}

/**
 * Tasks that can wait. None begins until more than `mayWait` tasks were added, or until the end, so that more urgent
 * work goes first. Then they run in their order, at most `atATime` at a time.
 */
export class Backlog {
  readonly #atATime: number;
  readonly #mayWait: number;
  #waiting: (() => Promise<void>)[] = [];
  readonly #running = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | undefined;

  constructor(atATime: number, mayWait: number) {
    this.#atATime = atATime;
    this.#mayWait = mayWait;
  }

  /**
   * Takes a task. Returns when no more than `mayWait` are unfinished.
   * @throws what a task has thrown; after that no other task begins
   */
  async add(task: () => Promise<void>): Promise<void> {
    this.#waiting.push(task);
    await this.#finishDownTo(this.#mayWait);
  }

  /** Runs all waiting tasks. Returns when they are done. @throws what a task has thrown */
  async end(): Promise<void> {
    await this.#finishDownTo(0);
  }

  async #finishDownTo(most: number): Promise<void> {
    for (;;) {
      if (this.#failure !== undefined) this.#waiting = [];
      const tooMany = this.#waiting.length + this.#running.size - most;
      if (tooMany <= 0) break;
      while (this.#running.size < Math.min(this.#atATime, tooMany)) this.#begin();
      await Promise.race(this.#running);
    }
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #begin(): void {
    const task = this.#waiting.shift();
    if (task === undefined) return;
    const running = task()
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => this.#running.delete(running));
    this.#running.add(running);
  }
}
