import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Prosody } from './prosody.ts';
import type { Occupant, RoomChange, Rooms } from './xmpp-server.ts';

/** The rooms of a Prosody, through its shell. */
export class ProsodyRooms implements Rooms {
  readonly #server: Pick<Prosody, 'shell'>;
  /** For what is too long for a command of the shell. */
  readonly #file: string;

  constructor(server: Pick<Prosody, 'shell'>, directory: string) {
    this.#server = server;
    this.#file = join(directory, 'rooms');
  }

  async has(room: string): Promise<boolean> {
    return (await this.#at(room, 'return room ~= nil')).includes('true');
  }

  async change(room: string, change: RoomChange): Promise<void> {
    await this.#at(room, `${code(change)}; room:save(true)`);
  }

  async forget(room: string): Promise<void> {
    await this.#at(room, `room._occupants, room._jid_nick = {}, {}; ${muc(domainOf(room))}.forget_room(room)`);
  }

  async drop(sessions: readonly Pick<Occupant, 'room' | 'jid'>[]): Promise<void> {
    const domain = domainOf(sessions[0]?.room ?? '');
    await writeFile(this.#file, sessions.map(({ room, jid }) => `${room} ${jid}\n`).join(''));
    const steps = [
      'local jid, user = line:match("^(%S+) (%S+)$")',
      `local room = ${muc(domain)}.get_room_from_jid(jid)`,
      'local occupant = room:get_occupant_by_real_jid(user)',
      'occupant:remove_session(user)',
      'room:save_occupant(occupant)',
    ];
    await this.#server.shell(`>for line in io.lines("${this.#file}") do ${steps.join('; ')} end`);
  }

  async occupants(domain: string): Promise<readonly Occupant[]> {
    const rooms = `for room in ${muc(domain)}.all_rooms() do`;
    const sessions = 'for nick, occupant in room:each_occupant() do for jid in occupant:each_session() do';
    const lines = await this.#write(`${rooms} ${sessions} file:write(nick, " ", jid, "\\n") end end end`);
    return lines.map(([occupant = '', jid = '']) => {
      const [room = '', nick = ''] = occupant.split('/');
      return { room, nick, jid };
    });
  }

  async countEntries(domain: string): Promise<void> {
    const count = [
      'local stanza = event.stanza',
      'if stanza.attr.type or not stanza:get_child("x", "http://jabber.org/protocol/muc") then return end',
      'local key = stanza.attr.to:match("^[^/]+").." "..stanza.attr.from',
      'prosody.lab_asked[key] = (prosody.lab_asked[key] or 0) + 1',
    ];
    const handler = `function (event) ${count.join('; ')} end`;
    const hook = `prosody.hosts["${domain}"].events.add_handler("presence/full", ${handler}, 1000)`;
    await this.#server.shell(`>if not prosody.lab_asked then ${hook} end; prosody.lab_asked = {}`);
  }

  async entries(): Promise<ReadonlyMap<string, number>> {
    const lines = await this.#write(
      'for key, count in pairs(prosody.lab_asked or {}) do file:write(key, " ", count, "\\n") end',
    );
    return new Map(lines.map(([room, jid, count]) => [`${room} ${jid}`, Number(count)]));
  }

  /** Runs Lua with a room, which is nil if it does not exist. Returns the output of the shell. */
  #at(room: string, lua: string): Promise<string> {
    const find = `${muc(domainOf(room))}.get_room_from_jid("${room.replaceAll('\\', '\\\\')}")`;
    return this.#server.shell(`>local room = ${find}; ${lua}`);
  }

  /** Runs Lua that writes lines to `file`. Returns their words. */
  async #write(lua: string): Promise<readonly (readonly string[])[]> {
    await this.#server.shell(`>local file = io.open("${this.#file}", "w"); ${lua}; file:close()`);
    const lines = (await readFile(this.#file, 'utf8')).split('\n').filter((line) => line !== '');
    return lines.map((line) => line.split(' '));
  }
}

const domainOf = (room: string): string => room.slice(room.indexOf('@') + 1);
const muc = (domain: string): string => `require"core.modulemanager".get_module("${domain}", "muc")`;

/** The Lua for a change. */
function code(change: RoomChange): string {
  if (change === 'members only') return 'room:set_members_only(true)';
  if (change === 'persistent') return 'room:set_persistent(true)';
  if ('password' in change) return `room:set_password("${change.password}")`;
  return `room:set_affiliation(true, "${change.ban}", "outcast")`;
}
