import type { Totals } from '../functions/core/check-state.ts';
import { Lab } from './lab.ts';
import { type Production, Prosody } from './prosody.ts';
import { Runtime } from './runtime.ts';
import { TestBed } from './test-bed.ts';
import type { User } from './user.ts';

export interface TwoServersOptions {
  /** What the runtime is started with, beside this process's own environment. */
  readonly environment?: NodeJS.ProcessEnv;
  /** Both servers are as in production. */
  readonly production?: Production;
  /** Who has an account on the users' own server. */
  readonly users?: readonly string[];
  /** Who has an account on the chat server. */
  readonly guests?: readonly string[];
  /** Configuration of the chat service. */
  readonly forMucs?: string;
}

/** The usual scene: the functions, the users' own server, configured by what the functions printed, and a chat server. */
export class TwoServers extends TestBed {
  /** The domain of the chat service. */
  readonly muc: string;

  private constructor(lab: Lab, runtime: Runtime, home: Prosody, away: Prosody, muc: string) {
    super(lab, runtime, home, away);
    this.muc = muc;
  }

  /** @param settings of the module, where they are not to be as printed; the delay is two seconds unless set */
  static async open(
    settings: Readonly<Record<string, string | number | boolean>> = {},
    {
      environment = {},
      production,
      users = ['juliet', 'romeo', 'nurse'],
      guests = ['mercutio'],
      forMucs = '',
    }: TwoServersOptions = {},
  ): Promise<TwoServers> {
    const lab = await Lab.open();
    try {
      const runtime = await Runtime.start(lab, { environment });
      const printed = runtime.prosodySettings({ ping_muc_delay: 2, ping_muc_timeout: 5, ...settings });
      const home = await Prosody.start(lab, {
        host: lab.address(2),
        users,
        ...(production && { production }),
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

  /** The chat server dies, and comes back having forgotten its rooms. Returns the moment of its death. */
  async restartChatServer(): Promise<number> {
    await this.away.kill();
    const moment = Date.now();
    await this.away.start();
    return moment;
  }

  override checkDone(since: number, remote = this.muc, milliseconds?: number): Promise<Totals> {
    return super.checkDone(since, remote, milliseconds);
  }

  /** The chat server forgets an occupant without telling anybody. */
  async dropOccupant(room: string, user: Pick<User, 'jid'>): Promise<void> {
    await this.atRoom(
      room,
      `local occupant = room:get_occupant_by_real_jid("${user.jid}"); occupant:remove_session("${user.jid}"); room:save_occupant(occupant)`,
    );
  }

  /** Runs Lua on the chat server about a `room`, which is nil where there is none. Returns what the shell says. */
  atRoom(room: string, code: string): Promise<string> {
    const muc = `require"core.modulemanager".get_module("${this.muc}", "muc")`;
    return this.away.shell(`>local room = ${muc}.get_room_from_jid("${room.replaceAll('\\', '\\\\')}"); ${code}`);
  }
}
