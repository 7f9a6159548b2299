import type { Totals } from '../../functions/core/check-state.ts';
import { sleep, until } from '../lab.ts';
import { TwoServers } from '../two-servers.ts';
import type { User } from '../user.ts';
import type { Client, Starter } from './client.ts';

/** How the servers are set up, and what the room does when somebody comes back. */
export const MODES = {
  'with re-entry': { reenter: true },
  'with re-entry, into a room with an archive': { reenter: true, archive: true },
  'with re-entry, which the room refuses': { reenter: true, refuses: true },
  'with notices': { reenter: false },
  'without ping-muc': { reenter: false, withoutModule: true },
} as const satisfies Record<
  string,
  { readonly reenter: boolean; readonly archive?: true; readonly refuses?: true; readonly withoutModule?: true }
>;
export type Mode = keyof typeof MODES;

export const DELAY_SECONDS = 10;
/** The link is cut for so long: what the rooms sent meanwhile has bounced, and no word of theirs comes late. */
const CUT_MS = 5000;
export const NICK = 'Juliet';
export const EARLY = 'an early line';
export const MISSED: readonly string[] = [1, 2, 3, 4, 5].map((n) => `missed line ${n}`);
/** The room throws out whose server does not take its messages within so long. */
const BOUNCE_MS = 4000;
/** What was heard and what is missed are not of one second, since rooms stamp by the second and some clients sort by the stamps. */
const SECOND_MS = 1100;
/** A client that asks the room's archive when it enters has its answer by then: what is said meanwhile, Poezio shows twice. */
const SETTLE_MS = 2000;
const ENTER_MS = 40_000;

/** A client and its room. */
export interface ClientInRoom {
  readonly kind: string;
  readonly room: string;
  /** Undefined where it could not be started, for a reason. */
  readonly client: Client | undefined;
  readonly trouble?: string;
}

/** A scene with real clients, one a room, and three others in each room: Mercutio talks, Benvolio leaves, Tybalt comes. */
export class Loss {
  readonly testBed: TwoServers;
  readonly mercutio: User;
  readonly clients: ClientInRoom[] = [];
  /** When the link was cut, in milliseconds. */
  cutAt = 0;
  readonly #mode: Mode;
  readonly #benvolio: User;
  readonly #tybalt: User;

  private constructor(testBed: TwoServers, mode: Mode, [mercutio, benvolio, tybalt]: readonly [User, User, User]) {
    this.testBed = testBed;
    this.mercutio = mercutio;
    this.#mode = mode;
    this.#benvolio = benvolio;
    this.#tybalt = tybalt;
  }

  /** @param users who sits before which kind of client */
  static async open(mode: Mode, users: readonly string[]): Promise<Loss> {
    const settings = { ping_muc_delay: DELAY_SECONDS, ping_muc_reenter: MODES[mode].reenter };
    const forMucs = 'archive' in MODES[mode] ? 'modules_enabled = { "muc_mam" }' : '';
    const testBed = await TwoServers.open(settings, {
      production: {},
      users,
      guests: ['mercutio', 'benvolio', 'tybalt'],
      forMucs,
    });
    try {
      if ('withoutModule' in MODES[mode])
        await testBed.home.shell(`module:unload("ping_muc_webhook", "${testBed.home.host}")`);
      return new Loss(testBed, mode, [
        await testBed.guest('mercutio'),
        await testBed.guest('benvolio'),
        await testBed.guest('tybalt'),
      ]);
    } catch (error) {
      await testBed.close();
      throw error;
    }
  }

  /** Has a client enter a room of its own, and hear a line there. */
  async addClient(kind: string, start: Starter, user = kind, roomName = kind): Promise<void> {
    const room = this.testBed.room(roomName);
    await this.mercutio.join(room, 'Mercutio');
    await this.#benvolio.join(room, 'Benvolio');
    try {
      const client = await start({ lab: this.testBed.lab, server: this.testBed.home, user, room, nick: NICK });
      await until(`${client.name} is in its room`, () => this.isInRoom(room), ENTER_MS);
      await sleep(SETTLE_MS);
      await this.mercutio.sendMessage(room, EARLY);
      await until(`${client.name} shows a line`, async () => (await client.shown()).includes(EARLY));
      this.clients.push({ kind, room, client });
    } catch (error) {
      this.clients.push({
        kind,
        room,
        client: undefined,
        trouble: error instanceof Error ? error.message : String(error),
      });
    }
  }

  /** The link is cut; much happens in the rooms; the rooms throw out whom they cannot reach; the link is mended. */
  async lose(): Promise<void> {
    const { home, away } = this.testBed;
    const rooms = this.clients.filter(({ client }) => client !== undefined).map(({ room }) => room);
    await sleep(SECOND_MS);
    await Promise.all([home.cut(), away.cut()]);
    this.cutAt = Date.now();
    for (const line of MISSED) for (const room of rooms) await this.mercutio.sendMessage(room, line);
    for (const room of rooms) {
      await until(`${room} throws out whom it cannot reach`, () => !this.isInRoom(room), BOUNCE_MS);
      await this.#benvolio.leave(room, 'Benvolio');
      await this.#tybalt.join(room, 'Tybalt');
      if ('refuses' in MODES[this.#mode]) await this.testBed.atRoom(room, 'room:set_members_only(true)');
    }
    await sleep(this.cutAt + CUT_MS - Date.now());
    await Promise.all([home.mend(), away.mend()]);
  }

  /** Whether the client is in its room, as the others there see it. */
  isInRoom(room: string): boolean {
    const last = this.mercutio.presences(room).findLast(({ attrs }) => attrs['from'] === `${room}/${NICK}`);
    return last !== undefined && last.attrs['type'] === undefined;
  }

  /** Whether the others in a room have heard the client say a line. */
  hasReceived(room: string, line: string): boolean {
    return this.mercutio.received.some(
      ({ stanza }) =>
        stanza.is('message') && stanza.attrs['from'] === `${room}/${NICK}` && stanza.getChildText('body') === line,
    );
  }

  /** What the check that followed the cut has done. */
  checked(): Promise<Totals> {
    return this.testBed.checkDone(this.cutAt);
  }

  /** Seconds since the cut. */
  get seconds(): number {
    return (Date.now() - this.cutAt) / 1000;
  }
}
