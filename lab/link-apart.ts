import { once } from 'node:events';
import { MessageChannel, type MessagePort, Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { type Direction, Link } from './link.ts';

/** What a test does to the way to a server. */
export type Way = Pick<Link, 'mend' | 'cut' | 'drop' | 'hold' | 'release' | 'stop'>;

type Order =
  readonly [what: 'mend' | 'cut' | 'drop' | 'stop'] | readonly [what: 'hold' | 'release', direction: Direction];

interface Asked {
  readonly order: Order;
  readonly reply: MessagePort;
}

/** A link in a thread of its own: what passes does not wait for what the test itself has to do. */
export class LinkApart implements Way {
  readonly #worker: Worker;

  constructor(address: string, from: number, to: number) {
    this.#worker = new Worker(new URL(import.meta.url), { workerData: [address, from, to] });
    this.#worker.on('error', (error: Error) =>
      process.stderr.write(`the link to ${address} ended: ${error.message}\n`),
    );
  }

  mend(): Promise<void> {
    return this.#order('mend');
  }

  cut(): Promise<void> {
    return this.#order('cut');
  }

  drop(): void {
    void this.#order('drop');
  }

  hold(direction: Direction): void {
    void this.#order('hold', direction);
  }

  release(direction: Direction): void {
    void this.#order('release', direction);
  }

  async stop(): Promise<void> {
    await this.#order('stop');
    await this.#worker.terminate();
  }

  async #order(...order: Order): Promise<void> {
    const { port1, port2 } = new MessageChannel();
    this.#worker.postMessage({ order, reply: port2 } satisfies Asked, [port2]);
    await once(port1, 'message');
    port1.close();
  }
}

if (!isMainThread && parentPort !== null) {
  const link = new Link(...(workerData as ConstructorParameters<typeof Link>));
  const obey = async ({ order: [what, direction], reply }: Asked): Promise<void> => {
    if (what === 'hold' || what === 'release') link[what](direction);
    else await link[what]();
    reply.postMessage('done');
  };
  parentPort.on('message', (asked: Asked) => void obey(asked));
}
