import type { Element } from '@xmpp/xml';
import { type Lab, until } from './lab.ts';
import { User, statusCodes } from './user.ts';
import type { Rooms, XmppServer } from './xmpp-server.ts';

/** Rooms of one session; the module watches up to 1,000. */
const ROOMS_PER_SESSION = 500;
/** Default number of occupants of a room: each receives the others' presence, as in real rooms. */
const PER_ROOM = 2;
/** Joins that are under way at a time. */
const JOINING = 1000;
/** How long one join may take on a busy machine, for each `A_FEW` occupants of the room. */
const MS_PER_JOIN = 20;
const A_FEW = 5;

export interface Member {
  readonly user: User;
  readonly room: string;
  readonly nick: string;
  /** Whether it is in the room, as its client sees it. */
  isIn: boolean;
  /** Notices and entries (available self-presences) since the last loss. */
  notices: number;
  entries: number;
  /** The service has dropped it. */
  isLost: boolean;
  /** The occupants of the room, as its client sees them. */
  readonly list: Set<string>;
}

/** A chat service that can drop occupants. */
export interface ChatService {
  room(name: string): string;
  /** Drops members from their rooms without notifying them. */
  dropMembers(members: readonly Member[]): Promise<void>;
}

/** The notices of one loss, counted by what is wrong with them. */
export interface NoticeCounts {
  /** Notices for joins that the service still knew. */
  readonly wrong: number;
  /** Lost joins without a notice. */
  readonly missed: number;
  /** Notices after the first for a lost join, in total, and the highest number for one join. */
  readonly double: number;
  readonly most: number;
  readonly notices: number;
}

/** The outcome of a loss for all members, as the rooms and the clients see it. */
export interface Outcomes {
  /** Lost members that are in the room again, as the room and the client agree, and were not notified. */
  readonly back: number;
  /** Lost members that were notified once, and are not in the room. */
  readonly notified: number;
  /** Lost members that are neither in the room nor notified. */
  readonly unresolved: number;
  /** Members in any other state, which is an error. `examples` describes the first ones. */
  readonly wrong: number;
  /** Members that entered, or asked to enter, more than once. This is an error if the link did not break. */
  readonly twice: number;
  /** Members that are back, but whose client's list of occupants differs from the room's. */
  readonly lists: number;
  readonly examples: readonly string[];
}

const MAX_EXAMPLES = 10;

/** Many joins on one chat service, up to 500 for each session. */
export class Population {
  readonly members: readonly Member[];
  /** The times of the last notice and the last entry, in milliseconds. */
  lastNotice = 0;
  lastEntry = 0;
  /** Presences that clients have received since the last loss. */
  presences = 0;
  readonly #service: ChatService;
  readonly #msPerJoin: number;

  private constructor(service: ChatService, members: readonly Member[], perRoom: number) {
    this.#service = service;
    this.members = members;
    this.#msPerJoin = Population.msPerJoin(perRoom);
  }

  /** How long one join may take on a busy machine, in milliseconds. */
  static msPerJoin(perRoom = PER_ROOM): number {
    return MS_PER_JOIN * Math.max(1, perRoom / A_FEW);
  }

  static #roomsPerSession(size: number, perRoom: number): number {
    return Math.min(ROOMS_PER_SESSION, Math.ceil(size / perRoom));
  }

  /** The users of a population with this number of joins. */
  static users(size: number, perRoom = PER_ROOM): readonly string[] {
    return Array.from(
      { length: Math.ceil(size / Population.#roomsPerSession(size, perRoom)) },
      (_, index) => `user${index}`,
    );
  }

  /** Logs in the sessions; nobody is in a room yet. @param home the server of these users */
  static async open(
    lab: Lab,
    home: XmppServer,
    service: ChatService,
    size: number,
    perRoom = PER_ROOM,
  ): Promise<Population> {
    const roomsPerSession = Population.#roomsPerSession(size, perRoom);
    const users: User[] = [];
    for (const name of Population.users(size, perRoom)) users.push(await User.connect(lab, home, name, 'phone'));
    const members = Array.from({ length: size }, (_, index): Member => {
      const session = Math.floor(index / roomsPerSession);
      const room = service.room(`room-${Math.floor(session / perRoom)}-${index % roomsPerSession}`);
      return {
        user: users[session] as User,
        room,
        nick: `nick-${index}`,
        isIn: false,
        notices: 0,
        entries: 0,
        isLost: false,
        list: new Set(),
      };
    });
    const population = new Population(service, members, perRoom);
    const own = Map.groupBy(members, ({ user }) => user);
    for (const user of users) {
      const byRoom = new Map(own.get(user)?.map((member) => [member.room, member]));
      user.watch((stanza) => {
        user.received.length = 0; // there are many; what matters is recorded here
        if (!stanza.is('presence')) return;
        const [room = '', nick = ''] = String(stanza.attrs['from']).split('/');
        const member = byRoom.get(room);
        // without a nick, it is the presence of the room itself: with its picture, from ejabberd
        if (member !== undefined && nick !== '') population.#record(member, nick, stanza);
      });
    }
    return population;
  }

  /** Records the presence of an occupant, as a member's client receives it. */
  #record(member: Member, nick: string, presence: Element): void {
    const type = presence.attrs['type'] as string | undefined;
    this.presences += 1;
    if (type === undefined) member.list.add(nick);
    else if (type === 'unavailable') member.list.delete(nick);
    if (nick !== member.nick) return;
    const codes = statusCodes(presence);
    if (codes.includes('110') && type === undefined) {
      member.isIn = true;
      member.entries += 1;
      this.lastEntry = Date.now();
    } else if (type === 'unavailable') {
      member.isIn = false;
      member.list.clear();
    }
    if (codes.includes('330')) {
      member.notices += 1;
      this.lastNotice = Date.now();
    }
  }

  /** All members who are not in their room enter it. Returns their number, when the rooms have confirmed them. */
  async enter(progress: (entered: number) => void = () => undefined): Promise<number> {
    const entering = this.members.filter(({ isIn }) => !isIn);
    const underWay = (sent: number): number =>
      entering.slice(Math.max(0, sent - 2 * JOINING), sent).filter(({ isIn }) => !isIn).length;
    for (const [index, { user, room, nick }] of entering.entries()) {
      await user.enter(room, nick);
      if (index % JOINING !== JOINING - 1) continue;
      progress(index + 1);
      await until('the service keeps up', () => underWay(index + 1) <= JOINING, 2 * JOINING * this.#msPerJoin);
    }
    await until('all are in', () => entering.every(({ isIn }) => isIn), 10_000 + JOINING * this.#msPerJoin);
    return entering.length;
  }

  /**
   * Members leave, by their index: all by default. Returns when their clients know it. Before, what their rooms send to
   * the others can be on its way for seconds, and live messages behind it.
   */
  async leave(leaves: (index: number) => boolean = () => true): Promise<void> {
    const leaving = this.members.filter((member, index) => member.isIn && leaves(index));
    for (const { user, room, nick } of leaving) await user.leave(room, nick);
    await until('all have left', () => leaving.every(({ isIn }) => !isIn), 10_000 + leaving.length * this.#msPerJoin);
  }

  /** The service drops some members, by their index. Notices and entries are counted from here. */
  async lose(isLost: (index: number) => boolean): Promise<void> {
    this.presences = 0;
    this.members.forEach((member, index) => {
      member.isLost = member.isIn && isLost(index);
      member.notices = 0;
      member.entries = 0;
    });
    const lost = this.members.filter((member) => member.isLost);
    if (lost.length > 0) await this.#service.dropMembers(lost);
    for (const member of lost) member.isIn = false;
  }

  /** The notices since the last loss. */
  noticeCounts(): NoticeCounts {
    const counts = { wrong: 0, missed: 0, double: 0, most: 0, notices: 0 };
    for (const { isLost, notices } of this.members) {
      counts.notices += notices;
      if (!isLost) counts.wrong += notices;
      else if (notices === 0) counts.missed += 1;
      else counts.double += notices - 1;
      if (isLost) counts.most = Math.max(counts.most, notices);
    }
    return counts;
  }

  /** The outcome of the last loss: what the clients received, compared with what the rooms say. */
  outcomes({ occupants, asked }: RoomsSide): Outcomes {
    const outcomes = {
      back: 0,
      notified: 0,
      unresolved: 0,
      wrong: 0,
      twice: 0,
      lists: 0,
      examples: [] as string[],
    };
    for (const member of this.members) {
      const { user, room, nick, isLost, isIn, notices, entries } = member;
      const there = occupants.get(room) ?? [];
      const nicks = there.filter(({ jid }) => jid === user.jid).map((session) => session.nick);
      const requests = asked.get(`${room} ${user.jid}`) ?? 0;
      if (entries > 1 || requests > 1) outcomes.twice += 1;
      const isThere = isIn && nicks.length === 1 && nicks[0] === nick;
      const isOut = !isIn && nicks.length === 0;
      const isUntouched = !isLost && notices === 0 && entries === 0 && requests === 0;
      if (isUntouched && (isThere || isOut)) continue;
      if (isLost && isThere && notices === 0) {
        outcomes.back += 1;
        const names = new Set(there.map((session) => session.nick));
        if (names.size === member.list.size && [...names].every((name) => member.list.has(name))) continue;
        outcomes.lists += 1;
      } else if (isLost && isOut && notices === 1) {
        outcomes.notified += 1;
        continue;
      } else if (isLost && isOut && notices === 0) outcomes.unresolved += 1;
      else outcomes.wrong += 1;
      if (outcomes.examples.length >= MAX_EXAMPLES) continue;
      const missing = there.filter((session) => !member.list.has(session.nick)).length;
      outcomes.examples.push(
        JSON.stringify({
          user: user.jid,
          room,
          nick,
          isLost,
          isIn,
          notices,
          entries,
          nicks,
          requests,
          list: member.list.size,
          there: there.length,
          missing,
        }),
      );
    }
    return outcomes;
  }
}

/** What the rooms know. */
export interface RoomsSide {
  /** The sessions in each room. */
  readonly occupants: ReadonlyMap<string, readonly { readonly jid: string; readonly nick: string }[]>;
  /** How often a session has asked to enter a room since `countEntries`: `<room> <user>` → count. */
  readonly asked: ReadonlyMap<string, number>;
}

/** The rooms of a real server. */
export class RealRooms implements ChatService {
  readonly #rooms: Rooms;
  readonly #domain: string;

  /** @param domain one of the server's chat services */
  constructor(server: Pick<XmppServer, 'rooms'>, domain: string) {
    this.#rooms = server.rooms;
    this.#domain = domain;
  }

  /** From here on, counts the requests to enter a room. */
  countEntries(): Promise<void> {
    return this.#rooms.countEntries(this.#domain);
  }

  /** Asks the server what the rooms know. */
  async ask(): Promise<RoomsSide> {
    const occupants = await this.#rooms.occupants(this.#domain);
    const asked = await this.#rooms.entries(this.#domain);
    return { occupants: Map.groupBy(occupants, ({ room }) => room), asked };
  }

  room(name: string): string {
    return `${name}@${this.#domain}`;
  }

  dropMembers(members: readonly Member[]): Promise<void> {
    return this.#rooms.drop(members.map(({ room, user: { jid } }) => ({ room, jid })));
  }
}
