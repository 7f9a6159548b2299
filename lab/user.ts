import { randomUUID } from 'node:crypto';
import type { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { type Client, client, xml } from '@xmpp/client';
import type { Element } from '@xmpp/xml';
import { type Lab, until } from './lab.ts';
import type { XmppServer } from './xmpp-server.ts';

const NS_MUC = 'http://jabber.org/protocol/muc';
const NS_MUC_USER = `${NS_MUC}#user`;
const NS_PING = 'urn:xmpp:ping';

interface Received {
  readonly at: number;
  readonly stanza: Element;
}

/** A real client: one session of one user. */
export class User {
  readonly jid: string;
  readonly received: Received[] = [];
  readonly #client: Client;
  #listener: ((stanza: Element) => void) | undefined;

  private constructor(connection: Client, jid: string) {
    this.#client = connection;
    this.jid = jid;
    connection.on('stanza', (stanza: Element) => {
      this.received.push({ at: Date.now(), stanza });
      this.#listener?.(stanza);
    });
  }

  /** @param service the address at which it logs in: by TCP by default, or the server's websocket */
  static async connect(
    lab: Pick<Lab, 'keep'>,
    server: Pick<XmppServer, 'host' | 'service' | 'password'>,
    username: string,
    resource: string,
    service = server.service,
  ): Promise<User> {
    const connection = client({ service, domain: server.host, username, password: server.password, resource });
    connection.reconnect.stop();
    connection.on('error', () => undefined); // tests cut connections, and look at what was received
    connection.on('connect', () => {
      // the library abandons a socket that the server closes late, and fails on data that still comes from it
      const socket = connection.socket as unknown as EventEmitter;
      socket.on('error', () => undefined);
      connection.once('close', () => socket.removeAllListeners('data'));
    });
    const user = new User(connection, String(await connection.start()));
    lab.keep({ stop: () => user.leaveServer() });
    // the library miscounts stanzas that come before that, and the server ends the session of such a client
    await until('stream management is enabled', () => connection.streamManagement.enabled);
    await user.send(xml('presence'));
    return user;
  }

  /** Calls the listener for every stanza that is received. */
  watch(listener: (stanza: Element) => void): void {
    this.#listener = listener;
  }

  async send(stanza: Element): Promise<void> {
    await this.#client.send(stanza);
  }

  /** Asks to enter a room. */
  async enter(room: string, nick: string): Promise<void> {
    await this.send(xml('presence', { to: `${room}/${nick}` }, xml('x', { xmlns: NS_MUC })));
  }

  /** Enters a room and waits for the room's self-presence. */
  async join(room: string, nick: string): Promise<Element> {
    const since = Date.now();
    await this.enter(room, nick);
    return until(`${this.jid} is in ${room}`, () =>
      this.presences(room, since).find((presence) => isSelf(presence) && presence.attrs['type'] === undefined),
    );
  }

  async leave(room: string, nick: string): Promise<void> {
    await this.send(xml('presence', { to: `${room}/${nick}`, type: 'unavailable' }));
  }

  async sendMessage(room: string, body: string): Promise<void> {
    await this.send(xml('message', { to: room, type: 'groupchat' }, xml('body', {}, body)));
  }

  /** Presences from a room or its occupants since a time, in milliseconds. */
  presences(room: string, since = 0): readonly Element[] {
    return this.received
      .filter(
        ({ at, stanza }) => at >= since && stanza.is('presence') && String(stanza.attrs['from']).startsWith(`${room}/`),
      )
      .map(({ stanza }) => stanza);
  }

  /** The notices that were received: the presences with status 333. */
  notices(): readonly Received[] {
    return this.received.filter(({ stanza }) => stanza.is('presence') && statusCodes(stanza).includes('333'));
  }

  /** Tells the server that the client is inactive (XEP-0352), so that it holds back what is not important. */
  async becomeInactive(): Promise<void> {
    await this.send(xml('inactive', { xmlns: 'urn:xmpp:csi:0' }));
    await this.ping();
  }

  /** Pings the own server, and waits for its answer: it has processed everything that was sent before. */
  async ping(): Promise<void> {
    const id = `ping-${randomUUID()}`;
    await this.send(xml('iq', { type: 'get', id, to: this.jid.split(/[@/]/)[1] }, xml('ping', { xmlns: NS_PING })));
    await until('the server answers', () => this.received.some(({ stanza }) => stanza.attrs['id'] === id));
  }

  /** The connection is lost without being closed; the server keeps the session for some time (XEP-0198). */
  async die(): Promise<void> {
    const connection = this.#client;
    (connection.socket as unknown as Socket).destroy();
    await until('the connection is lost', () => connection.status === 'disconnect');
  }

  /** Resumes its session with a new connection. @throws if the server has ended the session */
  async resume(): Promise<void> {
    const connection = this.#client;
    const fresh: unknown[] = [];
    connection.once('online', (jid) => fresh.push(jid));
    await connection.reconnect.reconnect();
    await until('the session is resumed', () => connection.streamManagement.enabled);
    if (fresh.length > 0) throw new Error(`the server has ended the session of ${this.jid}`);
  }

  /** Ends the session cleanly. */
  async leaveServer(): Promise<void> {
    await this.#client.stop().catch(() => undefined);
  }
}

/** Whether a stanza is the presence of a room itself: some services send one, with the picture of the room. */
export const isOfRoom = (stanza: Element): boolean =>
  stanza.is('presence') && !String(stanza.attrs['from']).includes('/');

/** The codes of muc#user in a presence. */
export function statusCodes(presence: Element): readonly string[] {
  const x = presence.getChild('x', NS_MUC_USER);
  return x === undefined ? [] : x.getChildren('status').map((status) => String(status.attrs['code']));
}

/** A stanza as text, with its attributes in alphabetical order. */
export function canonical(element: Element): string {
  const attributes = Object.entries(element.attrs)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => ` ${name}=${JSON.stringify(value)}`);
  const children = element.children.map((child) => (typeof child === 'string' ? child : canonical(child)));
  return `<${element.name}${attributes.join('')}>${children.join('')}</${element.name}>`;
}

function isSelf(presence: Element): boolean {
  return statusCodes(presence).includes('110');
}
