import { once } from 'node:events';
import { MessageChannel, type MessagePort, Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { type Direction, Link } from './link.ts';

/** What a test does with the connections to a server. */
export type LinkControls = Pick<Link, 'mend' | 'cut' | 'drop' | 'hold' | 'release' | 'stop'>;

type Command =
  readonly [what: 'mend' | 'cut' | 'drop' | 'stop'] | readonly [what: 'hold' | 'release', direction: Direction];

interface PendingCommand {
  readonly command: Command;
  readonly reply: MessagePort;
}

/** A link in a thread of its own, so that stanzas do not wait while the test is busy. */
export class ThreadedLink implements LinkControls {
  readonly #worker: Worker;

  constructor(address: string, from: number, to: number) {
    this.#worker = new Worker(new URL(import.meta.url), { workerData: [address, from, to] });
    this.#worker.on('error', (error: Error) =>
      process.stderr.write(`the link to ${address} ended: ${error.message}\n`),
    );
  }

  mend(): Promise<void> {
    return this.#send('mend');
  }

  cut(): Promise<void> {
    return this.#send('cut');
  }

  drop(): void {
    void this.#send('drop');
  }

  hold(direction: Direction): void {
    void this.#send('hold', direction);
  }

  release(direction: Direction): void {
    void this.#send('release', direction);
  }

  async stop(): Promise<void> {
    await this.#send('stop');
    await this.#worker.terminate();
  }

  async #send(...command: Command): Promise<void> {
    const { port1, port2 } = new MessageChannel();
    this.#worker.postMessage({ command, reply: port2 } satisfies PendingCommand, [port2]);
    await once(port1, 'message');
    port1.close();
  }
}

if (!isMainThread && parentPort !== null) {
  const link = new Link(...(workerData as ConstructorParameters<typeof Link>));
  const execute = async ({ command: [what, direction], reply }: PendingCommand): Promise<void> => {
    if (what === 'hold' || what === 'release') link[what](direction);
    else await link[what]();
    reply.postMessage('done');
  };
  parentPort.on('message', (pending: PendingCommand) => void execute(pending));
}
