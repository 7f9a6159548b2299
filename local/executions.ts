import { mkdir, open, readFile, readdir, rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { ExecutionTimeoutError, StateMachine } from 'aws-local-stepfunctions';
import type { StateMachineDefinition } from './assembly.ts';

/**
 * Durable executions of one state machine.
 *
 * aws-local-stepfunctions interprets the definition, and stores nothing. The journal here stores the state that each
 * execution is in, the state's input, and when the state was entered. After a restart the execution continues from that
 * state: a Wait state for the rest of its time, any other state from its start.
 */
type Status = 'RUNNING' | 'SUCCEEDED' | 'FAILED' | 'TIMED_OUT' | 'ABORTED';

/** An execution has started or ended. Times are in milliseconds since the epoch. */
export interface ExecutionEvent {
  readonly status: Status;
  readonly startedAt: number;
  /** When it entered this status. */
  readonly at: number;
}

export interface Execution {
  readonly name: string;
  readonly input: string;
  readonly startDate: number;
  readonly status: Status;
  readonly stopDate?: number;
  readonly output?: string;
  readonly error?: string;
  readonly cause?: string;
  /** States entered so far, which AWS bills for a Standard workflow. */
  readonly transitions: number;
  /** The current state: its name, its input, and when it was entered, in milliseconds since the epoch. */
  readonly state?: { readonly name: string; readonly input: unknown; readonly entered: number };
}

type States = Record<string, { Type: string; SecondsPath?: string; Seconds?: number } & Record<string, unknown>>;

/** Ended executions that are kept, so that their names cannot be used again. AWS keeps them for 90 days. */
const MAX_ENDED = 10_000;

export class Executions {
  readonly #machine: StateMachineDefinition;
  readonly #directory: string;
  readonly #invoke: (functionArn: string, event: unknown) => Promise<unknown>;
  readonly #observe: (event: ExecutionEvent) => void;
  readonly #known = new Map<string, Execution>();
  readonly #running = new Map<string, () => void>();
  readonly #writes = new Map<string, Promise<void>>();
  #closing = false;

  private constructor(
    machine: StateMachineDefinition,
    directory: string,
    invoke: (functionArn: string, event: unknown) => Promise<unknown>,
    observe: (event: ExecutionEvent) => void,
  ) {
    this.#machine = machine;
    this.#directory = directory;
    this.#invoke = invoke;
    this.#observe = observe;
  }

  /**
   * Opens the journal, and continues the executions that were running.
   *
   * @param observe is called when an execution starts or ends
   */
  static async open(
    machine: StateMachineDefinition,
    directory: string,
    invoke: (functionArn: string, event: unknown) => Promise<unknown>,
    observe: (event: ExecutionEvent) => void = () => undefined,
  ): Promise<Executions> {
    await mkdir(directory, { recursive: true });
    // throws if the definition is wrong; only here, because it takes a tenth of a second
    new StateMachine(machine.definition as never, { validationOptions: { checkArn: false } });
    const executions = new Executions(machine, directory, invoke, observe);
    for (const file of await readdir(directory)) {
      if (!file.endsWith('.json')) continue; // an incomplete write
      const execution = JSON.parse(await readFile(join(directory, file), 'utf8')) as Execution;
      executions.#known.set(execution.name, execution);
    }
    for (const execution of executions.#known.values()) if (execution.status === 'RUNNING') executions.#run(execution);
    return executions;
  }

  get(name: string): Execution | undefined {
    return this.#known.get(name);
  }

  /** Newest first. */
  list(status?: string): readonly Execution[] {
    return [...this.#known.values()]
      .filter((execution) => status === undefined || execution.status === status)
      .sort((a, b) => b.startDate - a.startDate);
  }

  /** Starts an execution. It is on disk before this returns. */
  async start(name: string, input: string): Promise<Execution> {
    const execution: Execution = { name, input, startDate: Date.now(), status: 'RUNNING', transitions: 0 };
    this.#known.set(name, execution);
    await this.#save(execution);
    this.#observe({ status: 'RUNNING', startedAt: execution.startDate, at: execution.startDate });
    this.#run(execution);
    return execution;
  }

  async stop(name: string, error?: string, cause?: string): Promise<Execution | undefined> {
    const execution = this.#known.get(name);
    if (execution?.status !== 'RUNNING') return execution;
    const abort = this.#running.get(name);
    await this.#end(name, {
      status: 'ABORTED',
      ...(error === undefined ? {} : { error }),
      ...(cause === undefined ? {} : { cause }),
    });
    abort?.();
    return this.#known.get(name);
  }

  /** Ends this process's work on running executions. The next start continues them. */
  async close(): Promise<void> {
    this.#closing = true;
    for (const abort of this.#running.values()) abort();
    await Promise.allSettled(this.#writes.values());
  }

  #run(execution: Execution): void {
    const { name } = execution;
    const { definition, input, waitTimeOverrides } = this.#resumption(execution);
    const machine = new StateMachine(definition as never, {
      validationOptions: { noValidate: true }, // `open` has validated it
    });
    const tasks = Object.entries(definition['States'] as States).filter(([, state]) => state.Type === 'Task');
    const run = machine.run(input as never, {
      noThrowOnAbort: true,
      overrides: {
        taskResourceLocalHandlers: Object.fromEntries(
          tasks.map(([task]) => [task, (parameters: unknown) => this.#task(parameters) as never]),
        ),
        waitTimeOverrides,
      },
      context: {
        Execution: {
          Name: name,
          Input: JSON.parse(execution.input) as never,
          StartTime: new Date(execution.startDate).toISOString(),
        },
      },
    });
    this.#running.set(name, run.abort);
    const journal = this.#follow(
      name,
      run.eventLogs as AsyncGenerator<{ type: string; timestamp: number; state?: { name: string; input: unknown } }>,
    );
    run.result.then(
      async (output) => {
        await journal;
        if (this.#known.get(name)?.status === 'RUNNING' && !this.#closing)
          await this.#end(name, { status: 'SUCCEEDED', output: JSON.stringify(output) });
      },
      async (error: unknown) => {
        await journal;
        const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
        if (!this.#closing)
          await this.#end(name, {
            status: error instanceof ExecutionTimeoutError ? 'TIMED_OUT' : 'FAILED',
            error: cause instanceof Error ? cause.name : 'Error',
            cause: String(cause),
          });
      },
    );
  }

  /** The definition, starting at the current state of the execution. */
  #resumption(execution: Execution): {
    definition: Record<string, unknown>;
    input: unknown;
    waitTimeOverrides: Record<string, number>;
  } {
    const { definition } = this.#machine;
    const { state } = execution;
    const states = definition['States'] as States;
    const resumed = state === undefined ? undefined : states[state.name];
    if (state === undefined || resumed === undefined)
      return { definition, input: JSON.parse(execution.input), waitTimeOverrides: {} };
    if (resumed.Type !== 'Wait')
      return { definition: { ...definition, StartAt: state.name }, input: state.input, waitTimeOverrides: {} };
    const seconds =
      resumed.Seconds ?? Number((state.input as Record<string, unknown>)[resumed.SecondsPath?.replace('$.', '') ?? '']);
    const rest = `${state.name} (rest)`;
    return {
      definition: { ...definition, StartAt: rest, States: { ...states, [rest]: resumed } },
      input: state.input,
      waitTimeOverrides: { [rest]: Math.max(0, state.entered + seconds * 1000 - Date.now()) },
    };
  }

  /** Does what `arn:aws:states:::lambda:invoke` does. */
  async #task(parameters: unknown): Promise<unknown> {
    const { FunctionName, Payload } = parameters as { FunctionName: string; Payload: unknown };
    return { StatusCode: 200, Payload: await this.#invoke(FunctionName, Payload) };
  }

  async #follow(
    name: string,
    events: AsyncGenerator<{ type: string; timestamp: number; state?: { name: string; input: unknown } }>,
  ): Promise<void> {
    for await (const { type, timestamp, state } of events) {
      const execution = this.#known.get(name);
      if (type !== 'StateEntered' || state === undefined || execution?.status !== 'RUNNING' || this.#closing) continue;
      // the journal has it under its own name, with the time when it was first entered
      if (state.name.endsWith(' (rest)')) continue;
      const transitions = execution.transitions + 1;
      await this.#save({
        ...execution,
        transitions,
        state: { name: state.name, input: state.input, entered: timestamp },
      });
    }
  }

  async #end(name: string, end: Pick<Execution, 'status' | 'output' | 'error' | 'cause'>): Promise<void> {
    const execution = this.#known.get(name);
    this.#running.delete(name);
    if (execution === undefined) return;
    const { state: _state, ...rest } = execution;
    const stopDate = Date.now();
    await this.#save({ ...rest, ...end, stopDate });
    this.#observe({ status: end.status, startedAt: execution.startDate, at: stopDate });
    const ended = [...this.#known.values()].filter(({ status }) => status !== 'RUNNING');
    for (const { name: oldest } of ended.slice(0, Math.max(0, ended.length - MAX_ENDED))) {
      this.#known.delete(oldest);
      await unlink(this.#file(oldest));
    }
  }

  #file(name: string): string {
    return join(this.#directory, `${name}.json`);
  }

  /** Writes an execution so that a crash leaves either the old or the new record. Each has one write at a time. */
  async #save(execution: Execution): Promise<void> {
    this.#known.set(execution.name, execution);
    const write = (this.#writes.get(execution.name) ?? Promise.resolve()).then(async () => {
      const file = this.#file(execution.name);
      const handle = await open(`${file}.new`, 'w');
      try {
        await handle.writeFile(JSON.stringify(execution));
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(`${file}.new`, file);
    });
    this.#writes.set(execution.name, write);
    try {
      await write;
    } finally {
      if (this.#writes.get(execution.name) === write) this.#writes.delete(execution.name);
    }
  }
}
