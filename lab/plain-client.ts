import { type Socket, connect } from 'node:net';
import { escapeXML } from '@xmpp/xml';
import { type Lab, until } from './lab.ts';
import type { Prosody } from './prosody.ts';

const HEADER = (domain: string): string =>
  `<?xml version="1.0"?><stream:stream xmlns="jabber:client" xmlns:stream="http://etherx.jabber.org/streams" to="${domain}" version="1.0">`;

/** A client that is cheap, so that hundreds fit into a test: it logs in by PLAIN, says what it is told to, and keeps what it hears as text. */
export class PlainClient {
  readonly jid: string;
  /** All that came since it logged in. */
  received = '';
  readonly #socket: Socket;

  private constructor(jid: string, socket: Socket) {
    this.jid = jid;
    this.#socket = socket;
    socket.setEncoding('utf8').on('data', (text: string) => {
      this.received += text;
    });
    socket.on('error', () => undefined); // as the test sees it: it hears no more
  }

  static async connect(lab: Lab, server: Prosody, username: string, resource = 'phone'): Promise<PlainClient> {
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
    client.write(
      `<iq type="set" id="bind"><bind xmlns="urn:ietf:params:xml:ns:xmpp-bind"><resource>${resource}</resource></bind></iq>`,
    );
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
    await until(`${this.jid} hears ${text}`, () => this.received.includes(text));
  }

  stop(): Promise<void> {
    this.#socket.destroy();
    return Promise.resolve();
  }
}
