import { setImmediate as turn } from 'node:timers/promises';
import xml, { Parser, type Element } from '@xmpp/xml';
import { runCheck } from '../../functions/core/check.ts';
import {
  type CheckPorts,
  type CheckState,
  type CloseRecord,
  type HoldRecord,
  type StoredJoin,
  firstState,
} from '../../functions/core/check-state.ts';
import type { CheckRequest, Join, JoinedEvent, LeftEvent } from '../../functions/core/events.ts';
import { requestBody, readAnswers } from '../../functions/core/stanzas.ts';
import { waitSeconds } from '../../functions/core/time.ts';

/**
 * A small world in memory: a table that is a plain map, an XMPP server that answers as the contract says, rooms on one
 * remote host, and a clock that only moves when something waits.
 */

export const HOST = 'example.net';
export const REMOTE = 'muc.host';
const NS_JOIN = 'urn:ping-muc:0';
/** When every world begins, in seconds since the epoch. */
export const BEGINNING = 1_795_355_000;

/** The elements below the root of a document. */
export function elements(document: string): Element[] {
  const found: Element[] = [];
  const parser = new Parser();
  parser.on('element', (element: Element) => found.push(element));
  parser.on('error', (error: Error) => {
    throw error;
  });
  parser.write(document);
  return found;
}

/** The table, as a plain map: what the real one must come to. */
export class MapTable {
  readonly rows = new Map<string, StoredJoin & { state: 'joined' | 'left' }>();
  readonly closes = new Map<string, CloseRecord>();
  /** The slots of all rows, and maybe of some that are gone, by the bytes of their keys. */
  #order: { readonly slot: string; readonly bytes: Buffer }[] | undefined;

  #slot({ host, remote }: Pick<Join, 'host' | 'remote'>, key: string): string {
    return `${host}\n${remote}\n${key}`;
  }

  record(event: JoinedEvent | LeftEvent): void {
    const key = `${event.room}#${event.user}`;
    const slot = this.#slot(event, key);
    const known = this.rows.get(slot);
    if (known !== undefined && known.at > event.at) return;
    if (known === undefined) this.#order = undefined;
    const { host, remote, room, user, at } = event;
    const mark =
      known?.undecidedBy === undefined || event.type === 'muc.left' ? {} : { undecidedBy: known.undecidedBy };
    const [nick, state] = event.type === 'muc.joined' ? ([event.nick, 'joined'] as const) : (['', 'left'] as const);
    this.rows.set(slot, { host, remote, room, user, nick, at, key, state, ...mark });
  }

  /** A page of joins made before the close, after `cursor`, and whether there are more rows. */
  page(
    close: CheckRequest,
    cursor: string | undefined,
    size: number,
  ): { joins: StoredJoin[]; last: string | undefined } {
    this.#order ??= [...this.rows]
      .map(([slot, { key }]) => ({ slot, bytes: Buffer.from(key) }))
      .sort((one, other) => Buffer.compare(one.bytes, other.bytes));
    const start = Buffer.from(cursor ?? '');
    const rows = this.#order
      .filter(({ bytes }) => Buffer.compare(bytes, start) > 0)
      .flatMap(({ slot }) => this.rows.get(slot) ?? [])
      .filter(
        ({ host, remote, room }) => host === close.host && remote === close.remote && room === (close.room ?? room),
      );
    const joins = rows.slice(0, size).filter(({ state, at }) => state === 'joined' && at < close.at);
    return {
      joins: joins.map(({ state: _state, ...join }) => join),
      last: rows.length > size ? rows[size - 1]?.key : undefined,
    };
  }

  deleteJoin(join: StoredJoin): void {
    const slot = this.#slot(join, join.key);
    if (this.rows.get(slot)?.at === join.at) this.rows.delete(slot);
  }

  markUndecided(join: StoredJoin, checkAt: number): void {
    const slot = this.#slot(join, join.key);
    const row = this.rows.get(slot);
    if (row?.at === join.at && (row.undecidedBy ?? -1) < checkAt) this.rows.set(slot, { ...row, undecidedBy: checkAt });
  }

  markDecided(join: StoredJoin, checkAt: number): void {
    const slot = this.#slot(join, join.key);
    const row = this.rows.get(slot);
    if (row?.at !== join.at || row.undecidedBy === undefined || row.undecidedBy > checkAt) return;
    const { undecidedBy: _mark, ...rest } = row;
    this.rows.set(slot, rest);
  }

  recordClose(close: CheckRequest): void {
    const slot = this.#slot(close, `close ${close.room ?? ''}`);
    const known = this.closes.get(slot);
    if (known !== undefined && known.at >= close.at) return;
    this.closes.set(slot, {
      ...known,
      at: close.at,
      delay: close.delay,
      oldestUnanswered: known?.oldestUnanswered ?? close.at,
    });
  }

  readClose(close: CheckRequest): CloseRecord | undefined {
    return this.closes.get(this.#slot(close, `close ${close.room ?? ''}`));
  }

  claimClose(close: CheckRequest, seen: CloseRecord, oldest: number): boolean {
    const slot = this.#slot(close, `close ${close.room ?? ''}`);
    const known = this.closes.get(slot);
    if (known?.at !== seen.at) return false;
    const { oldestUnanswered: _answered, ...rest } = known;
    this.closes.set(slot, {
      ...rest,
      checkBegun: close.at,
      oldestAnswered: oldest,
      ...(seen.at > close.at ? { oldestUnanswered: close.at } : {}),
    });
    return true;
  }

  passOn(close: CheckRequest, oldest: number): void {
    const slot = this.#slot(close, `close ${close.room ?? ''}`);
    const known = this.closes.get(slot);
    if (known === undefined || (known.checkBegun ?? 0) > close.at || (known.oldestUnanswered ?? Infinity) <= oldest)
      return;
    this.closes.set(slot, { ...known, oldestUnanswered: oldest });
  }
}

/** What a script says of a stanza: nothing comes back, or an error of a type and a condition, perhaps with a text. */
export type Scripted =
  'silence' | 'broken' | 'host silence' | { type: string; condition: string; text?: string; by?: string };

/** What a room is asked. */
export type Kind = 'ping' | 'disco' | 'reentry';

export class Room {
  /** Nicks by the occupants' full JIDs. */
  readonly occupants = new Map<string, string>();
  exists = true;
  /** Whether its history is too short for those who re-enter. */
  forgets = false;
  /** Says what this room answers, where it is not what a room ordinarily would. */
  script?: (kind: Kind, user: string) => Scripted | undefined;
}

interface Notice extends Pick<Join, 'user' | 'room' | 'nick' | 'at'> {
  readonly reason: string;
}

/** The XMPP server and the rooms behind it. */
export class Server {
  readonly sessions = new Set<string>();
  /** What the server knows of joins: nick and `at` by room and session. */
  readonly joins = new Map<string, { nick: string; at: number }>();
  readonly rooms = new Map<string, Room>();
  /** Whether stanzas reach the remote host; if not, how the server says so. */
  link: 'up' | 'remote-server-not-found' | 'remote-server-timeout' = 'up';
  /** The newest close that the server knows, µs, where it says so. */
  closed: number | undefined;
  /** Rooms and sessions that are entering again at this moment: no notice. */
  readonly rejoining = new Set<string>();
  /** The notices that clients have got. */
  readonly notices: Notice[] = [];
  /** How many of them for each room and session. */
  readonly noticeCounts = new Map<string, number>();
  readonly pings: string[] = [];
  /** Rooms and sessions that have asked to re-enter, in their order, and those whom the room has let in. */
  readonly reentries: string[] = [];
  readonly back: string[] = [];
  /** What the server itself says to a re-entry, by room and session, instead of asking the room. */
  noReentry: ((slot: string) => Exclude<Scripted, string> | undefined) | undefined;
  /** Reports a new join. */
  onBack: ((join: Pick<Join, 'room' | 'user' | 'nick'>) => number) | undefined;
  /** The rooms asked for disco#info, each time. */
  readonly queries: string[] = [];

  room(jid: string): Room {
    const room = this.rooms.get(jid) ?? new Room();
    this.rooms.set(jid, room);
    return room;
  }

  /** Answers a request of the contract. */
  answer(request: string): { document: string; timedOut: boolean } {
    const answers = elements(request).map((stanza) => this.#answer(stanza));
    return {
      document: `<xmpp>${answers.filter((answer) => answer !== undefined).join('')}</xmpp>`,
      timedOut: answers.some((answer) => answer?.includes('remote-server-timeout')),
    };
  }

  #answer(stanza: Element): string | undefined {
    const { from, to } = stanza.attrs as { from: string; to: string };
    const [user, occupant] = stanza.attrs['type'] === 'unavailable' ? [to, from] : [from, to];
    const [room = '', ...nickParts] = occupant.split('/');
    const nick = nickParts.join('/');
    if (!this.sessions.has(user))
      return error(stanza, { type: 'cancel', condition: 'recipient-unavailable', by: HOST });
    if (stanza.getChild('query', 'http://jabber.org/protocol/disco#info')) {
      this.queries.push(room);
      return this.#fromRoom(stanza, room, 'disco', user, nick);
    }
    const at = Number(stanza.getChild('join', NS_JOIN)?.attrs['at']);
    const join = this.joins.get(`${room} ${user}`);
    if (join?.at !== at || join.nick !== nick)
      return error(stanza, { type: 'cancel', condition: 'conflict', by: HOST });
    if (stanza.name === 'iq') {
      this.pings.push(`${room} ${user}`);
      return this.#fromRoom(stanza, room, 'ping', user, nick);
    }
    const slot = `${room} ${user}`;
    if (stanza.attrs['type'] === undefined) this.reentries.push(slot);
    if (this.rejoining.has(slot)) {
      return error(stanza, { type: 'cancel', condition: 'conflict', by: HOST }, xml('rejoining', { xmlns: NS_JOIN }));
    }
    if (stanza.attrs['type'] === undefined) {
      const own = this.noReentry?.(slot);
      return own === undefined ? this.#fromRoom(stanza, room, 'reentry', user, nick) : error(stanza, own);
    }
    this.joins.delete(slot);
    const item = stanza.getChild('x')?.getChild('item');
    this.notices.push({ user, room, nick, at, reason: item?.getChildText('reason') ?? '' });
    this.noticeCounts.set(slot, (this.noticeCounts.get(slot) ?? 0) + 1);
    return undefined;
  }

  #fromRoom(stanza: Element, jid: string, kind: Kind, user: string, nick: string): string {
    const closed = this.closed === undefined ? [] : [xml('closed', { xmlns: NS_JOIN, at: String(this.closed) })];
    const unreached = { type: 'wait', condition: 'remote-server-timeout', by: HOST };
    if (this.link === 'remote-server-not-found')
      return error(stanza, { ...unreached, condition: this.link }, ...closed);
    if (this.link === 'remote-server-timeout') return error(stanza, unreached, ...closed);
    const room = this.rooms.get(jid);
    const scripted = room?.script?.(kind, user);
    if (typeof scripted === 'string') {
      const [streams, heard] = {
        silence: ['kept', 'true'],
        broken: ['broken', 'true'],
        'host silence': ['kept', 'false'],
      }[scripted];
      return error(stanza, unreached, xml('no-answer', { xmlns: NS_JOIN, streams, heard }), ...closed);
    }
    if (scripted !== undefined) return error(stanza, scripted);
    if (kind === 'reentry') return this.#enter(stanza, jid, user, nick);
    if (!room?.exists) return error(stanza, { type: 'cancel', condition: 'item-not-found' });
    if (kind === 'disco' || room.occupants.get(user) === nick) return answer(stanza, 'result').toString();
    return error(stanza, { type: 'cancel', condition: room.occupants.has(user) ? 'item-not-found' : 'not-acceptable' });
  }

  /** A room admits everyone who enters, and is created if it was gone: a new join. */
  #enter(stanza: Element, jid: string, user: string, nick: string): string {
    const room = this.room(jid);
    room.exists = true;
    room.occupants.set(user, nick);
    this.back.push(`${jid} ${user}`);
    this.joins.set(`${jid} ${user}`, { nick, at: this.onBack?.({ room: jid, user, nick }) ?? 0 });
    const whole = answer(stanza);
    whole.append(xml('x', { xmlns: 'http://jabber.org/protocol/muc#user' }, xml('status', { code: '110' })));
    if (room.forgets) whole.append(xml('reentry', { xmlns: NS_JOIN, missed: 'yes' }));
    return whole.toString();
  }
}

function answer(stanza: Element, type?: string): Element {
  const { id, from, to } = stanza.attrs as Record<string, string>;
  return xml(stanza.name, { ...(type === undefined ? {} : { type }), id, from: to, to: from });
}

function error(stanza: Element, { type, condition, text, by }: Exclude<Scripted, string>, ...more: Element[]): string {
  const xmlns = 'urn:ietf:params:xml:ns:xmpp-stanzas';
  const texts = text === undefined ? [] : [xml('text', { xmlns }, text)];
  const attrs = by === undefined ? { type } : { type, by };
  const whole = answer(stanza, 'error');
  whole.append(xml('error', attrs, xml(condition, { xmlns }), ...texts, ...more));
  return whole.toString();
}

type PortName = Exclude<keyof CheckPorts, keyof OperatorPorts | 'now' | 'remaining'>;

/** The ports to what operators control. They take no time, and no hook sees them. */
type OperatorPorts = Pick<CheckPorts, 'isPaused' | 'readHold' | 'countTold' | 'recordHold' | 'forgetHold'>;

interface Call {
  readonly port: PortName;
  readonly phase: 'before' | 'after';
  /** The number of this call among all calls, from 1. */
  readonly n: number;
  readonly stanzas?: string;
}

/** An invocation that dies. */
export class Crash extends Error {
  override readonly name = 'Crash';
}

export interface Run {
  readonly state: CheckState;
  readonly invocations: number;
  /** The waits between rounds, in seconds. */
  readonly waits: number[];
  readonly pages: number;
}

export class World {
  readonly table = new MapTable();
  readonly server = new Server();
  /** Milliseconds since the epoch. */
  now = BEGINNING * 1000;
  /** Milliseconds that an invocation may take. */
  limit = 900_000;
  /** What a request takes, in milliseconds. */
  latency = 20;
  /** Called around every call of a port: may pause it, break it, or change the world. */
  hook: ((call: Call) => Promise<void> | undefined) | undefined;
  /** Whether an operator has paused all checks. */
  isPaused = false;
  /** What is on record about the limits of notices, and which checks are held, by their ids. */
  readonly holds = new Map<string, HoldRecord & { readonly state?: CheckState }>();
  /** What is called when a check waits. */
  onWait: ((state: CheckState) => void) | undefined;
  calls = 0;
  readonly most = { requests: 0, pings: 0, reentries: 0, stanzas: 0, held: 0, writes: 0 };
  /** Users who were told, each time, in milliseconds since the epoch. */
  readonly told: { readonly users: number; readonly at: number }[] = [];
  readonly #flying = { requests: 0, pings: 0, reentries: 0, held: 0, writes: 0 };
  #at = BEGINNING * 1e6;

  constructor() {
    this.server.onBack = ({ room, user, nick }) => {
      const event = { type: 'muc.joined', host: HOST, remote: REMOTE, room, user, nick, at: this.nextAt() } as const;
      this.table.record(event);
      return event.at;
    };
  }

  /** A moment after all others so far, in microseconds. */
  nextAt(): number {
    this.#at = Math.max(this.#at + 1, this.now * 1000);
    return this.#at;
  }

  /** A session enters a room, and the server reports it. */
  join(user: string, room: string, nick = 'nick'): JoinedEvent {
    const full = `${user}@${HOST}/phone`;
    const event = {
      type: 'muc.joined',
      host: HOST,
      remote: REMOTE,
      room: `${room}@${REMOTE}`,
      user: full,
      nick,
      at: this.nextAt(),
    } as const;
    this.server.sessions.add(full);
    this.server.joins.set(`${event.room} ${full}`, { nick, at: event.at });
    this.server.room(event.room).occupants.set(full, nick);
    this.table.record(event);
    return event;
  }

  /** The room no longer knows this occupant. */
  lose(join: Join): Join {
    this.server.room(join.room).occupants.delete(join.user);
    return join;
  }

  close(options: Partial<CheckRequest> = {}): CheckRequest {
    const close = {
      host: HOST,
      remote: REMOTE,
      at: this.nextAt(),
      delay: 60,
      timeout: 60,
      patience: 0,
      dryRun: false,
      reenter: false,
      cause: 'close' as const,
      ...options,
    };
    this.table.recordClose(close);
    return close;
  }

  /** How many notices a client has got for a join. */
  noticesTo(join: Join): number {
    return this.server.noticeCounts.get(`${join.room} ${join.user}`) ?? 0;
  }

  ports(ends = this.now + this.limit): CheckPorts {
    const { table, server } = this;
    const around = async <Result>(
      port: PortName,
      act: () => Result | Promise<Result>,
      stanzas?: string,
    ): Promise<Result> => {
      const n = (this.calls += 1);
      const call = { port, n, ...(stanzas === undefined ? {} : { stanzas }) };
      await this.hook?.({ ...call, phase: 'before' });
      await turn();
      const result = await act();
      await this.hook?.({ ...call, phase: 'after' });
      return result;
    };
    const write = (port: PortName, act: () => void): Promise<void> =>
      this.#counting('writes', 1, () => around(port, act));
    const worldOf = this.#send.bind(this);
    const hold = (count: number): void => {
      this.#flying.held += count;
      this.most.held = Math.max(this.most.held, this.#flying.held);
    };
    return {
      async *readJoins(close, cursor) {
        let start = cursor;
        do {
          const { joins, last } = await around('readJoins', () => table.page(close, start, 1000));
          hold(joins.length);
          yield joins;
          start = last;
        } while (start !== undefined);
      },
      send: (_host, stanzas, timeout) => {
        const request = requestBody(stanzas, timeout);
        return around(
          'send',
          () => worldOf(request, stanzas.length, timeout, () => server.answer(request), hold),
          request,
        );
      },
      deleteJoin: (join) => write('deleteJoin', () => table.deleteJoin(join)),
      markUndecided: (join, checkAt) => write('markUndecided', () => table.markUndecided(join, checkAt)),
      markDecided: (join, checkAt) => write('markDecided', () => table.markDecided(join, checkAt)),
      readClose: (close) => around('readClose', () => table.readClose(close)),
      claimClose: (close, seen, oldest) => around('claimClose', () => table.claimClose(close, seen, oldest)),
      passOn: (close, oldest) => around('passOn', () => table.passOn(close, oldest)),
      told: (users) => this.told.push({ users, at: this.now }),
      ...this.#operatorPorts(),
      now: () => this.now,
      remaining: () => ends - this.now,
    };
  }

  #operatorPorts(): OperatorPorts {
    const known = (id: string): HoldRecord => this.holds.get(id) ?? { told: 0 };
    return {
      isPaused: () => Promise.resolve(this.isPaused),
      readHold: (id) => Promise.resolve(known(id)),
      countTold: async (id, count) => {
        await turn();
        this.holds.set(id, { ...known(id), told: known(id).told + count });
      },
      recordHold: (state) => {
        this.holds.set(state.id, { ...known(state.id), state });
        return Promise.resolve();
      },
      forgetHold: (id) => {
        this.holds.delete(id);
        return Promise.resolve();
      },
    };
  }

  /** An operator decides about a held check. */
  decide(id: string, decision: 'release' | 'drop'): void {
    this.holds.set(id, { told: 0, ...this.holds.get(id), decision });
  }

  async #send(
    request: string,
    count: number,
    timeout: number,
    act: () => { document: string; timedOut: boolean },
    hold: (count: number) => void,
  ): Promise<ReturnType<typeof readAnswers>> {
    const began = this.now;
    const pings = request.includes('urn:xmpp:ping') ? count : 0;
    const reentries = request.includes('"http://jabber.org/protocol/muc"') ? count : 0;
    this.most.stanzas = Math.max(this.most.stanzas, count);
    const { document, timedOut } = await this.#counting('requests', 1, () =>
      this.#counting('pings', pings, () =>
        this.#counting('reentries', reentries, async () => {
          await turn();
          return act();
        }),
      ),
    );
    hold(-pings);
    this.now = Math.max(this.now, began + (timedOut ? timeout * 1000 : this.latency));
    return readAnswers(document);
  }

  async #counting<Result>(
    what: 'requests' | 'pings' | 'reentries' | 'writes',
    count: number,
    act: () => Promise<Result>,
  ): Promise<Result> {
    this.#flying[what] += count;
    this.most[what] = Math.max(this.most[what], this.#flying[what]);
    try {
      return await act();
    } finally {
      this.#flying[what] -= count;
    }
  }

  /** The first input of a close's check. */
  start(close: CheckRequest): CheckState {
    return firstState(close, `check-${close.at}`, waitSeconds(close, this.now / 1000), this.now / 1000);
  }

  /** Runs the workflow of a close from its delay to its end; what died is run again from its own input. */
  async check(close: CheckRequest, from = this.start(close)): Promise<Run> {
    let state = from;
    const waits: number[] = [];
    let pages = 0;
    this.now = Math.max(this.now, close.at / 1000 + close.delay * 1000);
    for (let invocations = 1; invocations < 10_000; invocations += 1) {
      try {
        // an execution's state travels as JSON
        state = JSON.parse(
          JSON.stringify(await runCheck(JSON.parse(JSON.stringify(state)) as CheckState, this.ports())),
        ) as CheckState;
      } catch (error) {
        if (error instanceof Crash) continue;
        throw error;
      }
      if (state.next === 'done') return { state, invocations, waits, pages };
      if (state.next === 'page') pages += 1;
      if (state.next === 'wait') {
        waits.push(state.wait);
        this.now += state.wait * 1000;
        this.onWait?.(state);
      }
    }
    throw new Error('the check does not come to an end');
  }
}
