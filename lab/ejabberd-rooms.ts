import type { Ejabberd } from './ejabberd.ts';
import { binary } from './erlang.ts';
import type { Occupant, RoomChange, Rooms } from './xmpp-server.ts';

/** The rooms of an ejabberd, through ejabberd_lab.erl. */
export class EjabberdRooms implements Rooms {
  readonly textIfMissing = 'Conference room does not exist';
  readonly #server: Pick<Ejabberd, 'call'>;

  constructor(server: Pick<Ejabberd, 'call'>) {
    this.#server = server;
  }

  async has(room: string): Promise<boolean> {
    return (await this.#server.call('has_room', binary(room))) === 'true';
  }

  async change(room: string, change: RoomChange): Promise<void> {
    await this.#server.call('change_room', binary(room), term(change));
  }

  async forget(room: string): Promise<void> {
    await this.#server.call('forget_room', binary(room));
  }

  async drop(sessions: readonly Pick<Occupant, 'room' | 'jid'>[]): Promise<void> {
    const terms = sessions.map(({ room, jid }) => `{${binary(room)}, ${binary(jid)}}`);
    await this.#server.call('drop', `[${terms.join(', ')}]`);
  }

  async occupants(domain: string): Promise<readonly Occupant[]> {
    return JSON.parse(await this.#server.call('occupants', binary(domain))) as Occupant[];
  }

  async countEntries(domain: string): Promise<void> {
    await this.#server.call('count_entries', binary(domain));
  }

  async entries(): Promise<ReadonlyMap<string, number>> {
    const counted = JSON.parse(await this.#server.call('entries')) as { key: string; count: number }[];
    return new Map(counted.map(({ key, count }) => [key, count]));
  }
}

/** A change as Erlang. */
function term(change: RoomChange): string {
  if (change === 'members only') return 'members_only';
  if (change === 'persistent') return 'persistent';
  return 'password' in change ? `{password, ${binary(change.password)}}` : `{ban, ${binary(change.ban)}}`;
}
