import type { Element } from '@xmpp/xml';
import type { Join } from '../../functions/core/events.ts';
import { type Answer, type Stanza, readAnswers, requestBody } from '../../functions/core/stanzas.ts';
import { sleep, until } from '../lab.ts';
import { type Reply, type SignedRequest, post } from '../requests.ts';
import { User, statusCodes } from '../user.ts';
import { type Event, Receiver } from './receiver.ts';

/** The server that is tested, and how it is reached. */
export interface Options {
  /** The URL of its stanza API, without `/stanzas`. */
  readonly serverApi: string;
  /** Where its webhooks arrive. */
  readonly webhooks: { readonly host: string; readonly port: number };
  readonly secret: string;
  /** A user of the server, as a bare JID. */
  readonly user: string;
  readonly password: string;
  /** Where the user logs in: `xmpp://host:port`. */
  readonly service: string;
  /** A room on another server, in which nobody else is. */
  readonly room: string;
  /** A shell command that ends the connection between the two servers. */
  readonly close?: string;
}

/** Seconds that a room has for its answer. */
const ROOM_SECONDS = 10;
/** Nothing that a request caused arrives at the client later than this. */
const SETTLE_MS = 200;
const NICK = 'conformance';

/** What a check does with the server that is tested. */
export class Subject {
  readonly options: Options;
  readonly receiver: Receiver;
  /** The session that checks work with. */
  client: User;
  readonly #users: User[] = [];
  #sessions = 0;

  private constructor(options: Options, receiver: Receiver, client: User) {
    this.options = options;
    this.receiver = receiver;
    this.client = client;
  }

  /** Begins to receive webhooks, and logs in. @throws if that is not possible */
  static async open(options: Options): Promise<Subject> {
    const receiver = await Receiver.listen(options.webhooks.host, options.webhooks.port);
    try {
      return new Subject(options, receiver, await login(options, 'conformance'));
    } catch (error) {
      await receiver.stop();
      throw error;
    }
  }

  get host(): string {
    return this.options.user.slice(this.options.user.indexOf('@') + 1);
  }

  get remote(): string {
    return this.options.room.slice(this.options.room.indexOf('@') + 1);
  }

  /**
   * Continues with another session. A server may report the changes of one join less and less often, so each check has
   * a session of its own.
   */
  async renewSession(): Promise<void> {
    await this.client.leaveServer();
    this.client = await login(this.options, `conformance-${(this.#sessions += 1)}`);
  }

  /** Another session of the user. */
  async session(resource: string): Promise<User> {
    const user = await login(this.options, resource);
    this.#users.push(user);
    return user;
  }

  /** Sends a request to the stanza API, signed unless the request says otherwise. */
  send(body: string | Buffer, request: Partial<SignedRequest> = { secret: this.options.secret }): Promise<Reply> {
    const url = `${this.options.serverApi.replace('{host}', this.host).replace(/\/$/, '')}/stanzas`;
    return post({ url, type: 'application/xmpp+xml', body, ...request });
  }

  /** Sends one stanza. Returns its answer; undefined: there is none. @throws if the request is not accepted */
  async answer(stanza: Pick<Stanza, 'id' | 'xml'>): Promise<Answer | undefined> {
    const reply = await this.send(requestBody([stanza], ROOM_SECONDS));
    if (reply.status !== 200) throw new Error(`the request got ${reply.status}: ${reply.body}`);
    return readAnswers(reply.body).get(stanza.id);
  }

  /** A join that the server reported, or one that does not exist. */
  join(changes: Partial<Join> = {}): Join {
    const { room } = this.options;
    return { host: this.host, remote: this.remote, room, user: this.client.jid, nick: NICK, at: 1, ...changes };
  }

  /** Enters the room, and waits for the event of the new join. */
  async enter(nick = NICK, user = this.client): Promise<Join> {
    const before = this.receiver.events.length;
    await user.join(this.options.room, nick);
    const isIt = (event: Event): boolean =>
      event.type === 'muc.joined' && event.user === user.jid && event.nick === nick;
    const joined = await until('a webhook with muc.joined arrives', () =>
      this.receiver.events.slice(before).findLast(isIt),
    );
    return this.join({ user: user.jid, nick, at: joined.at });
  }

  /** Leaves the room, and waits for the event. */
  async leave(nick = NICK): Promise<Event> {
    const before = this.receiver.events.length;
    await this.client.leave(this.options.room, nick);
    return this.left(this.client, before);
  }

  /** Waits for the event of the end of a user's join. @param before the number of events that are not meant */
  left(user: User, before: number): Promise<Event> {
    return until('a webhook with muc.left arrives', () =>
      this.receiver.events.slice(before).find(({ type, user: who }) => type === 'muc.left' && who === user.jid),
    );
  }

  /** What the client receives while something is done. */
  async receivedDuring(what: () => Promise<unknown>): Promise<readonly Element[]> {
    const before = this.client.received.length;
    await what();
    await this.client.ping();
    await sleep(SETTLE_MS);
    return this.client.received
      .slice(before)
      .map(({ stanza }) => stanza)
      .filter((stanza) => !stanza.is('iq') && String(stanza.attrs['from']).startsWith(this.options.room));
  }

  async close(): Promise<void> {
    for (const user of [...this.#users, this.client]) await user.leaveServer();
    await this.receiver.stop();
  }
}

/** Whether a presence is a notice. */
export const isNotice = (stanza: Element): boolean => statusCodes(stanza).includes('333');

function login({ user, password, service }: Options, resource: string): Promise<User> {
  const at = user.indexOf('@');
  const server = { host: user.slice(at + 1), service, password };
  return User.connect({ keep: (part) => part }, server, user.slice(0, at), resource);
}
