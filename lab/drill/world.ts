import { random } from '../random.ts';
import { Sender } from './sender.ts';
import { KEYS, type Synthesized, VirtualStack } from './stack.ts';
import { VirtualClock } from './virtual-clock.ts';
import { type ServerJoin, slotOf } from './xmpp-server.ts';

export const [SECOND, MINUTE, HOUR] = [1000, 60_000, 3_600_000];
/** When every world begins: a Monday, at midnight. */
const BEGINNING = Date.UTC(2026, 10, 30);
/** A client that gets a notice enters again after so long. */
const REJOIN_MS = 5 * SECOND;
const MINUTES_OF_DAY = 1440;

/** How a server is configured. The values are the defaults of mod_ping_muc_webhook. */
const SETTINGS = { delay: 60, timeout: 60, patience: 300, dry_run: false, reenter: false };

export interface Size {
  readonly hosts: number;
  readonly remotes: number;
  /** Joins of all hosts. */
  readonly joins: number;
}

/**
 * XMPP servers with users in remote rooms, and the stack that they report to, in virtual time. This process has one
 * world at a time.
 */
export class World {
  readonly clock: VirtualClock;
  readonly stack: VirtualStack;
  readonly senders: readonly Sender[];
  readonly remotes: readonly string[];
  /** Further settings of the servers, which their closes carry. */
  settings: Readonly<Record<string, unknown>> = {};
  readonly chance = random(5);
  readonly #at = new Map<string, number>();
  /** The joins that are reported again, for each minute of the day. Some may have ended. */
  readonly #renewals: ServerJoin[][] = [];
  /** The joins of each host on each remote host. */
  readonly #joins = new Map<string, Map<string, ServerJoin>>();
  #users = 0;

  private constructor(stack: VirtualStack, clock: VirtualClock, { hosts, remotes }: Size) {
    this.stack = stack;
    this.clock = clock;
    this.senders = Array.from({ length: hosts }, (_, n) => new Sender(`xmpp${n}.example`, KEYS, stack.deliver));
    this.remotes = Array.from({ length: remotes }, (_, n) => `muc${n}.example`);
    stack.server.onNotice = (join) => {
      this.#linkOf(join.host, join.remote).delete(slotOf(join.room, join.user));
      void this.clock.sleep(REJOIN_MS).then(() => this.#enter(join));
    };
  }

  /** Plays in a world, which is closed afterwards. */
  static async with<Result>(
    synthesized: Synthesized,
    size: Size,
    play: (world: World) => Promise<Result>,
  ): Promise<Result> {
    const clock = VirtualClock.install(BEGINNING);
    try {
      const stack = await VirtualStack.open(synthesized, clock);
      try {
        const world = new World(stack, clock, size);
        for (let n = 0; n < size.joins; n += 1) world.join();
        return await play(world);
      } finally {
        await stack.close();
      }
    } finally {
      clock.uninstall();
    }
  }

  /** A new session enters a room of a remote host. */
  join(host = this.#any(this.senders).host, remote = this.#any(this.remotes)): void {
    this.#users += 1;
    this.#enter({
      host,
      remote,
      user: `user${this.#users}@${host}/phone`,
      room: `room${this.#users % 20}@${remote}`,
      nick: `nick${this.#users}`,
    });
  }

  /** A session leaves its room: the one that has entered last, so that most users stay for long. */
  leave(host = this.#any(this.senders).host, remote = this.#any(this.remotes)): void {
    const join = [...this.#linkOf(host, remote).values()].at(-1);
    if (join === undefined) return;
    const { user, room } = join;
    this.#linkOf(host, remote).delete(slotOf(room, user));
    this.stack.server.joins.delete(slotOf(room, user));
    this.#report(host, { type: 'muc.left', at: this.#nextAt(host), user, room });
  }

  /** Reports the joins again whose turn it is in this minute: each once a day (ping_muc_refresh). */
  renew(): void {
    const minute = Math.floor(this.clock.now / MINUTE) % MINUTES_OF_DAY;
    const { joins } = this.stack.server;
    const due = [...(this.#renewals[minute] ?? [])].filter(
      ({ room, user, at }) => joins.get(slotOf(room, user))?.at === at,
    );
    this.#renewals[minute] = due;
    for (const { host, user, room, nick, at } of due) this.#report(host, { type: 'muc.joined', at, user, room, nick });
  }

  /** The connection to a remote host closes. A share of its users is no longer in the rooms. */
  close(lost = 0, host = this.#any(this.senders).host, remote = this.#any(this.remotes)): void {
    const { server } = this.stack;
    const slots = [...this.#linkOf(host, remote).keys()];
    for (const slot of slots.slice(0, Math.ceil(slots.length * lost))) server.lost.add(slot);
    const event = { type: 's2s.closed', at: this.#nextAt(host), remote, direction: 'outgoing' };
    this.#report(host, { ...event, ...SETTINGS, ...this.settings });
  }

  /**
   * A server stops, and starts again later. Its sessions end, and the users enter again within a minute.
   * @param ms for how long it is down
   */
  async restart(sender: Sender, ms: number): Promise<void> {
    const { server } = this.stack;
    const joins = [...server.joins.values()].filter(({ host }) => host === sender.host);
    for (const { room, user } of joins) server.joins.delete(slotOf(room, user));
    server.faults.set(sender.host, { kind: 'unreachable' });
    sender.isDown = true;
    await this.clock.sleep(ms);
    server.faults.delete(sender.host);
    sender.isDown = false;
    for (const [index, join] of joins.entries()) {
      if (index % Math.ceil(joins.length / 60) === 0) await this.clock.sleep(SECOND);
      this.#enter(join);
    }
  }

  /** Nothing has arrived from a room for a long time. */
  askAbout(host = this.#any(this.senders).host, remote = this.#any(this.remotes)): void {
    const [join] = this.#linkOf(host, remote).values();
    if (join === undefined) return;
    const event = { type: 'check.requested', cause: 'silence', at: this.#nextAt(host), remote, room: join.room };
    this.#report(host, { ...event, ...SETTINGS, delay: 0 });
  }

  /** Calls `act` every so often, from now on until the returned function is called. */
  every(ms: number, act: () => void): () => void {
    const timer = setInterval(act, ms);
    return () => clearInterval(timer);
  }

  #enter(join: Omit<ServerJoin, 'at'>): void {
    const { host, remote, user, room, nick } = join;
    const at = this.#nextAt(host);
    const slot = slotOf(room, user);
    this.stack.server.joins.set(slot, { ...join, at });
    this.stack.server.lost.delete(slot);
    this.#linkOf(host, remote).set(slot, { ...join, at });
    (this.#renewals[at % MINUTES_OF_DAY] ??= []).push({ ...join, at });
    this.#report(host, { type: 'muc.joined', at, user, room, nick });
  }

  #report(host: string, event: object): void {
    this.senders.find((sender) => sender.host === host)?.report(event);
  }

  #linkOf(host: string, remote: string): Map<string, ServerJoin> {
    const key = `${host} ${remote}`;
    const known = this.#joins.get(key) ?? new Map<string, ServerJoin>();
    this.#joins.set(key, known);
    return known;
  }

  /** A moment after all others of the host so far, in microseconds. */
  #nextAt(host: string): number {
    const next = Math.max((this.#at.get(host) ?? 0) + 1, this.clock.now * 1000);
    this.#at.set(host, next);
    return next;
  }

  #any<One>(all: readonly One[]): One {
    const one = all[Math.floor(this.chance() * all.length)];
    if (one === undefined) throw new Error('the world is empty');
    return one;
  }
}
