import type { Totals } from '../functions/core/check-state.ts';
import { Lab } from './lab.ts';
import { type Production, Prosody } from './prosody.ts';
import { Runtime } from './runtime.ts';
import { TestBed } from './test-bed.ts';
import type { User } from './user.ts';

export interface TwoServersOptions {
  /** Variables for the runtime, in addition to the environment of this process. */
  readonly environment?: NodeJS.ProcessEnv;
  /** The command of an unpacked release, to run that. */
  readonly release?: string;
  /** Both servers are configured as in production. */
  readonly production?: Production;
  /** The users of the users' server are real clients. */
  readonly realClients?: boolean;
  /** Accounts on the users' server. */
  readonly users?: readonly string[];
  /** Accounts on the chat server. */
  readonly guests?: readonly string[];
  /** Configuration of the chat service. */
  readonly forMucs?: string;
}

/**
 * The usual test bed: the functions, the users' server, configured with what the functions printed, and a chat server.
 */
export class TwoServers extends TestBed {
  /** The domain of the chat service. */
  readonly muc: string;

  private constructor(lab: Lab, runtime: Runtime, home: Prosody, away: Prosody, muc: string) {
    super(lab, runtime, home, away);
    this.muc = muc;
  }

  /** @param settings of the module that differ from what the functions print; the delay is two seconds by default */
  static async open(
    settings: Readonly<Record<string, string | number | boolean>> = {},
    {
      environment = {},
      release,
      production,
      realClients = false,
      users = ['juliet', 'romeo', 'nurse'],
      guests = ['mercutio'],
      forMucs = '',
    }: TwoServersOptions = {},
  ): Promise<TwoServers> {
    const lab = await Lab.open();
    try {
      const runtime = await Runtime.start(lab, { environment, ...(release !== undefined && { release }) });
      const printed = runtime.prosodySettings({ ping_muc_delay: 2, ping_muc_timeout: 5, ...settings });
      const home = await Prosody.start(lab, {
        host: lab.address(2),
        users,
        ...(production && { production: { ...production, realClients } }),
        ...printed,
      });
      const muc = lab.address(4);
      const away = await Prosody.start(lab, {
        host: lab.address(3),
        mucs: [muc],
        forMucs,
        users: guests,
        ...(production && { production }),
      });
      return new TwoServers(lab, runtime, home, away, muc);
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  room(name: string): string {
    return `${name}@${this.muc}`;
  }

  /** Kills the chat server and starts it again: its rooms are lost. Returns the time at which it was killed. */
  async restartChatServer(): Promise<number> {
    await this.away.kill();
    const moment = Date.now();
    await this.away.start();
    return moment;
  }

  override checkDone(since: number, remote = this.muc, milliseconds?: number): Promise<Totals> {
    return super.checkDone(since, remote, milliseconds);
  }

  /** The chat server drops an occupant without notifying anybody. */
  async dropOccupant(room: string, user: Pick<User, 'jid'>): Promise<void> {
    const find = `local occupant = room:get_occupant_by_real_jid("${user.jid}")`;
    await this.atRoom(room, `${find}; occupant:remove_session("${user.jid}"); room:save_occupant(occupant)`);
  }

  /** Runs Lua on the chat server; `room` is nil if the room does not exist. Returns the output of the shell. */
  atRoom(room: string, code: string): Promise<string> {
    const muc = `require"core.modulemanager".get_module("${this.muc}", "muc")`;
    return this.away.shell(`>local room = ${muc}.get_room_from_jid("${room.replaceAll('\\', '\\\\')}"); ${code}`);
  }
}
