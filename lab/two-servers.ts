import type { Totals } from '../functions/core/check-state.ts';
import { Lab } from './lab.ts';
import { Runtime } from './runtime.ts';
import { startAway, startHome } from './servers.ts';
import { TestBed } from './test-bed.ts';
import type { User } from './user.ts';
import type { Production, XmppServer } from './xmpp-server.ts';

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
  /** The rooms have an archive. */
  readonly hasArchives?: boolean;
}

/**
 * The usual test bed: the functions, the users' server, configured with what the functions printed, and a chat server.
 */
export class TwoServers extends TestBed {
  /** The domain of the chat service. */
  readonly muc: string;

  private constructor(lab: Lab, runtime: Runtime, home: XmppServer, away: XmppServer, muc: string) {
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
      hasArchives = false,
    }: TwoServersOptions = {},
  ): Promise<TwoServers> {
    const lab = await Lab.open();
    try {
      const runtime = await Runtime.start(lab, { environment, ...(release !== undefined && { release }) });
      const home = await startHome(lab, {
        host: lab.address(2),
        users,
        ...(production && { production: { ...production, realClients } }),
        module: { runtime, changes: { ping_muc_delay: 2, ping_muc_timeout: 5, ...settings } },
      });
      const muc = lab.address(4);
      const away = await startAway(lab, {
        host: lab.address(3),
        mucs: [muc],
        hasArchives,
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
  async dropOccupant(room: string, { jid }: Pick<User, 'jid'>): Promise<void> {
    await this.away.rooms.drop([{ room, jid }]);
  }
}
