import type { Totals } from '../functions/core/check-state.ts';
import { type Lab, until } from './lab.ts';
import type { LogLine, Runtime } from './runtime.ts';
import { User } from './user.ts';
import type { StreamAbilities, XmppServer } from './xmpp-server.ts';

/** What all test beds have: the functions, the users' server (`home`), and a server with chat rooms (`away`). */
export class TestBed {
  readonly lab: Lab;
  readonly runtime: Runtime;
  readonly home: XmppServer;
  readonly away: XmppServer;

  constructor(lab: Lab, runtime: Runtime, home: XmppServer, away: XmppServer) {
    this.lab = lab;
    this.runtime = runtime;
    this.home = home;
    this.away = away;
  }

  /** What streams between the two servers can do. */
  get abilities(): StreamAbilities {
    const [one, other] = [this.home.abilities, this.away.abilities];
    return { bidi: one.bidi && other.bidi, managedStreams: one.managedStreams && other.managedStreams };
  }

  /** @param service the address at which it logs in, if not by TCP */
  user(name: string, resource = 'phone', service?: string): Promise<User> {
    return User.connect(this.lab, this.home, name, resource, service);
  }

  /** A user of the chat server. */
  guest(name: string): Promise<User> {
    return User.connect(this.lab, this.away, name, 'phone');
  }

  /** Enters a room, and waits until the join is recorded. */
  async join(
    user: Pick<User, 'jid'> & { join(room: string, nick: string): Promise<unknown> },
    room: string,
    nick: string,
  ): Promise<void> {
    const recorded = this.recorded();
    await this.home.forgetFailures(room.slice(room.indexOf('@') + 1));
    await user.join(room, nick);
    await until(`${user.jid} in ${room} is recorded`, () => this.recorded() > recorded);
  }

  /** The number of joins that have been recorded since the start. */
  recorded(): number {
    return this.runtime.lines.reduce((sum, line) => sum + Number(line['JoinsRecorded'] ?? 0), 0);
  }

  /** Resets all streams; new ones can be opened. Returns the time, in milliseconds. */
  dropStreams(): number {
    const moment = Date.now();
    for (const server of [this.home, this.away]) for (const link of server.links.values()) link.drop();
    return moment;
  }

  /** Waits for the end of a check that began after `since` (milliseconds), and returns its totals. */
  async checkDone(since: number, remote: string, milliseconds?: number): Promise<Totals> {
    const isIt = (line: LogLine): boolean => line['remote'] === remote && Date.parse(String(line['time'])) >= since;
    return (await this.runtime.line('check done', isIt, milliseconds))['totals'] as Totals;
  }

  close(): Promise<void> {
    return this.lab.close();
  }
}
