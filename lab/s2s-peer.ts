import { once } from 'node:events';
import { type Server, type Socket, connect, createServer } from 'node:net';
import { type Lab, until } from './lab.ts';

const header = (attributes: string): string =>
  `<?xml version="1.0"?><stream:stream xmlns="jabber:server" xmlns:stream="http://etherx.jabber.org/streams" xmlns:db="jabber:server:dialback" ${attributes} version="1.0">`;

/**
 * A server made of nothing but sockets, which can say what no server says: it vouches for its own domain (XEP-0220) to whoever
 * asks, and opens streams under any name.
 */
export class S2sPeer {
  readonly domain: string;
  /** What came over the streams to it, all of them together. */
  received = '';
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(domain: string) {
    this.domain = domain;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  static async open(lab: Lab, domain: string): Promise<S2sPeer> {
    const peer = new S2sPeer(domain);
    peer.#server.listen(5269, domain);
    await once(peer.#server, 'listening');
    return lab.keep(peer);
  }

  /** Opens a stream to a domain, in anybody's name. */
  async call(to: string, name = this.domain): Promise<PeerStream> {
    const socket = connect(5269, to);
    this.#keep(socket);
    await once(socket, 'connect');
    const stream = new PeerStream(this.domain, socket);
    stream.write(header(`from="${name}" to="${to}"`));
    await stream.waitFor('</stream:features>');
    return stream;
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => undefined); // 'close' follows
    socket.on('close', () => this.#sockets.delete(socket));
  }

  /** Lets everybody in, and says of every key that it is its own. */
  #serve(socket: Socket): void {
    let unread = '';
    this.#keep(socket);
    socket.setEncoding('utf8').on('data', (text: string) => {
      this.received += text;
      unread += text;
      const opening = /<stream:stream [^>]*>/.exec(unread)?.[0];
      if (opening !== undefined) {
        unread = unread.replace(opening, '');
        const [, from = ''] = /from=['"]([^'"]*)/.exec(opening) ?? [];
        socket.write(
          `${header(`id="${Math.random()}" from="${this.domain}" to="${from}"`)}<stream:features><dialback xmlns="urn:xmpp:features:dialback"/></stream:features>`,
        );
      }
      for (
        let element;
        (element = /<db:(result|verify) ([^>]*)>[^<]*<\/db:\1>/.exec(unread)) !== null;
        unread = unread.replace(element[0], '')
      ) {
        const [, kind, attributes = ''] = element;
        const [from, to, id] = ['from', 'to', 'id'].map(
          (name) => new RegExp(`\\b${name}=['"]([^'"]*)`).exec(attributes)?.[1],
        );
        socket.write(`<db:${kind} from="${to}" to="${from}"${id === undefined ? '' : ` id="${id}"`} type="valid"/>`);
      }
    });
  }
}

/** A stream of a peer to another server. */
class PeerStream {
  readonly #domain: string;
  readonly #socket: Socket;
  #received = '';
  /** The other side has ended it, too. */
  isOver = false;

  constructor(domain: string, socket: Socket) {
    this.#domain = domain;
    this.#socket = socket;
    socket.setEncoding('utf8').on('data', (text: string) => {
      this.#received += text;
    });
    socket.on('close', () => {
      this.isOver = true;
    });
  }

  write(xml: string): void {
    this.#socket.write(xml);
  }

  async waitFor(text: string): Promise<void> {
    await until(`the server says ${text}`, () => this.#received.includes(text));
  }

  /** Proves to a domain who it is. */
  async authenticate(to: string): Promise<void> {
    this.#received = '';
    this.write(`<db:result from="${this.#domain}" to="${to}">a key</db:result>`);
    await until(`the server lets ${this.#domain} in`, () => /<db:result [^>]*type=['"]valid['"]/.test(this.#received));
  }

  /** Ends it in good order. */
  end(): void {
    this.#socket.end('</stream:stream>');
  }

  /** The connection is lost. */
  reset(): void {
    this.#socket.resetAndDestroy();
  }
}
