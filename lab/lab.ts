import { mkdtemp, rm } from 'node:fs/promises';
import { type Server, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Authority } from './authority.ts';

/**
 * A laboratory on loopback: its own block of addresses 127.a.b.*, its own folder, and everything that was started in
 * it.
 *
 * XMPP domains are addresses here, so that servers find each other without DNS.
 */
export class Lab {
  readonly directory: string;
  readonly #prefix: string;
  readonly #claim: Server;
  readonly #started: { stop(): Promise<void> }[] = [];
  #authority: Promise<Authority> | undefined;

  private constructor(directory: string, prefix: string, claim: Server) {
    this.directory = directory;
    this.#prefix = prefix;
    this.#claim = claim;
  }

  static async open(): Promise<Lab> {
    const directory = await mkdtemp(join(tmpdir(), 'ping-muc-'));
    for (let attempt = 0; attempt < 100; attempt += 1) {
      const prefix = `127.${random(64, 250)}.${random(0, 255)}`;
      const claim = createServer();
      const claimed = await new Promise<boolean>((resolve) => {
        claim.once('error', () => resolve(false)).listen(5269, `${prefix}.250`, () => resolve(true));
      });
      if (claimed) return new Lab(directory, prefix, claim);
    }
    throw new Error(
      'no free loopback addresses: is an XMPP server listening on port 5269 of all addresses? Stop it while this runs',
    );
  }

  /** The n-th address of the block. */
  address(n: number): string {
    return `${this.#prefix}.${n}`;
  }

  /** The authority that issues the certificates of this lab's servers. */
  authority(): Promise<Authority> {
    this.#authority ??= Authority.open(this.directory);
    return this.#authority;
  }

  /** Registers a part of the lab, which is stopped when the lab closes. */
  keep<Part extends { stop(): Promise<void> }>(part: Part): Part {
    this.#started.push(part);
    return part;
  }

  /** Stops everything, in reverse order, and removes the folder. */
  async close(): Promise<void> {
    for (const part of this.#started.reverse()) await part.stop();
    this.#claim.close();
    if (process.env['LAB_KEEP'] === undefined) await rm(this.directory, { recursive: true, force: true });
  }
}

function random(from: number, to: number): number {
  return from + Math.floor(Math.random() * (to - from + 1));
}

/** Waits until the probe returns a value. @throws if it does not within `milliseconds` */
export async function until<Value>(
  what: string,
  probe: () => Value | undefined | false | Promise<Value | undefined | false>,
  milliseconds = 10_000,
): Promise<Value> {
  const end = Date.now() + milliseconds;
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > end) throw new Error(`not within ${milliseconds} ms: ${what}`);
    await sleep(25);
  }
}

export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
