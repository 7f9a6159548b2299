import { randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';
import { Worker } from 'node:worker_threads';
import type { FunctionDefinition } from './assembly.ts';
import type { Invocation, Outcome } from './function-worker.ts';
import { FUNCTION_WORKER } from './installation.ts';

/** A function on one machine: its bundle in a worker thread, which is restarted after it ends. */
export class LocalFunction {
  readonly #definition: FunctionDefinition;
  readonly #environment: Readonly<Record<string, string>>;
  readonly #log: (line: string) => void;
  readonly #waiting = new Map<
    number,
    { resolve: (result: unknown) => void; reject: (error: Error) => void; timer: NodeJS.Timeout }
  >();
  #worker: Worker | undefined;
  #last = 0;

  /** @param environment variables in addition to the function's own: the URLs of the services, for the SDK */
  constructor(
    definition: FunctionDefinition,
    environment: Readonly<Record<string, string>>,
    log: (line: string) => void,
  ) {
    this.#definition = definition;
    this.#environment = environment;
    this.#log = log;
    this.#start();
  }

  /** @throws an error with the name of the handler's error, which the retries of the workflow match */
  invoke(event: unknown): Promise<unknown> {
    this.#last += 1;
    const invocation: Invocation = { id: this.#last, requestId: randomUUID(), event };
    const worker = this.#worker ?? this.#start();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#settle({
          id: invocation.id,
          error: { name: 'Sandbox.Timedout', message: `no result after ${this.#definition.timeoutSeconds} s` },
        });
      }, this.#definition.timeoutSeconds * 1000);
      this.#waiting.set(invocation.id, { resolve, reject, timer });
      worker.postMessage(invocation);
    });
  }

  async close(): Promise<void> {
    await this.#worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(FUNCTION_WORKER, {
      workerData: this.#definition,
      env: { ...this.#environment, ...this.#definition.environment },
      stdout: true,
      stderr: true,
      resourceLimits: { maxOldGenerationSizeMb: this.#definition.memoryMegabytes },
    });
    this.#worker = worker;
    for (const stream of [worker.stdout, worker.stderr]) createInterface({ input: stream }).on('line', this.#log);
    worker.on('message', (outcome: Outcome) => this.#settle(outcome));
    worker.on('error', (error) =>
      this.#log(
        JSON.stringify({
          level: 'ERROR',
          message: 'function died',
          function: this.#definition.name,
          detail: String(error),
        }),
      ),
    );
    worker.on('exit', () => {
      if (this.#worker === worker) this.#worker = undefined;
      for (const id of [...this.#waiting.keys()])
        this.#settle({ id, error: { name: 'Lambda.Unknown', message: 'the function died' } });
    });
    return worker;
  }

  #settle(outcome: Outcome): void {
    const waiting = this.#waiting.get(outcome.id);
    if (waiting === undefined) return; // the result arrived after the time-out
    this.#waiting.delete(outcome.id);
    clearTimeout(waiting.timer);
    if ('error' in outcome)
      waiting.reject(Object.assign(new Error(outcome.error.message), { name: outcome.error.name }));
    else waiting.resolve(outcome.result);
  }
}
