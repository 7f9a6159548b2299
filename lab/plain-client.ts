import { type Socket, connect } from 'node:net';
import { escapeXML } from '@xmpp/xml';
import { type Lab, until } from './lab.ts';
import type { XmppServer } from './xmpp-server.ts';

const NAMESPACES = 'xmlns="jabber:client" xmlns:stream="http://etherx.jabber.org/streams"';
const HEADER = (domain: string): string =>
  `<?xml version="1.0"?><stream:stream ${NAMESPACES} to="${domain}" version="1.0">`;
const BIND = (resource: string): string =>
  `<bind xmlns="urn:ietf:params:xml:ns:xmpp-bind"><resource>${resource}</resource></bind>`;

/** A cheap client, so that a test can have hundreds: it logs in with PLAIN, and keeps what it receives as text. */
export class PlainClient {
  readonly jid: string;
  /** Everything that was received since it logged in. */
  received = '';
  readonly #socket: Socket;

  private constructor(jid: string, socket: Socket) {
    this.jid = jid;
    this.#socket = socket;
    socket.setEncoding('utf8').on('data', (text: string) => {
      this.received += text;
    });
    socket.on('error', () => undefined); // the test sees that nothing more is received
  }

  static async connect(lab: Lab, server: XmppServer, username: string, resource = 'phone'): Promise<PlainClient> {
    const client = new PlainClient(`${username}@${server.host}/${resource}`, connect(5222, server.host));
    lab.keep(client);
    const secret = Buffer.from(`\0${username}\0${server.password}`).toString('base64');
    client.write(HEADER(server.host));
    await client.waitFor('</stream:features>');
    client.received = '';
    client.write(`<auth xmlns="urn:ietf:params:xml:ns:xmpp-sasl" mechanism="PLAIN">${secret}</auth>`);
    await client.waitFor('<success');
    client.received = '';
    client.write(HEADER(server.host));
    await client.waitFor('</stream:features>');
    client.write(`<iq type="set" id="bind">${BIND(resource)}</iq>`);
    await client.waitFor('</bind>');
    client.write('<presence/>');
    return client;
  }

  enter(room: string, nick: string): void {
    this.write(`<presence to="${escapeXML(`${room}/${nick}`)}"><x xmlns="http://jabber.org/protocol/muc"/></presence>`);
  }

  sendMessage(room: string, body: string): void {
    this.write(`<message to="${escapeXML(room)}" type="groupchat"><body>${escapeXML(body)}</body></message>`);
  }

  write(xml: string): void {
    this.#socket.write(xml);
  }

  async waitFor(text: string): Promise<void> {
    await until(`${this.jid} receives ${text}`, () => this.received.includes(text));
  }

  stop(): Promise<void> {
    this.#socket.destroy();
    return Promise.resolve();
  }
}
