/** Tasks at the same time, within bounds. */

/** Runs tasks, at most `limit` of them at a time. All that began come to an end before the first failure is thrown. */
export async function inParallel(tasks: readonly (() => Promise<void>)[], limit: number): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let task = tasks[next++]; task !== undefined; task = tasks[next++]) await task();
  };
  await allToTheirEnd(Array.from({ length: Math.min(limit, tasks.length) }, worker));
}

/** Returns once all have ended. @throws the first failure */
export async function allToTheirEnd(promises: readonly Promise<void>[]): Promise<void> {
  const ends = await Promise.allSettled(promises);
  const failure = ends.find((end) => end.status === 'rejected');
  if (failure) throw failure.reason;
}

/**
 * Tasks that can wait: none begins until more than `mayWait` have been handed in, or until the end, so that what is more
 * urgent goes first. Then they run in their order, at most `atATime` of them at a time.
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

  /** Takes a task, and returns once no more than `mayWait` are unfinished. @throws what a task has thrown; then none is begun */
  async add(task: () => Promise<void>): Promise<void> {
    this.#waiting.push(task);
    await this.#finishDownTo(this.#mayWait);
  }

  /** Runs all that wait, and returns once all is done. @throws what a task has thrown */
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
