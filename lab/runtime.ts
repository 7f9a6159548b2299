import { type ChildProcess, spawn } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { RELEASE_COMMAND } from '../local/installation.ts';
import { SERVERS, type ServerName } from '../infra/server-settings.ts';
import { type Lab, until } from './lab.ts';
import { PrintedSettings } from './printed-settings.ts';

const MAIN = fileURLToPath(new URL('main.ts', import.meta.url));
/** With the same limit of short-lived memory as npm start. */
const TREE = [process.execPath, '--max-semi-space-size=4', MAIN] as const;

export type LogLine = Readonly<Record<string, unknown>>;

export interface RuntimeOptions {
  readonly host?: string;
  readonly serverApi?: string;
  /** Variables in addition to those of this process; a release gets only `PATH` of those. */
  readonly environment?: NodeJS.ProcessEnv;
  /** The command of an unpacked release, to run that. By default it is the one that contains this code, if any. */
  readonly release?: string;
}

/** `npm start`, as a process of the lab. */
export class Runtime {
  readonly host: string;
  readonly port = 8787;
  readonly data: string;
  readonly lines: LogLine[] = [];
  /** What it has printed. */
  output = '';
  /** The settings that it wrote. */
  printed = new PrintedSettings(new Map());
  /** Variables for it, in addition to those of this process; a release gets only `PATH` of those. */
  readonly environment: NodeJS.ProcessEnv;
  readonly #release: string | undefined;
  #process: ChildProcess | undefined;

  private constructor(
    lab: Lab,
    { host = lab.address(1), release = RELEASE_COMMAND }: RuntimeOptions,
    environment: NodeJS.ProcessEnv,
  ) {
    this.host = host;
    this.#release = release;
    this.data = join(lab.directory, 'data');
    this.environment = environment;
  }

  static async start(lab: Lab, options: RuntimeOptions = {}): Promise<Runtime> {
    const runtime = new Runtime(lab, options, {
      PING_MUC_SERVER_API: options.serverApi ?? 'http://{host}:5280/ping_muc',
      PING_MUC_CONSOLE: 'off', // all labs would have it on the same address
      ...options.environment,
    });
    lab.keep(runtime);
    await runtime.start();
    return runtime;
  }

  async start(): Promise<void> {
    const [command, ...words] = this.#release === undefined ? TREE : [this.#release, 'start'];
    const inherited = this.#release === undefined ? process.env : { PATH: process.env['PATH'] };
    const options = ['--host', this.host, '--port', String(this.port), '--data', this.data];
    const child = spawn(command, [...words, ...options], {
      env: { ...inherited, ...this.environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#process = child;
    let logTail = '';
    let isListening = false;
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.output += text;
    });
    createInterface({ input: child.stderr }).on('line', (line) => {
      logTail = `${logTail}${line}\n`.slice(-4000);
      appendFileSync(`${this.data}.log`, `${line}\n`);
      const parsed = parseLine(line);
      if (parsed === undefined) return;
      this.lines.push(parsed);
      if (parsed['message'] === 'listening') isListening = true;
    });
    child.on('exit', () => {
      if (this.#process === child) this.#process = undefined;
    });
    await until(
      'the runtime listens',
      () => {
        if (this.#process === undefined) throw new Error(`the runtime ended: ${logTail}`);
        return isListening;
      },
      60_000,
    );
    const written = Object.entries(SERVERS).map(
      async ([server, { file }]) => [server as ServerName, await readFile(join(this.data, file), 'utf8')] as const,
    );
    this.printed = new PrintedSettings(new Map(await Promise.all(written)));
  }

  get webhookUrl(): string {
    return `http://${this.host}:${this.port}/webhooks`;
  }

  /** The webhook secret. */
  get secret(): string {
    return /ping_muc_secret = "(.*)"/.exec(this.settingsFor('prosody'))?.[1] ?? '';
  }

  /** The console's URL, if it is served: with `PING_MUC_CONSOLE` in the environment. */
  get consoleUrl(): string {
    const url = this.lines.findLast(({ message }) => message === 'listening')?.['console'];
    return typeof url === 'string' ? url : '';
  }

  /** The settings that it wrote for a server. */
  settingsFor(server: ServerName): string {
    return this.printed.settingsFor(server);
  }

  /** Waits for a log line. */
  line(message: string, matches: (line: LogLine) => boolean = () => true, milliseconds = 30_000): Promise<LogLine> {
    return until(
      `the log has a line "${message}"`,
      () => this.lines.find((line) => line['message'] === message && matches(line)),
      milliseconds,
    );
  }

  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<number | null> {
    const child = this.#process;
    if (child === undefined) return null;
    return new Promise((resolve) => {
      child.once('exit', (status) => resolve(status));
      child.kill(signal);
    });
  }

  /** Kills it, and starts it with other variables; undefined removes a variable. */
  async restart(changes: NodeJS.ProcessEnv = {}): Promise<void> {
    await this.end('SIGKILL');
    Object.assign(this.environment, changes);
    await this.start();
  }

  async stop(): Promise<void> {
    await this.end('SIGTERM');
  }
}

/** A log line of the functions. */
export function parseLine(line: string): LogLine | undefined {
  try {
    return JSON.parse(line) as LogLine;
  } catch {
    return undefined;
  }
}
