import { type Server, type Socket, connect, createServer } from 'node:net';

/** A direction of connections to a server: what others send to it, and what it sends back on the same connections. */
export type Direction = 'toServer' | 'fromServer';

/**
 * The connections to one server: a relay in front of its port that can be cut, restored, held in one direction, and
 * that can forget its connections.
 */
export class Link {
  readonly #address: string;
  readonly #from: number;
  readonly #to: number;
  readonly #target: string;
  /** Both ends of each connection: the side that opened it, and the server's side. */
  readonly #connections = new Set<readonly [near: Socket, far: Socket]>();
  readonly #held = new Set<Direction>();
  readonly #forgotten = new Set<Socket>();
  #lostBytes = 0;
  #server: Server | undefined;

  /** @param target the server's address; by default, it is that of the relay */
  constructor(address: string, from: number, to: number, target = address) {
    this.#address = address;
    this.#from = from;
    this.#to = to;
    this.#target = target;
  }

  async mend(): Promise<void> {
    if (this.#server !== undefined) return;
    const server = createServer((near) => {
      const connection = [near, connect(this.#to, this.#target)] as const;
      this.#connections.add(connection);
      for (const direction of ['toServer', 'fromServer'] as const) {
        const [source, target] = ends(connection, direction);
        if (this.#held.has(direction)) source.pause();
        else source.pipe(target);
        source.on('error', () => undefined); // 'close' follows
        source.on('close', () => {
          this.#forgotten.delete(source);
          if (this.#connections.delete(connection)) target.destroy();
        });
      }
    });
    await new Promise<void>((resolve, reject) =>
      server.once('error', reject).listen(this.#from, this.#address, resolve),
    );
    this.#server = server;
  }

  /** Resets every connection, and refuses new ones until `mend`. */
  async cut(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    const closed = new Promise<void>((resolve) => (server === undefined ? resolve() : server.close(() => resolve())));
    this.drop();
    for (const socket of this.#forgotten) socket.destroy();
    await closed;
  }

  /** Resets every connection; new ones can be opened. */
  drop(): void {
    for (const socket of [...this.#connections].flat()) {
      if (socket.writableEnded)
        socket.destroy(); // it is being closed: a reset would leave it open for good (libuv)
      else socket.resetAndDestroy();
    }
  }

  /**
   * Forgets every connection, as a gateway does that was idle for too long: forwards nothing on it any more, and tells
   * nobody. New ones can be opened.
   * @param packets what becomes of packets that come over a forgotten connection
   */
  forget(packets: 'drop' | 'reset'): void {
    for (const [near, far] of this.#connections) {
      far.unpipe(near).destroy();
      near.unpipe(far).on('data', (data: Buffer) => {
        this.#lostBytes += data.length;
        if (packets === 'reset') near.resetAndDestroy();
      });
      near.resume(); // as its pipe has ended
      this.#forgotten.add(near);
    }
    this.#connections.clear();
    this.#lostBytes = 0;
  }

  /** Bytes that were sent over forgotten connections since the last time that connections were forgotten. */
  get lostBytes(): number {
    return this.#lostBytes;
  }

  /**
   * Forwards nothing in one direction, on existing and new connections, until `release`. Nothing is lost: the sockets
   * are not read, so that the data fills their buffers (some megabytes), and then those of the sender. The relay does
   * not notice if a sender ends its connection while it is held.
   */
  hold(direction: Direction): void {
    this.#held.add(direction);
    for (const connection of this.#connections) {
      const [source, target] = ends(connection, direction);
      source.unpipe(target).pause();
    }
  }

  /** Forwards again; what was held comes first, in order. */
  release(direction: Direction): void {
    this.#held.delete(direction);
    for (const connection of this.#connections) {
      const [source, target] = ends(connection, direction);
      source.pipe(target);
    }
  }

  async stop(): Promise<void> {
    await this.cut();
  }
}

/** The source and the target of a direction on a connection. */
function ends(
  [near, far]: readonly [near: Socket, far: Socket],
  direction: Direction,
): readonly [source: Socket, target: Socket] {
  return direction === 'toServer' ? [near, far] : [far, near];
}
