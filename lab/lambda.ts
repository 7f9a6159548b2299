import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { type FunctionDefinition, REGION } from '../local/assembly.ts';
import { type Lab, until } from './lab.ts';
import { LAMBDA_TOOLS } from './lambda-tools.ts';
import { type LogLine, parseLine } from './runtime.ts';

const START_TIMEOUT_MS = 20_000;
const INVOCATION_TIMEOUT_MS = 120_000;
const [INVOCATIONS_PORT, RUNTIME_API_PORT] = [8080, 9001] as const;

/** An invocation ended in an error: its name and its message, as the retries of the workflow see them. */
class InvocationError extends Error {
  constructor(name: string, message: string) {
    super(message);
    this.name = name;
  }
}

export interface LambdaOptions {
  /** An address of the lab, for this function alone. */
  readonly address: string;
  /** Variables in addition to the function's own. */
  readonly environment: Readonly<Record<string, string>>;
  /** By default, that of the deployment. */
  readonly timeoutSeconds?: number;
}

/**
 * The bundle of a function, run by AWS's own parts of Lambda (lambda-tools.ts installs them). As in Lambda, one
 * invocation runs at a time.
 */
export class Lambda {
  /** Log lines of the function. */
  readonly lines: LogLine[] = [];
  /** Lines that the function has written otherwise: by the console, to standard error, or by Node. */
  readonly otherLines: string[] = [];
  readonly #address: string;
  readonly #directory: string;
  readonly #emulator: ChildProcessByStdio<null, Readable, Readable>;
  /** The end of the emulator's own log. */
  #log = '';
  /** Invocations that the emulator has begun. */
  #begun = 0;

  private constructor(address: string, directory: string, emulator: ChildProcessByStdio<null, Readable, Readable>) {
    this.#address = address;
    this.#directory = directory;
    this.#emulator = emulator;
    emulator.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#log = (this.#log + text).slice(-4000);
    });
    createInterface({ input: emulator.stdout }).on('line', (line) => {
      if (line.startsWith('START RequestId:')) this.#begun += 1;
      const parsed = parseLine(line);
      if (parsed !== undefined) this.lines.push(parsed);
      else if (!/^(?:START|END|REPORT) RequestId:/.test(line)) this.otherLines.push(line);
    });
  }

  static async start(lab: Lab, definition: FunctionDefinition, options: LambdaOptions): Promise<Lambda> {
    const { address, environment, timeoutSeconds = definition.timeoutSeconds } = options;
    const directory = join(lab.directory, `lambda-${address}`);
    await mkdir(directory, { recursive: true });
    const bootstrap = join(directory, 'bootstrap');
    const start = `exec '${process.execPath}' '${LAMBDA_TOOLS.client}' "$1" 2>&1`;
    await writeFile(bootstrap, `#!/bin/sh\necho $$ > '${directory}/pid'\n${start}\n`, { mode: 0o755 });
    const taskRoot = dirname(definition.file);
    const child = spawn(
      LAMBDA_TOOLS.emulator,
      [
        ...['--runtime-interface-emulator-address', `${address}:${INVOCATIONS_PORT}`],
        ...['--runtime-api-address', `${address}:${RUNTIME_API_PORT}`],
        ...[bootstrap, `index.${definition.handler}`],
      ],
      {
        cwd: taskRoot,
        env: {
          PATH: process.env['PATH'],
          LAMBDA_TASK_ROOT: taskRoot,
          AWS_REGION: REGION,
          AWS_ACCESS_KEY_ID: definition.name,
          AWS_SECRET_ACCESS_KEY: 'local',
          AWS_LAMBDA_FUNCTION_TIMEOUT: String(timeoutSeconds),
          AWS_LAMBDA_FUNCTION_MEMORY_SIZE: String(definition.memoryMegabytes),
          ...definition.environment,
          ...environment,
        },
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    const lambda = lab.keep(new Lambda(address, directory, child));
    await until('the emulator of Lambda listens', () => lambda.#listens(), START_TIMEOUT_MS);
    return lambda;
  }

  #listens(): Promise<boolean> {
    if (this.#emulator.exitCode !== null) throw new Error(`the emulator of Lambda ended: ${this.#log}`);
    return new Promise((resolve) => {
      const socket = connect(INVOCATIONS_PORT, this.#address, () => resolve(true));
      socket.on('error', () => resolve(false)).on('connect', () => socket.destroy());
    });
  }

  /** Invokes the function, which is initialised first if it does not run. @throws InvocationError */
  async invoke(event: unknown): Promise<unknown> {
    const url = `http://${this.#address}:${INVOCATIONS_PORT}/2015-03-31/functions/function/invocations`;
    const signal = AbortSignal.timeout(INVOCATION_TIMEOUT_MS);
    const response = await fetch(url, { method: 'POST', body: JSON.stringify(event), signal });
    const text = await response.text();
    if (text.startsWith('Task timed out')) throw new InvocationError('Sandbox.Timedout', text);
    const result = JSON.parse(text) as { readonly errorType?: string; readonly errorMessage?: string } | null;
    if (result?.errorType !== undefined) throw new InvocationError(result.errorType, result.errorMessage ?? '');
    return result;
  }

  /** Stops the function's process as it is, as Lambda does between invocations. */
  async freeze(): Promise<void> {
    process.kill(-(await this.pid()), 'SIGSTOP');
  }

  /** Invokes a frozen function: as in Lambda, it runs again because there is an event for it. */
  async thaw(event: unknown): Promise<unknown> {
    const [before, pid] = [this.#begun, await this.pid()];
    const run = until('the invocation begins', () => this.#begun > before).then(() => process.kill(-pid, 'SIGCONT'));
    const [result] = await Promise.all([this.invoke(event), run]);
    return result;
  }

  /** The id of the function's process, and of its group. */
  async pid(): Promise<number> {
    return Number(await readFile(join(this.#directory, 'pid'), 'utf8'));
  }

  async stop(): Promise<void> {
    const pid = await this.pid().catch(() => undefined);
    const ended = this.#emulator.exitCode === null ? once(this.#emulator, 'exit') : undefined;
    this.#emulator.kill('SIGKILL'); // it has nothing to save
    await ended;
    try {
      if (pid !== undefined) process.kill(-pid, 'SIGKILL');
    } catch {
      // it has ended
    }
  }
}
