import { type Server, type Socket, connect, createServer } from 'node:net';

/** The way to one server: a relay in front of its s2s port, which can be cut and mended. */
export class Link {
  readonly #address: string;
  readonly #from: number;
  readonly #to: number;
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;

  constructor(address: string, from: number, to: number) {
    this.#address = address;
    this.#from = from;
    this.#to = to;
  }

  async mend(): Promise<void> {
    if (this.#server !== undefined) return;
    const server = createServer((near) => {
      const far = connect(this.#to, this.#address);
      for (const [socket, other] of [[near, far], [far, near]] as const) {
        this.#sockets.add(socket);
        socket.pipe(other);
        socket.on('error', () => other.destroy());
        socket.on('close', () => {
          this.#sockets.delete(socket);
          other.destroy();
        });
      }
    });
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(this.#from, this.#address, resolve));
    this.#server = server;
  }

  /** Resets every connection, and refuses new ones until it is mended. */
  async cut(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    const closed = new Promise<void>((resolve) => (server === undefined ? resolve() : server.close(() => resolve())));
    this.drop();
    await closed;
  }

  /** Resets every connection; new ones pass. */
  drop(): void {
    for (const socket of this.#sockets) {
      if (socket.writableEnded) socket.destroy(); // it is being closed: a reset would leave it open for good (libuv)
      else socket.resetAndDestroy();
    }
  }

  async stop(): Promise<void> {
    await this.cut();
  }
}
