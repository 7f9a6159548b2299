import { type Server, type ServerResponse, createServer } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { readRequestBody } from '../../local/http.ts';
import type { VirtualClock } from './virtual-clock.ts';

/** What is wrong with the stanza API. */
export type ApiFault =
  | { readonly kind: 'status'; readonly status: number }
  /** The connection is closed, as where nothing listens behind a proxy. */
  | { readonly kind: 'unreachable' }
  /** The request is read, and never answered. */
  | { readonly kind: 'silent' }
  /** A share of the answers takes so many milliseconds. */
  | { readonly kind: 'slow'; readonly ms: number; readonly share: number };

/** An answer takes so long where nothing is wrong. */
const LATENCY_MS = 50;
const MAX_BODY_BYTES = 2 * 1024 * 1024;
const NS_STANZAS = 'urn:ietf:params:xml:ns:xmpp-stanzas';

/** A session that is in a room, as the XMPP server knows it. */
export interface ServerJoin {
  readonly host: string;
  readonly remote: string;
  readonly user: string;
  readonly room: string;
  readonly nick: string;
  readonly at: number;
}

/**
 * The stanza API of all hosts, on a loopback port, as the contract describes it (protocol/openapi.yaml), and the rooms
 * behind it. It reads only the stanzas that the functions write, so it needs no XML parser.
 */
export class XmppServer {
  /** Of all hosts. */
  fault: ApiFault | undefined;
  /** Of one host. */
  readonly faults = new Map<string, ApiFault>();
  /** Joins that the server knows, by room and user. */
  readonly joins = new Map<string, ServerJoin>();
  /** Rooms and users whom the room itself no longer knows. */
  readonly lost = new Set<string>();
  /** Remote hosts that are out of reach. */
  readonly unreachable = new Set<string>();
  /** Is called for each notice that a client gets. */
  onNotice: (join: ServerJoin) => void = () => undefined;
  /** The next answer is slow if it is 1. */
  #slow = 0;
  readonly #clock: VirtualClock;
  readonly #server: Server;

  private constructor(clock: VirtualClock) {
    this.#clock = clock;
    this.#server = createServer({ keepAliveTimeout: 0 }, (request, response) => {
      void readRequestBody(request, MAX_BODY_BYTES).then((body) =>
        this.#serve(decodeURIComponent(request.url?.split('/')[1] ?? ''), body.toString(), response),
      );
    });
  }

  /** Listens on a free port. */
  static async start(clock: VirtualClock): Promise<XmppServer> {
    const server = new XmppServer(clock);
    server.#server.listen(0, '127.0.0.1');
    await once(server.#server, 'listening');
    return server;
  }

  /** For the functions: `{host}` stands for the XMPP host. */
  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/{host}`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async #serve(host: string, body: string, response: ServerResponse): Promise<void> {
    const fault = this.faults.get(host) ?? this.fault;
    if (fault?.kind === 'unreachable') return void response.destroy();
    if (fault?.kind === 'status') return void response.writeHead(fault.status).end('out of order');
    if (fault?.kind === 'silent') return this.#clock.hold(once(response, 'close').then(() => undefined));
    this.#slow += fault?.share ?? 0;
    const isSlow = fault !== undefined && this.#slow >= 1;
    if (isSlow) this.#slow -= 1;
    await this.#clock.hold(this.#clock.sleep(isSlow ? fault.ms : LATENCY_MS));
    const stanzas = [...body.matchAll(/<(iq|presence) ([^>]*)>.*?<\/\1>/gs)];
    const answers = stanzas.map(([whole, name = '', attributes = '']) =>
      this.#answer(host, name, Object.fromEntries(readAttributes(attributes)), whole),
    );
    response.writeHead(200).end(`<xmpp>${answers.join('')}</xmpp>`);
  }

  #answer(host: string, name: string, attributes: Readonly<Record<string, string>>, whole: string): string {
    const { id = '', from = '', to = '' } = attributes;
    const isNotice = name === 'presence' && attributes['type'] === 'unavailable';
    const [user, occupant] = isNotice ? [to, from] : [from, to];
    const [room = ''] = occupant.split('/');
    const slot = slotOf(room, user);
    const error = (condition: string, type: string, by?: string): string =>
      `<${name} type="error" id="${id}"><error type="${type}"${by === undefined ? '' : ` by="${by}"`}>` +
      `<${condition} xmlns="${NS_STANZAS}"/></error></${name}>`;
    const join = this.joins.get(slot);
    if (join === undefined) return error('recipient-unavailable', 'cancel', host);
    if (!whole.includes(`at="${join.at}"`)) return error('conflict', 'cancel', host);
    if (isNotice) {
      this.joins.delete(slot);
      this.lost.delete(slot);
      this.onNotice(join);
      return '';
    }
    if (this.unreachable.has(join.remote)) return error('remote-server-not-found', 'cancel', host);
    if (this.lost.has(slot)) return error('not-acceptable', 'cancel');
    return `<${name} type="result" id="${id}"/>`;
  }
}

export const slotOf = (room: string, user: string): string => `${room} ${user}`;

const readAttributes = (text: string): readonly (readonly [string, string])[] =>
  [...text.matchAll(/([\w:]+)="([^"]*)"/g)].map(([, name = '', value = '']) => [name, value]);
