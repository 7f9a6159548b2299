import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { AlarmChange } from './alarm-evaluator.ts';

/** Where an alarm's changes are delivered on one machine, in place of the topics of the stack. */
export interface Delivery {
  /** A program that reads the change as JSON from its standard input. */
  readonly command: string | undefined;
  /** An http or https URL that takes the change as JSON by POST. */
  readonly url: string | undefined;
}

/** How long a delivery may take, in milliseconds. */
const TIMEOUTS = { command: 30_000, url: 10_000 };
/** Changes that wait for their delivery. Further ones are logged, and not delivered. */
const MAX_WAITING = 100;
/** Of what a failed command wrote to standard error. */
const MAX_DETAIL = 500;

/** Delivers changes one after the other. */
export class Notifier {
  readonly #delivery: Delivery;
  readonly #warn: (message: string, detail: string) => void;
  readonly #timeouts: typeof TIMEOUTS;
  readonly #waiting: AlarmChange[] = [];
  readonly #closing = new AbortController();
  #delivering: Promise<void> | undefined;

  /** @param warn is called if a delivery fails. The detail contains no path or query of the URL: they can be secret. */
  constructor(delivery: Delivery, warn: (message: string, detail: string) => void, timeouts = TIMEOUTS) {
    this.#delivery = delivery;
    this.#warn = warn;
    this.#timeouts = timeouts;
  }

  /** Delivers a change, unless the template notifies nobody of it. */
  notify(change: AlarmChange): void {
    const { command, url } = this.#delivery;
    if (change.actions.length === 0 || (command ?? url) === undefined || this.#closing.signal.aborted) return;
    if (this.#waiting.length >= MAX_WAITING) {
      this.#warn('an alarm is not delivered', `${change.name}: ${MAX_WAITING} wait already`);
      return;
    }
    this.#waiting.push(change);
    this.#delivering ??= this.#deliverAll().finally(() => (this.#delivering = undefined));
  }

  /** Resolves when nothing waits any more. */
  async settled(): Promise<void> {
    await this.#delivering;
  }

  /** Ends the delivery that is under way. What waits is logged, and not delivered. */
  async close(): Promise<void> {
    this.#closing.abort(new Error('the runtime stops'));
    await this.#delivering;
  }

  async #deliverAll(): Promise<void> {
    for (let change = this.#waiting.shift(); change !== undefined; change = this.#waiting.shift()) {
      const { command, url } = this.#delivery;
      const body = JSON.stringify(change);
      const { signal } = this.#closing;
      if (command !== undefined) await this.#try(change, () => run(command, body, signal, this.#timeouts.command));
      if (url !== undefined) await this.#try(change, () => post(url, body, signal, this.#timeouts.url));
    }
  }

  async #try({ name }: AlarmChange, deliver: () => Promise<void>): Promise<void> {
    try {
      this.#closing.signal.throwIfAborted();
      await deliver();
    } catch (error) {
      this.#warn('an alarm is not delivered', `${name}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}

/** Runs a program without a shell, and without our environment, which contains the webhook secret. */
async function run(command: string, input: string, signal: AbortSignal, timeout: number): Promise<void> {
  const { PATH, HOME, LANG } = process.env;
  const child = spawn(command, [], {
    env: { PATH, HOME, LANG },
    stdio: ['pipe', 'ignore', 'pipe'],
    timeout,
    killSignal: 'SIGKILL',
    signal,
  });
  let detail = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    detail = (detail + text).slice(-MAX_DETAIL);
  });
  child.stdin.on('error', () => undefined); // a program may end without reading; its exit code tells whether it failed
  child.stdin.end(`${input}\n`);
  const [code, ended] = (await once(child, 'close')) as [number | null, string | null];
  if (code !== 0) throw new Error(`the alarm command ended with ${code ?? ended}: ${detail.trim()}`);
}

async function post(url: string, body: string, signal: AbortSignal, timeout: number): Promise<void> {
  const { origin } = new URL(url);
  const response = await fetch(url, {
    method: 'POST',
    body,
    headers: { 'content-type': 'application/json' },
    redirect: 'error',
    signal: AbortSignal.any([signal, AbortSignal.timeout(timeout)]),
  }).catch((error: unknown) => {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    throw new Error(`${origin} cannot be reached: ${cause instanceof Error ? cause.message : String(cause)}`);
  });
  await response.body?.cancel();
  if (!response.ok) throw new Error(`${origin} answered ${response.status}`);
}
