import xml, { type Element, Parser } from '@xmpp/xml';
import type { Lab } from './lab.ts';
import type { Prosody } from './prosody.ts';

const NS_BIND = 'urn:ietf:params:xml:ns:xmpp-bind';
const NS_BODY = 'http://jabber.org/protocol/httpbind';
const NS_BOSH = 'urn:xmpp:xbosh';
const NS_SASL = 'urn:ietf:params:xml:ns:xmpp-sasl';
/** How long the server may keep a request until it has something to say. */
const WAIT_SECONDS = 10;

/** A client that speaks to its server by HTTP (BOSH, XEP-0124 and XEP-0206), as those in browsers did: one session of one user. */
export class BoshClient {
  jid = '';
  /** All stanzas that came. */
  readonly received: Element[] = [];
  readonly #server: Prosody;
  #sid = '';
  #rid = Math.floor(Math.random() * 1e9);
  #hasEnded = false;

  private constructor(server: Prosody) {
    this.#server = server;
  }

  static async connect(lab: Lab, server: Prosody, username: string, resource: string): Promise<BoshClient> {
    const bosh = new BoshClient(server);
    const session = { to: server.host, hold: '1', wait: String(WAIT_SECONDS), ver: '1.6', 'xmpp:version': '1.0', 'xml:lang': 'en' };
    bosh.#sid = String((await bosh.#request(session)).attrs['sid']);
    const password = Buffer.from(`\0${username}\0${server.password}`).toString('base64');
    const { children } = await bosh.#request({}, xml('auth', { xmlns: NS_SASL, mechanism: 'PLAIN' }, password));
    if (!children.some((child) => typeof child !== 'string' && child.is('success'))) throw new Error(`not let in: ${children.join('')}`);
    await bosh.#request({ 'xmpp:restart': 'true', to: server.host });
    const bound = await bosh.#request({}, xml('iq', { type: 'set', id: 'bind', xmlns: 'jabber:client' }, xml('bind', { xmlns: NS_BIND }, xml('resource', {}, resource))));
    bosh.jid = String(bound.getChild('iq')?.getChild('bind', NS_BIND)?.getChildText('jid'));
    lab.keep(bosh);
    void bosh.#listen();
    await bosh.send(xml('presence', { xmlns: 'jabber:client' }));
    return bosh;
  }

  /** Sends a stanza; `xmlns` is `jabber:client`. */
  async send(stanza: Element): Promise<void> {
    this.#take(await this.#request({}, stanza));
  }

  async stop(): Promise<void> {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    await this.#request({ type: 'terminate' }).catch(() => undefined);
  }

  /** There is always a request at the server, so that it can say something. */
  async #listen(): Promise<void> {
    while (!this.#hasEnded) {
      const body = await this.#request({}).catch(() => undefined); // the server is gone: so is the session
      if (body === undefined || body.attrs['type'] === 'terminate') this.#hasEnded = true;
      else this.#take(body);
    }
  }

  #take(body: Element): void {
    this.received.push(...body.getChildElements());
  }

  async #request(attributes: Readonly<Record<string, string>>, ...children: readonly Element[]): Promise<Element> {
    this.#rid += 1;
    const own = { rid: String(this.#rid), ...(this.#sid === '' ? {} : { sid: this.#sid }) };
    const body = xml('body', { xmlns: NS_BODY, 'xmlns:xmpp': NS_BOSH, ...own, ...attributes }, ...children);
    const response = await fetch(this.#server.boshService, { method: 'POST', headers: { 'content-type': 'text/xml' }, body: body.toString() });
    return parse(await response.text());
  }
}

function parse(text: string): Element {
  const parser = new Parser();
  let root: Element | undefined;
  parser.on('start', (element: Element) => {
    root = element;
  });
  parser.on('error', (error: Error) => {
    throw error;
  });
  parser.write(text);
  if (root === undefined) throw new Error(`no XML: ${text}`);
  return root;
}
