import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { Population, RealRooms } from '../lab/population.ts';
import { Lab } from '../lab/lab.ts';
import { Prosody } from '../lab/prosody.ts';
import type { XmppServer } from '../lab/xmpp-server.ts';

const folder = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/**
 * The global section and a host's section of a server's configuration, to run mod_bench together with other modules.
 */
export const BENCH_GLOBAL = `plugin_paths = { "${folder('../prosody')}", "${folder('.')}" }`;
export const benchModules = (...others: readonly string[]): string =>
  `modules_enabled = { ${['bench', ...others].map((name) => `"${name}"`).join(', ')} }`;
/** Long, because a slow check must be measured, too. */
const TIMEOUT_MS = 600_000;

/** Measurements of the event loop, in milliseconds. */
export interface Stalls {
  readonly median: number;
  readonly p99: number;
  /** The longest time for which a timer that was due did not fire, whatever else the machine did. */
  readonly longest: number;
  /** The most processor time that the server used between two timer events. */
  readonly own: number;
}

/** A client of a server's mod_bench. */
export class BenchModule {
  readonly #url: string;

  constructor(server: Pick<XmppServer, 'host'>) {
    this.#url = `http://${server.host}:5280/bench`;
  }

  /** A raw ping for each join: how many of them their rooms confirm, and how long they all take, in seconds. */
  pings(): Promise<{ readonly results: number; readonly seconds: number }> {
    return this.#ask('POST', 'pings');
  }

  /** Processor time of the server so far, in seconds; the joins that it knows; the s2s connections that have closed. */
  use(): Promise<{ readonly cpu: number; readonly joins: number; readonly closes: number }> {
    return this.#ask('GET', 'use');
  }

  /** What Lua holds after a full collection, in megabytes. */
  async held(): Promise<number> {
    return (await this.#ask<{ held: number }>('GET', 'memory')).held / 1024;
  }

  /** What the event loop did from when a check was due until it was done: two moments in milliseconds. */
  async watch<Check extends { readonly due: number; readonly doneAt: number }>(
    meanwhile: () => Promise<Check>,
  ): Promise<Stalls & { readonly value: Check }> {
    await this.#ask('POST', 'watch');
    const value = await meanwhile();
    return {
      ...(await this.#ask<Stalls>('POST', `watched?from=${value.due / 1000}&to=${value.doneAt / 1000}`)),
      value,
    };
  }

  /** The last check of the in-server approach, after it is done. */
  inServer(): Promise<{ readonly done: false } | { readonly done: true; readonly seconds: number }> {
    return this.#ask('GET', 'in_server');
  }

  async #ask<Answer>(method: string, path: string): Promise<Answer> {
    const response = await fetch(`${this.#url}/${path}`, { method, signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!response.ok) throw new Error(`mod_bench answered ${response.status} to ${path}`);
    return (await response.json()) as Answer;
  }
}

/** The most memory that a server has had since `forgetPeak`, in megabytes. */
export async function peak({ pid }: Pick<XmppServer, 'pid'>): Promise<number> {
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

export async function forgetPeak({ pid }: Pick<XmppServer, 'pid'>): Promise<void> {
  await writeFile(`/proc/${pid}/clear_refs`, '5'); // proc(5)
}

export interface Pair {
  readonly lab: Lab;
  readonly home: Prosody;
  readonly away: Prosody;
  readonly population: Population;
  readonly bench: BenchModule;
}

/** Two real servers and many users, without the functions. @param forHost the section of the users' host */
export async function openPair(joins: number, forHost: (lab: Lab) => string | Promise<string>): Promise<Pair> {
  const lab = await Lab.open();
  try {
    const home = await Prosody.start(lab, {
      host: lab.address(2),
      users: Population.users(joins),
      global: BENCH_GLOBAL,
      forHost: await forHost(lab),
    });
    const domain = lab.address(4);
    const away = await Prosody.start(lab, { host: lab.address(3), mucs: [domain] });
    const population = await Population.open(lab, home, new RealRooms(away, domain), joins);
    return { lab, home, away, population, bench: new BenchModule(home) };
  } catch (error) {
    await lab.close();
    throw error;
  }
}
