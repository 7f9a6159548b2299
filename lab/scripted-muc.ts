import { component } from '@xmpp/component';
import { type Element, escapeXML, escapeXMLText } from '@xmpp/xml';
import type { ChatService, Member } from './population.ts';
import type { Lab } from './lab.ts';
import type { Prosody } from './prosody.ts';

export const NS_DISCO_INFO = 'http://jabber.org/protocol/disco#info';
const NS_MUC_USER = 'http://jabber.org/protocol/muc#user';
const NS_PING = 'urn:xmpp:ping';
const NS_STANZAS = 'urn:ietf:params:xml:ns:xmpp-stanzas';

/** What a user does that the service may answer. A presence to an occupant is an `enter`, of whom is in the room, too. */
type Kind = 'enter' | 'leave' | 'ping' | 'disco' | 'write';

export interface Question {
  /** When it came, in milliseconds. */
  readonly at: number;
  readonly kind: Kind;
  readonly id: string;
  /** Who asks: the session's full JID. */
  readonly user: string;
  /** Whom: an occupant, or a room. */
  readonly to: string;
  readonly room: string;
  readonly nick: string;
}

/** What is sent back: XML, or nothing. */
export type Reaction = (question: Question) => string | undefined | Promise<string | undefined>;

/**
 * A chat service that does as it is told: an external component (XEP-0114) of a server of the lab.
 *
 * Unless scripted otherwise it behaves: it lets in who enters, out who leaves, answers the pings of its occupants, and says
 * `not-acceptable` to those of others, and to what others write. What its occupants write it keeps to itself.
 */
export class ScriptedMuc implements ChatService {
  readonly domain: string;
  /** All that it was asked, in order. */
  readonly asked: Question[] = [];
  readonly #connection: ReturnType<typeof component>;
  readonly #scripts = new Map<string, Reaction>();
  /** The nicks of those who are in: `<room> <user>` → nick. */
  readonly #nicks = new Map<string, string>();
  #unsent: string[] = [];

  private constructor(domain: string, connection: ReturnType<typeof component>) {
    this.domain = domain;
    this.#connection = connection;
    connection.reconnect.stop();
    connection.removeAllListeners('element'); // the library answers iqs of its own accord
    connection.on('error', () => undefined); // as the test sees it: no answers
    connection.on('stanza', (stanza: Element) => this.#take(stanza));
  }

  /** @param server one that has `domain` among its components */
  static async open(lab: Lab, server: Prosody, domain: string): Promise<ScriptedMuc> {
    const connection = component({ service: server.componentService, domain, password: server.password });
    const muc = new ScriptedMuc(domain, connection);
    await connection.start();
    return lab.keep(muc);
  }

  room(name: string): string {
    return `${name}@${this.domain}`;
  }

  /** How it reacts to what an occupant, or everyone in a room, asks. Without a reaction: as it does unless scripted. */
  script(kind: Kind, occupantOrRoom: string, reaction?: Reaction): void {
    if (reaction === undefined) this.#scripts.delete(`${kind} ${occupantOrRoom}`);
    else this.#scripts.set(`${kind} ${occupantOrRoom}`, reaction);
  }

  /** How often it was asked something of this kind by, or about, an occupant or a room. */
  count(kind: Kind, occupantOrRoom?: string): number {
    return this.asked.filter(
      (question) =>
        question.kind === kind &&
        (occupantOrRoom === undefined || question.to === occupantOrRoom || question.room === occupantOrRoom),
    ).length;
  }

  /** Takes a user for an occupant, without a word. Returns the self-presence to send, which has the id of what it answers. */
  admit(
    { id, user, room, nick }: Pick<Question, 'user' | 'room' | 'nick'> & { readonly id?: string },
    codes: readonly number[] = [110],
  ): string {
    this.#nicks.set(`${room} ${user}`, nick);
    return mucPresence({ from: `${room}/${nick}`, to: user, codes, ...(id !== undefined && { id }) });
  }

  /** Takes a user for an occupant no longer, without a word: what a service that restarted has done to all. */
  dropOccupant(room: string, user: string): void {
    this.#nicks.delete(`${room} ${user}`);
  }

  /** The same for many. */
  dropMembers(members: readonly Member[]): Promise<void> {
    for (const { room, user } of members) this.dropOccupant(room, user.jid);
    return Promise.resolve();
  }

  /** Whoever was in any room is in none. */
  dropEveryone(): void {
    this.#nicks.clear();
  }

  /** Restarts behind a server that stays up: whoever was in any room is in none, and nobody is told. */
  async restart(): Promise<void> {
    this.dropEveryone();
    await this.#connection.stop();
    await this.#connection.start();
  }

  /** Sends a stanza, unasked. */
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
        const occupants = `<x xmlns="jabber:x:data" type="result"><field var="muc#roominfo_occupants"><value>${count}</value></field></x>`;
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
  /** What else muc#user holds. */
  readonly more?: string;
}): string {
  const { from, to, id, type, codes = [], item = '', more = '' } = presence;
  const statuses = codes.map((code) => `<status code="${code}"/>`).join('');
  return (
    `<presence${id === undefined ? '' : ` id="${escapeXML(id)}"`} from="${escapeXML(from)}" to="${escapeXML(to)}"${type === undefined ? '' : ` type="${type}"`}>` +
    `<x xmlns="${NS_MUC_USER}"><item affiliation="none" role="${type === undefined ? 'participant' : 'none'}" ${item}/>${statuses}${more}</x></presence>`
  );
}

const iq = (type: string, { id, user, to }: Question, payload: string): string =>
  `<iq type="${type}" id="${escapeXML(id)}" from="${escapeXML(to)}" to="${escapeXML(user)}">${payload}</iq>`;

export function result(payload = ''): Reaction {
  return (question) => iq('result', question, payload);
}

/** @param extra what the error holds beside the condition, and who is said to have made it */
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

/** An iq of type error that holds anything, or nothing. */
export function rawError(payload: string): Reaction {
  return (question) => iq('error', question, payload);
}

/** A presence of type error: the room does not let the user in. */
export function refusal(type: string, condition: string): Reaction {
  return failure('presence', type, condition);
}

/** A stanza of type error, in answer to one of its kind. */
export function failure(name: 'message' | 'presence', type: string, condition: string): Reaction {
  return ({ id, user, to }) =>
    `<${name} type="error"${id === '' ? '' : ` id="${escapeXML(id)}"`} from="${escapeXML(to)}" to="${escapeXML(user)}">` +
    `<error type="${type}"><${condition} xmlns="${NS_STANZAS}"/></error></${name}>`;
}

export const silence: Reaction = () => undefined;

/** The same reaction, once something has happened. */
export function held(release: (question: Question) => Promise<unknown>, reaction: Reaction): Reaction {
  return async (question) => {
    await release(question);
    return reaction(question);
  };
}

/** The answer seems to be somebody else's. */
export function as(from: (question: Question) => string, reaction: Reaction): Reaction {
  return (question) => reaction({ ...question, to: from(question) });
}

/** The right id, from another service. */
export function through(other: ScriptedMuc, reaction: Reaction): Reaction {
  return async (question) => {
    const answer = await reaction({ ...question, to: question.to.replace(/@[^/]*/, `@${other.domain}`) });
    if (answer !== undefined) other.send(answer);
    return undefined;
  };
}
