import { component } from '@xmpp/component';
import { type Element, escapeXML, escapeXMLText } from '@xmpp/xml';
import type { ChatService, Member } from './population.ts';
import type { Lab } from './lab.ts';
import type { XmppServer } from './xmpp-server.ts';

export const NS_DISCO_INFO = 'http://jabber.org/protocol/disco#info';
const NS_MUC_USER = 'http://jabber.org/protocol/muc#user';
const NS_PING = 'urn:xmpp:ping';
const NS_STANZAS = 'urn:ietf:params:xml:ns:xmpp-stanzas';

/** What a user can send to the service. Every available presence to an occupant is an `enter`. */
type Kind = 'enter' | 'leave' | 'ping' | 'disco' | 'write';

export interface Question {
  /** When it arrived, in milliseconds. */
  readonly at: number;
  readonly kind: Kind;
  readonly id: string;
  /** The sender: a session's full JID. */
  readonly user: string;
  /** The recipient: an occupant, or a room. */
  readonly to: string;
  readonly room: string;
  readonly nick: string;
}

/** Returns the answer: XML, or nothing. */
export type Reaction = (question: Question) => string | undefined | Promise<string | undefined>;

/**
 * A scripted chat service: an external component (XEP-0114) of a server of the lab.
 *
 * By default it behaves as a chat service does: sessions can enter and leave, it answers the pings of its occupants,
 * and answers `not-acceptable` to pings and messages of others. It does not forward the messages of its occupants.
 */
export class ScriptedMuc implements ChatService {
  readonly domain: string;
  /** Everything that it was asked, in order. */
  readonly asked: Question[] = [];
  readonly #connection: ReturnType<typeof component>;
  readonly #scripts = new Map<string, Reaction>();
  /** The nicks of the occupants: `<room> <user>` → nick. */
  readonly #nicks = new Map<string, string>();
  #unsent: string[] = [];

  private constructor(domain: string, connection: ReturnType<typeof component>) {
    this.domain = domain;
    this.#connection = connection;
    connection.reconnect.stop();
    connection.removeAllListeners('element'); // the library would answer iqs itself
    connection.on('error', () => undefined); // the test sees that there are no answers
    connection.on('stanza', (stanza: Element) => this.#take(stanza));
  }

  /** @param server one that has `domain` among its components */
  static async open(lab: Lab, server: XmppServer, domain: string): Promise<ScriptedMuc> {
    const connection = component({ service: server.componentService(domain), domain, password: server.password });
    const muc = new ScriptedMuc(domain, connection);
    await connection.start();
    return lab.keep(muc);
  }

  room(name: string): string {
    return `${name}@${this.domain}`;
  }

  /** Sets the reaction to requests to an occupant, or to any occupant of a room. Without one, restores the default. */
  script(kind: Kind, occupantOrRoom: string, reaction?: Reaction): void {
    if (reaction === undefined) this.#scripts.delete(`${kind} ${occupantOrRoom}`);
    else this.#scripts.set(`${kind} ${occupantOrRoom}`, reaction);
  }

  /** The number of requests of this kind, to an occupant or a room if one is given. */
  count(kind: Kind, occupantOrRoom?: string): number {
    return this.asked.filter(
      (question) =>
        question.kind === kind &&
        (occupantOrRoom === undefined || question.to === occupantOrRoom || question.room === occupantOrRoom),
    ).length;
  }

  /** Makes a user an occupant, and sends nothing. Returns the self-presence, which has the id of the request. */
  admit(
    { id, user, room, nick }: Pick<Question, 'user' | 'room' | 'nick'> & { readonly id?: string },
    codes: readonly number[] = [110],
  ): string {
    this.#nicks.set(`${room} ${user}`, nick);
    return mucPresence({ from: `${room}/${nick}`, to: user, codes, ...(id !== undefined && { id }) });
  }

  /** Drops an occupant without notifying it, as a service does to all when it restarts. */
  dropOccupant(room: string, user: string): void {
    this.#nicks.delete(`${room} ${user}`);
  }

  /** Drops many occupants. */
  dropMembers(members: readonly Member[]): Promise<void> {
    for (const { room, user } of members) this.dropOccupant(room, user.jid);
    return Promise.resolve();
  }

  /** Drops all occupants of all rooms. */
  dropEveryone(): void {
    this.#nicks.clear();
  }

  /** Restarts behind a server that stays up: all occupants are dropped, and nobody is notified. */
  async restart(): Promise<void> {
    this.dropEveryone();
    await this.#connection.stop();
    await this.#connection.start();
  }

  /** Sends a stanza that answers nothing. */
  send(xml: string): void {
    this.#unsent.push(xml);
    if (this.#unsent.length > 1) return;
    setImmediate(() => {
      const all = this.#unsent.join('');
      this.#unsent = [];
      this.#connection.write(all).catch(() => undefined); // it has stopped
    });
  }

  async stop(): Promise<void> {
    await this.#connection.stop().catch(() => undefined);
  }

  #take(stanza: Element): void {
    const kind = kindOf(stanza);
    if (kind === undefined) return;
    const { id = '', from = '', to = '' } = stanza.attrs as Record<string, string | undefined>;
    const slash = to.indexOf('/');
    const [room, nick] = slash < 0 ? [to, ''] : [to.slice(0, slash), to.slice(slash + 1)];
    const question: Question = { at: Date.now(), kind, id, user: from, to, room, nick };
    this.asked.push(question);
    const script = this.#scripts.get(`${kind} ${to}`) ?? this.#scripts.get(`${kind} ${room}`);
    const answer = script === undefined ? this.#behave(question) : script(question);
    if (typeof answer === 'string') this.send(answer);
    else void answer?.then((late) => late !== undefined && this.send(late));
  }

  #behave(question: Question): ReturnType<Reaction> {
    const { kind, user, to, room, nick } = question;
    const known = this.#nicks.get(`${room} ${user}`);
    switch (kind) {
      case 'enter': {
        if (known === undefined || known === nick) return this.admit(question);
        const changed = mucPresence({
          from: `${room}/${known}`,
          to: user,
          type: 'unavailable',
          codes: [303, 110],
          item: `nick="${escapeXML(nick)}"`,
        });
        return changed + this.admit(question);
      }
      case 'leave':
        this.dropOccupant(room, user);
        return mucPresence({ from: to, to: user, type: 'unavailable', codes: [110] });
      case 'ping':
        return known === nick ? result()(question) : error('cancel', 'not-acceptable')(question);
      case 'write':
        return known === undefined ? failure('message', 'cancel', 'not-acceptable')(question) : undefined;
      case 'disco': {
        const count = [...this.#nicks.keys()].filter((key) => key.startsWith(`${room} `)).length;
        const field = `<field var="muc#roominfo_occupants"><value>${count}</value></field>`;
        const occupants = `<x xmlns="jabber:x:data" type="result">${field}</x>`;
        return result(
          `<query xmlns="${NS_DISCO_INFO}"><identity category="conference" type="text"/>${occupants}</query>`,
        )(question);
      }
    }
  }
}

function kindOf(stanza: Element): Kind | undefined {
  const { type } = stanza.attrs as { type?: string };
  if (stanza.name === 'presence') return type === undefined ? 'enter' : type === 'unavailable' ? 'leave' : undefined;
  if (stanza.name === 'message') return type === 'groupchat' ? 'write' : undefined;
  if (stanza.name !== 'iq' || type !== 'get') return undefined;
  if (stanza.getChild('ping', NS_PING) !== undefined) return 'ping';
  return stanza.getChild('query', NS_DISCO_INFO) === undefined ? undefined : 'disco';
}

/** A presence with muc#user, from an occupant to a session. */
export function mucPresence(presence: {
  readonly from: string;
  readonly to: string;
  readonly id?: string;
  readonly type?: 'unavailable';
  readonly codes?: readonly number[];
  /** Attributes of the item, beside affiliation and role. */
  readonly item?: string;
  /** More content of muc#user. */
  readonly more?: string;
}): string {
  const { from, to, id, type, codes = [], item = '', more = '' } = presence;
  const statuses = codes.map((code) => `<status code="${code}"/>`).join('');
  const idAttribute = id === undefined ? '' : ` id="${escapeXML(id)}"`;
  const typeAttribute = type === undefined ? '' : ` type="${type}"`;
  const role = type === undefined ? 'participant' : 'none';
  return (
    `<presence${idAttribute} from="${escapeXML(from)}" to="${escapeXML(to)}"${typeAttribute}>` +
    `<x xmlns="${NS_MUC_USER}"><item affiliation="none" role="${role}" ${item}/>${statuses}${more}</x></presence>`
  );
}

const iq = (type: string, { id, user, to }: Question, payload: string): string =>
  `<iq type="${type}" id="${escapeXML(id)}" from="${escapeXML(to)}" to="${escapeXML(user)}">${payload}</iq>`;

export function result(payload = ''): Reaction {
  return (question) => iq('result', question, payload);
}

/** @param extra more content of the error, and the host that it names as its author */
export function error(
  type: string,
  condition: string,
  extra: { readonly text?: string; readonly by?: string; readonly more?: string } = {},
): Reaction {
  const { text, by, more = '' } = extra;
  const textElement = text === undefined ? '' : `<text xmlns="${NS_STANZAS}">${escapeXMLText(text)}</text>`;
  const from = by === undefined ? '' : ` by="${escapeXML(by)}"`;
  return rawError(`<error type="${type}"${from}><${condition} xmlns="${NS_STANZAS}"/>${textElement}${more}</error>`);
}

/** An iq of type error with any content. */
export function rawError(payload: string): Reaction {
  return (question) => iq('error', question, payload);
}

/** A presence of type error: the room refuses the user. */
export function refusal(type: string, condition: string): Reaction {
  return failure('presence', type, condition);
}

/** A stanza of type error, in answer to one of its kind. */
export function failure(name: 'message' | 'presence', type: string, condition: string): Reaction {
  const idAttribute = (id: string): string => (id === '' ? '' : ` id="${escapeXML(id)}"`);
  return ({ id, user, to }) =>
    `<${name} type="error"${idAttribute(id)} from="${escapeXML(to)}" to="${escapeXML(user)}">` +
    `<error type="${type}"><${condition} xmlns="${NS_STANZAS}"/></error></${name}>`;
}

export const silence: Reaction = () => undefined;

/** The same reaction, after a promise is resolved. */
export function held(release: (question: Question) => Promise<unknown>, reaction: Reaction): Reaction {
  return async (question) => {
    await release(question);
    return reaction(question);
  };
}

/** The same reaction, with another sender. */
export function as(from: (question: Question) => string, reaction: Reaction): Reaction {
  return (question) => reaction({ ...question, to: from(question) });
}

/** The same reaction, with the right id, but sent by another service. */
export function through(other: ScriptedMuc, reaction: Reaction): Reaction {
  return async (question) => {
    const answer = await reaction({ ...question, to: question.to.replace(/@[^/]*/, `@${other.domain}`) });
    if (answer !== undefined) other.send(answer);
    return undefined;
  };
}
