import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { setImmediate as turn } from 'node:timers/promises';
import type { ClientRequest } from 'node:http';
import { random } from '../random.ts';

/**
 * Turns of the event loop without a request under way, after which nothing more happens at this moment. A turn carries
 * out all promises that are ready, and what reaches a socket of this process is read in the next one.
 */
const QUIET_TURNS = 4;
/** A request of this process to itself that takes longer, in real milliseconds, never ends. */
const LONGEST_REQUEST_MS = 60_000;
const SEED = 410;

interface Timer {
  at: number;
  /** Timers of one moment fire in the order in which they were set. */
  readonly order: number;
  act: (() => void) | undefined;
}

const REAL = {
  Date: globalThis.Date,
  setTimeout: globalThis.setTimeout,
  clearTimeout: globalThis.clearTimeout,
  setInterval: globalThis.setInterval,
  clearInterval: globalThis.clearInterval,
  timeout: AbortSignal.timeout.bind(AbortSignal),
  random: Math.random,
};

/**
 * A clock for this whole process: it stands still while anything happens, and then jumps to the next timer. What runs
 * meanwhile sees it as Date, setTimeout, setInterval and AbortSignal.timeout. Math.random is the same in each run.
 *
 * HTTP requests of this process to itself are real. They take no time, except where the server waits by `hold`.
 */
export class VirtualClock {
  /** Milliseconds since the epoch. */
  #now: number;
  #order = 0;
  readonly #timers: Timer[] = []; // a heap: the first is the next
  /** HTTP requests under way, and those of them that the server lets wait. */
  #requests = 0;
  #held = 0;

  private constructor(startMs: number) {
    this.#now = startMs;
  }

  /** Replaces the clock of this process, until `uninstall`. */
  static install(startMs: number): VirtualClock {
    const clock = new VirtualClock(startMs);
    subscribe('http.client.request.start', clock.#onRequest);
    const now = (): number => clock.#now;
    globalThis.Date = class extends REAL.Date {
      constructor(...values: readonly unknown[]) {
        super(...((values.length === 0 ? [now()] : values) as [number]));
      }
      static override now(): number {
        return now();
      }
    } as DateConstructor;
    const every = (act: () => void, ms: number): object => {
      const handle = clock.#set(() => {
        clock.#schedule(handle.timer, ms, handle.act);
        act();
      }, ms);
      return handle;
    };
    const clear = (handle: unknown): void => {
      if (handle instanceof Handle) handle.timer.act = undefined;
    };
    Object.assign(globalThis, {
      setTimeout: (act: (...values: unknown[]) => void, ms = 0, ...values: unknown[]) =>
        clock.#set(() => act(...values), ms),
      setInterval: (act: (...values: unknown[]) => void, ms = 0, ...values: unknown[]) =>
        every(() => act(...values), ms),
      clearTimeout: clear,
      clearInterval: clear,
    });
    AbortSignal.timeout = (ms) => {
      const controller = new AbortController();
      clock.#set(() => controller.abort(new DOMException('The operation timed out', 'TimeoutError')), ms);
      return controller.signal;
    };
    Math.random = random(SEED);
    return clock;
  }

  /** Gives this process its own clock again. */
  uninstall(): void {
    unsubscribe('http.client.request.start', this.#onRequest);
    const { Date, setTimeout, clearTimeout, setInterval, clearInterval } = REAL;
    Object.assign(globalThis, { Date, setTimeout, clearTimeout, setInterval, clearInterval });
    AbortSignal.timeout = REAL.timeout;
    Math.random = REAL.random;
  }

  get now(): number {
    return this.#now;
  }

  /** Waits for virtual milliseconds. */
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.#set(resolve, ms));
  }

  /** The server of an HTTP request lets it wait until the promise is settled: meanwhile, time passes. */
  async hold<Result>(until: Promise<Result>): Promise<Result> {
    this.#held += 1;
    try {
      return await until;
    } finally {
      this.#held -= 1;
    }
  }

  /** Lets so much time pass, with everything that is due meanwhile. @throws if a request never ends */
  async pass(ms: number): Promise<void> {
    const end = this.#now + ms;
    await this.#settle();
    for (let next = this.#next(); next !== undefined && next.at <= end; next = this.#next()) {
      const { at } = next;
      this.#now = at;
      while (this.#next()?.at === at) this.#take()?.();
      await this.#settle();
    }
    this.#now = end;
  }

  readonly #onRequest = (message: unknown): void => {
    const { request } = message as { request: ClientRequest };
    this.#requests += 1;
    request.once('close', () => (this.#requests -= 1));
  };

  /** Waits until nothing more happens at this moment. */
  async #settle(): Promise<void> {
    const began = REAL.Date.now();
    for (let quiet = 0; quiet < QUIET_TURNS;) {
      await turn();
      const isQuiet = this.#requests <= this.#held;
      quiet = isQuiet ? quiet + 1 : 0;
      if (!isQuiet && REAL.Date.now() - began > LONGEST_REQUEST_MS)
        throw new Error(`${this.#requests} requests have not ended, and the server holds ${this.#held}`);
    }
  }

  #set(act: () => void, ms: number): Handle {
    const timer: Timer = { at: 0, order: (this.#order += 1), act: undefined };
    const handle = new Handle(timer, act);
    this.#schedule(timer, ms, act);
    return handle;
  }

  #schedule(timer: Timer, ms: number, act: () => void): void {
    timer.at = this.#now + Math.max(1, Math.trunc(Number.isFinite(ms) ? ms : 1));
    timer.act = act;
    const { length } = this.#timers;
    this.#timers.push(timer);
    for (let child = length; child > 0;) {
      const parent = (child - 1) >> 1;
      if (!this.#isEarlier(child, parent)) break;
      this.#swap(child, parent);
      child = parent;
    }
  }

  /** The next timer that was not cleared. */
  #next(): Timer | undefined {
    while (this.#timers[0] !== undefined && this.#timers[0].act === undefined) this.#take();
    return this.#timers[0];
  }

  #take(): (() => void) | undefined {
    const [first] = this.#timers;
    const last = this.#timers.pop();
    if (first === undefined || last === undefined) return undefined;
    if (this.#timers.length > 0) {
      this.#timers[0] = last;
      for (let parent = 0; ;) {
        const [left, right] = [2 * parent + 1, 2 * parent + 2];
        const child = this.#isEarlier(right, left) ? right : left;
        if (!this.#isEarlier(child, parent)) break;
        this.#swap(child, parent);
        parent = child;
      }
    }
    const { act } = first;
    first.act = undefined;
    return act;
  }

  #isEarlier(one: number, other: number): boolean {
    const [a, b] = [this.#timers[one], this.#timers[other]];
    return a !== undefined && b !== undefined && (a.at - b.at || a.order - b.order) < 0;
  }

  #swap(one: number, other: number): void {
    const [a, b] = [this.#timers[one], this.#timers[other]];
    if (a === undefined || b === undefined) return;
    this.#timers[one] = b;
    this.#timers[other] = a;
  }
}

/** What setTimeout returns. Nothing here keeps the process running, so it is never unreferenced. */
class Handle {
  readonly timer: Timer;
  readonly act: () => void;

  constructor(timer: Timer, act: () => void) {
    this.timer = timer;
    this.act = act;
  }
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }
  hasRef(): boolean {
    return true;
  }
}
