import { once } from 'node:events';
import { type Server, type Socket, connect, createServer } from 'node:net';
import { type Lab, until } from './lab.ts';

const NAMESPACES =
  'xmlns="jabber:server" xmlns:stream="http://etherx.jabber.org/streams" xmlns:db="jabber:server:dialback"';
const header = (attributes: string): string =>
  `<?xml version="1.0"?><stream:stream ${NAMESPACES} ${attributes} version="1.0">`;
const FEATURES = '<stream:features><dialback xmlns="urn:xmpp:features:dialback"/></stream:features>';

/**
 * A server made of sockets, which can send what no real server sends. It confirms every dialback key for its own domain
 * (XEP-0220), and opens streams under any name.
 */
export class S2sPeer {
  readonly domain: string;
  /** Everything that it received, on all streams to it. */
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

  /** Opens a stream to a domain, under any name. */
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

  /** Accepts every stream, and confirms every dialback key. */
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
        socket.write(header(`id="${Math.random()}" from="${this.domain}" to="${from}"`) + FEATURES);
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
  /** The connection is closed. */
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
    await until(`the server sends ${text}`, () => this.#received.includes(text));
  }

  /** Authenticates to a domain by dialback. */
  async authenticate(to: string): Promise<void> {
    this.#received = '';
    this.write(`<db:result from="${this.#domain}" to="${to}">a key</db:result>`);
    await until(`the server authenticates ${this.#domain}`, () =>
      /<db:result [^>]*type=['"]valid['"]/.test(this.#received),
    );
  }

  /** Closes the stream cleanly. */
  end(): void {
    this.#socket.end('</stream:stream>');
  }

  /** The connection is lost. */
  reset(): void {
    this.#socket.resetAndDestroy();
  }
}
