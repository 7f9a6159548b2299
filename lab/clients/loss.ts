import type { Totals } from '../../functions/core/check-state.ts';
import { sleep, until } from '../lab.ts';
import { Prosody } from '../prosody.ts';
import { TwoServers } from '../two-servers.ts';
import type { User } from '../user.ts';
import type { Client, Starter } from './client.ts';

/** How the servers are configured, and what the room does when a user enters again. */
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
/** How long the link is cut: what the rooms send has bounced by then, and nothing of it arrives late. */
const CUT_MS = 5000;
export const NICK = 'Juliet';
export const EARLY = 'an early line';
export const MISSED: readonly string[] = [1, 2, 3, 4, 5].map((n) => `missed line ${n}`);
/** Within this time a room removes an occupant whose server does not accept its messages. */
const BOUNCE_MS = 4000;
/** Received and missed lines must differ in their seconds: rooms stamp by the second, and some clients sort by that. */
const SECOND_MS = 1100;
/** A client that queries the archive when it enters has its answer by then. Poezio shows lines sent meanwhile twice. */
const SETTLE_MS = 2000;
const ENTER_MS = 40_000;

/** A client and its room. */
export interface ClientInRoom {
  readonly kind: string;
  readonly room: string;
  /** Undefined if it could not be started; `trouble` is the reason. */
  readonly client: Client | undefined;
  readonly trouble?: string;
}

/**
 * Real clients, one in each room, and three other occupants: Mercutio sends messages, Benvolio leaves, Tybalt joins.
 */
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

  /** @param users the accounts of the clients */
  static async open(mode: Mode, users: readonly string[]): Promise<Loss> {
    const settings = { ping_muc_delay: DELAY_SECONDS, ping_muc_reenter: MODES[mode].reenter };
    const testBed = await TwoServers.open(settings, {
      production: {},
      realClients: true,
      users,
      guests: ['mercutio', 'benvolio', 'tybalt'],
      hasArchives: 'archive' in MODES[mode],
    });
    try {
      if ('withoutModule' in MODES[mode])
        await Prosody.of(testBed.home).shell(`module:unload("ping_muc_webhook", "${testBed.home.host}")`);
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

  /** Starts a client, which enters a room of its own and receives a line there. */
  async addClient(kind: string, start: Starter, user = kind, roomName = kind): Promise<void> {
    const room = this.testBed.room(roomName);
    await this.mercutio.join(room, 'Mercutio');
    await this.#benvolio.join(room, 'Benvolio');
    try {
      const client = await start({
        lab: this.testBed.lab,
        server: Prosody.of(this.testBed.home),
        user,
        room,
        nick: NICK,
      });
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

  /** Cuts the link until the rooms have removed the clients, while occupants send messages, leave and join. */
  async lose(): Promise<void> {
    const { home, away } = this.testBed;
    const rooms = this.clients.filter(({ client }) => client !== undefined).map(({ room }) => room);
    await sleep(SECOND_MS);
    await Promise.all([home.cut(), away.cut()]);
    this.cutAt = Date.now();
    for (const line of MISSED) for (const room of rooms) await this.mercutio.sendMessage(room, line);
    for (const room of rooms) {
      await until(`${room} removes the client`, () => !this.isInRoom(room), BOUNCE_MS);
      await this.#benvolio.leave(room, 'Benvolio');
      await this.#tybalt.join(room, 'Tybalt');
      if ('refuses' in MODES[this.#mode]) await this.testBed.away.rooms.change(room, 'members only');
    }
    await sleep(this.cutAt + CUT_MS - Date.now());
    await Promise.all([home.mend(), away.mend()]);
  }

  /** Whether the client is in its room, as the other occupants see it. */
  isInRoom(room: string): boolean {
    const last = this.mercutio.presences(room).findLast(({ attrs }) => attrs['from'] === `${room}/${NICK}`);
    return last !== undefined && last.attrs['type'] === undefined;
  }

  /** Whether the other occupants of a room have received a line of the client. */
  hasReceived(room: string, line: string): boolean {
    return this.mercutio.received.some(
      ({ stanza }) =>
        stanza.is('message') && stanza.attrs['from'] === `${room}/${NICK}` && stanza.getChildText('body') === line,
    );
  }

  /** The totals of the check after the cut. */
  checked(): Promise<Totals> {
    return this.testBed.checkDone(this.cutAt);
  }

  /** Seconds since the cut. */
  get seconds(): number {
    return (Date.now() - this.cutAt) / 1000;
  }
}
