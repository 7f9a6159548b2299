import xml, { type Element, Parser } from '@xmpp/xml';
import { type Lab, until } from './lab.ts';
import type { XmppServer } from './xmpp-server.ts';
import { statusCodes } from './user.ts';

const NS_BIND = 'urn:ietf:params:xml:ns:xmpp-bind';
const NS_BODY = 'http://jabber.org/protocol/httpbind';
const NS_BOSH = 'urn:xmpp:xbosh';
const NS_CLIENT = 'jabber:client';
const NS_MUC = 'http://jabber.org/protocol/muc';
const NS_SASL = 'urn:ietf:params:xml:ns:xmpp-sasl';
/** How long the server may hold a request until it has something to send. */
const WAIT_SECONDS = 10;

/** A client that connects by HTTP (BOSH, XEP-0124 and XEP-0206): one session of one user. */
export class BoshClient {
  jid = '';
  /** All stanzas that were received. */
  readonly received: Element[] = [];
  readonly #server: XmppServer;
  #sid = '';
  #rid = Math.floor(Math.random() * 1e9);
  #hasEnded = false;

  private constructor(server: XmppServer) {
    this.#server = server;
  }

  static async connect(lab: Lab, server: XmppServer, username: string, resource: string): Promise<BoshClient> {
    const bosh = new BoshClient(server);
    const session = {
      to: server.host,
      hold: '1',
      wait: String(WAIT_SECONDS),
      ver: '1.6',
      'xmpp:version': '1.0',
      'xml:lang': 'en',
    };
    bosh.#sid = (await bosh.#request(session)).attributes['sid'] ?? '';
    const password = Buffer.from(`\0${username}\0${server.password}`).toString('base64');
    const { elements } = await bosh.#request({}, xml('auth', { xmlns: NS_SASL, mechanism: 'PLAIN' }, password));
    if (!elements.some((element) => element.is('success')))
      throw new Error(`authentication failed: ${elements.join('')}`);
    await bosh.#request({ 'xmpp:restart': 'true', to: server.host });
    const bind = xml('bind', { xmlns: NS_BIND }, xml('resource', {}, resource));
    const bound = await bosh.#request({}, xml('iq', { type: 'set', id: 'bind', xmlns: NS_CLIENT }, bind));
    bosh.jid = bound.elements[0]?.getChild('bind')?.getChildText('jid') ?? '';
    lab.keep(bosh);
    void bosh.#listen(xml('presence', { xmlns: NS_CLIENT }));
    return bosh;
  }

  /** Enters a room and waits for the room's self-presence. */
  async join(room: string, nick: string): Promise<void> {
    const since = this.received.length;
    const presence = xml('presence', { to: `${room}/${nick}`, xmlns: NS_CLIENT }, xml('x', { xmlns: NS_MUC }));
    this.received.push(...(await this.#request({}, presence)).elements);
    await until(`${this.jid} is in ${room}`, () =>
      this.received.slice(since).some((stanza) => statusCodes(stanza).includes('110')),
    );
  }

  /** The notices that were received: the presences with status 333. */
  notices(): readonly Element[] {
    return this.received.filter((stanza) => stanza.is('presence') && statusCodes(stanza).includes('333'));
  }

  async stop(): Promise<void> {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    await this.#request({ type: 'terminate' }).catch(() => undefined);
  }

  /** From its first presence on, the server always has a request that it can answer with stanzas. */
  async #listen(...first: readonly Element[]): Promise<void> {
    let sent = first;
    while (!this.#hasEnded) {
      // without an answer, the server has ended, and the session with it
      const answer = await this.#request({}, ...sent).catch(() => undefined);
      if (answer === undefined || answer.attributes['type'] === 'terminate') this.#hasEnded = true;
      else this.received.push(...answer.elements);
      sent = [];
    }
  }

  async #request(attributes: Readonly<Record<string, string>>, ...stanzas: readonly Element[]): Promise<Body> {
    this.#rid += 1;
    const own = { rid: String(this.#rid), ...(this.#sid === '' ? {} : { sid: this.#sid }) };
    const body = xml('body', { xmlns: NS_BODY, 'xmlns:xmpp': NS_BOSH, ...own, ...attributes }, ...stanzas).toString();
    const response = await fetch(this.#server.boshService, {
      method: 'POST',
      headers: { 'content-type': 'text/xml' },
      body,
    });
    return read(await response.text());
  }
}

/** One answer of the server. */
interface Body {
  readonly attributes: Readonly<Record<string, string>>;
  readonly elements: readonly Element[];
}

/** @throws when it is not XML */
function read(text: string): Body {
  const elements: Element[] = [];
  let attributes: Readonly<Record<string, string>> = {};
  const parser = new Parser();
  parser.on('start', (body: Element) => {
    attributes = body.attrs;
  });
  parser.on('element', (element: Element) => elements.push(element));
  parser.on('error', (error: Error) => {
    throw error;
  });
  parser.write(text);
  return { attributes, elements };
}
