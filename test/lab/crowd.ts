import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Lab, until } from './lab.ts';
import type { Prosody } from './prosody.ts';
import { User, statusCodes } from './user.ts';

/** Rooms that one session is in: the module watches 1,000. */
const ROOMS_PER_SESSION = 500;
/** Sessions that are in the same rooms: each hears of the others, as in real rooms. */
const SESSIONS_PER_ROOM = 2;
/** Presences that are on their way into rooms at a time. */
const JOINING = 1000;
/** What one of them may take on a busy machine. */
const MS_PER_JOIN = 20;

export interface Member {
  readonly user: User;
  readonly room: string;
  readonly nick: string;
  isIn: boolean;
  /** Notices that came since the last loss. */
  notices: number;
  /** The service has forgotten it. */
  isLost: boolean;
}

/** A chat service that can be made to forget. */
export interface ForgetfulService {
  room(name: string): string;
  /** Takes members for occupants no longer, without a word. */
  forgetThem(members: readonly Member[]): Promise<void>;
}

/** What clients were told of one loss. */
export interface Told {
  /** Notices to joins that the service still knew. */
  readonly wrong: number;
  /** Lost joins without a notice. */
  readonly missed: number;
  /** Notices beyond the first for one lost join, summed up; and the most that one of them got. */
  readonly double: number;
  readonly most: number;
  readonly notices: number;
}

/** Many joins on one chat service, 500 a session. */
export class Crowd {
  readonly members: readonly Member[];
  /** When the last notice came, in milliseconds. */
  lastNotice = 0;
  readonly #service: ForgetfulService;

  private constructor(service: ForgetfulService, members: readonly Member[]) {
    this.#service = service;
    this.members = members;
  }

  /** The users that a crowd of so many joins is made of. */
  static users(size: number): readonly string[] {
    return Array.from({ length: Math.ceil(size / ROOMS_PER_SESSION) }, (_, index) => `user${index}`);
  }

  /** Logs in the sessions; nobody is in a room yet. @param home has the crowd's users */
  static async open(lab: Lab, home: Prosody, service: ForgetfulService, size: number): Promise<Crowd> {
    const users: User[] = [];
    for (const name of Crowd.users(size)) users.push(await User.connect(lab, home, name, 'phone'));
    const members = Array.from({ length: size }, (_, index): Member => {
      const session = Math.floor(index / ROOMS_PER_SESSION);
      const room = service.room(`room-${Math.floor(session / SESSIONS_PER_ROOM)}-${index % ROOMS_PER_SESSION}`);
      return { user: users[session] as User, room, nick: `nick-${index}`, isIn: false, notices: 0, isLost: false };
    });
    const crowd = new Crowd(service, members);
    const own = Map.groupBy(members, ({ user }) => user);
    for (const user of users) {
      const occupants = new Map(own.get(user)?.map((member) => [`${member.room}/${member.nick}`, member]));
      user.watch((stanza) => {
        user.received.length = 0; // many come; what they say is kept here
        const member = occupants.get(String(stanza.attrs['from']));
        if (member === undefined || !stanza.is('presence')) return;
        const codes = statusCodes(stanza);
        if (codes.includes('110') && stanza.attrs['type'] === undefined) member.isIn = true;
        if (codes.includes('330')) {
          member.notices += 1;
          crowd.lastNotice = Date.now();
        }
      });
    }
    return crowd;
  }

  /** Everyone who is not in enters. Returns how many that were, when their rooms have confirmed them. */
  async enter(progress: (entered: number) => void = () => undefined): Promise<number> {
    const entering = this.members.filter(({ isIn }) => !isIn);
    const underWay = (sent: number): number => entering.slice(Math.max(0, sent - 2 * JOINING), sent).filter(({ isIn }) => !isIn).length;
    for (const [index, { user, room, nick }] of entering.entries()) {
      await user.enter(room, nick);
      if (index % JOINING !== JOINING - 1) continue;
      progress(index + 1);
      await until('the service keeps up', () => underWay(index + 1) <= JOINING, 2 * JOINING * MS_PER_JOIN);
    }
    await until('all are in', () => entering.every(({ isIn }) => isIn), 10_000 + JOINING * MS_PER_JOIN);
    return entering.length;
  }

  /** Everyone leaves. */
  async leave(): Promise<void> {
    for (const member of this.members) {
      await member.user.leave(member.room, member.nick);
      member.isIn = false;
    }
  }

  /** The service forgets some, by their index. What clients are told is counted from here. */
  async lose(isLost: (index: number) => boolean): Promise<void> {
    this.members.forEach((member, index) => {
      member.isLost = isLost(index);
      member.notices = 0;
    });
    const lost = this.members.filter((member) => member.isLost);
    if (lost.length > 0) await this.#service.forgetThem(lost);
    for (const member of lost) member.isIn = false;
  }

  /** What clients have been told since the last loss. */
  told(): Told {
    const told = { wrong: 0, missed: 0, double: 0, most: 0, notices: 0 };
    for (const { isLost, notices } of this.members) {
      told.notices += notices;
      if (!isLost) told.wrong += notices;
      else if (notices === 0) told.missed += 1;
      else told.double += notices - 1;
      if (isLost) told.most = Math.max(told.most, notices);
    }
    return told;
  }
}

/** The rooms of a real server. */
export class RealRooms implements ForgetfulService {
  readonly #server: Prosody;
  readonly #domain: string;
  readonly #file: string;

  /** @param domain one of the server's chat services */
  constructor(lab: Lab, server: Prosody, domain: string) {
    this.#server = server;
    this.#domain = domain;
    this.#file = join(lab.directory, `forget-${domain}`);
  }

  room(name: string): string {
    return `${name}@${this.#domain}`;
  }

  async forgetThem(members: readonly Member[]): Promise<void> {
    await writeFile(this.#file, members.map(({ room, user }) => `${room} ${user.jid}\n`).join(''));
    const muc = `require"core.modulemanager".get_module("${this.#domain}", "muc")`;
    const forget = 'local occupant = room:get_occupant_by_real_jid(user); occupant:remove_session(user); room:save_occupant(occupant)';
    await this.#server.shell(`>for line in io.lines("${this.#file}") do local room, user = line:match("^(%S+) (%S+)$"); room = ${muc}.get_room_from_jid(room); ${forget} end`);
  }
}
