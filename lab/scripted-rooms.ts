import { Lab, until } from './lab.ts';
import type { Settings } from './printed-settings.ts';
import type { ProsodySettings } from './prosody.ts';
import { type LogLine, Runtime } from './runtime.ts';
import { ScriptedMuc } from './scripted-muc.ts';
import { startAway, startHome } from './servers.ts';
import { TestBed } from './test-bed.ts';
import { RecordingProxy } from './recording-proxy.ts';
import type { User } from './user.ts';
import type { XmppServer } from './xmpp-server.ts';

/** An event as it reached the functions. */
export interface Reported {
  readonly type: 'muc.joined' | 'muc.left' | 's2s.closed' | 'check.requested';
  readonly at: number;
  readonly user?: string;
  readonly room?: string;
  readonly nick?: string;
  readonly remote?: string;
  readonly cause?: string;
}

/** A test bed whose chat services are scripted, with recording proxies between the users' server and the functions. */
export class ScriptedRooms extends TestBed {
  readonly mucs: readonly ScriptedMuc[];
  /** Between the server and the functions' webhook. */
  readonly webhooks: RecordingProxy;
  /** Between the functions and the server's stanza API. */
  readonly stanzas: RecordingProxy;
  #visits = 0;

  private constructor(
    lab: Lab,
    runtime: Runtime,
    home: XmppServer,
    away: XmppServer,
    mucs: readonly ScriptedMuc[],
    proxies: readonly [RecordingProxy, RecordingProxy],
  ) {
    super(lab, runtime, home, away);
    this.mucs = mucs;
    [this.webhooks, this.stanzas] = proxies;
  }

  /**
   * @param settings of the module that differ from what the functions print; by default the delay is two seconds, and
   * the patience is 0
   * @param services the number of chat services on the chat server
   * @param forHome more settings of the users' server
   * @param prepare runs before the runtime is started, and returns variables for it
   */
  static async open(
    settings: Settings = {},
    services = 1,
    forHome: Pick<ProsodySettings, 'hibernationSeconds' | 'hibernationStanzas' | 'global'> = {},
    prepare: (lab: Lab) => Promise<NodeJS.ProcessEnv> = () => Promise.resolve({}),
  ): Promise<ScriptedRooms> {
    const lab = await Lab.open();
    try {
      const host = lab.address(2);
      const stanzas = await RecordingProxy.start(lab, lab.address(1), 8789, `http://${host}:5280/ping_muc/stanzas`);
      const runtime = await Runtime.start(lab, {
        serverApi: stanzas.url.replace('/stanzas', ''),
        environment: await prepare(lab),
      });
      const webhooks = await RecordingProxy.start(lab, lab.address(1), 8788, runtime.webhookUrl);
      const moduleSettings = {
        ping_muc_webhook_url: webhooks.url,
        http_host: host,
        ping_muc_delay: 2,
        ping_muc_timeout: 5,
        ping_muc_patience: 0,
        ...settings,
      };
      const home = await startHome(lab, {
        host,
        users: ['juliet', 'romeo', 'nurse'],
        module: { runtime, changes: moduleSettings },
        ...forHome,
      });
      const domains = Array.from({ length: services }, (_, index) => lab.address(10 + index));
      const away = await startAway(lab, { host: lab.address(3), components: domains });
      const mucs: ScriptedMuc[] = [];
      for (const domain of domains) mucs.push(await ScriptedMuc.open(lab, away, domain));
      return new ScriptedRooms(lab, runtime, home, away, mucs, [webhooks, stanzas]);
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  /** The n-th chat service. */
  muc(n = 0): ScriptedMuc {
    const muc = this.mucs[n];
    if (muc === undefined) throw new Error(`this test bed has no chat service ${n}`);
    return muc;
  }

  /** Changes settings of the module, by a reload. */
  async set(changes: Settings): Promise<void> {
    await this.home.set(changes);
  }

  /** All events that the functions have answered, ordered by their times. */
  reported(): readonly Reported[] {
    const delivered = this.webhooks.requests.filter(({ answer }) => answer !== undefined);
    const events = delivered.flatMap(({ body }) => (JSON.parse(body.toString()) as { events: Reported[] }).events);
    return [...new Map(events.map((event) => [event.at, event])).values()].sort((a, b) => a.at - b.at);
  }

  /** What was reported for a room, or for one session in it: `joined <nick>`, `left`. */
  history(room: string, user?: User): readonly string[] {
    const events = this.reported().filter(
      (event) =>
        event.type.startsWith('muc.') && event.room === room && (user === undefined || event.user === user.jid),
    );
    return events.map(({ type, nick }) => (type === 'muc.joined' ? `joined ${nick}` : 'left'));
  }

  /** Waits until the history of a room is the expected one. */
  async waitForHistory(room: string, history: readonly string[], user?: User): Promise<void> {
    await until(
      `the history of ${room} is ${history.join(', ')}`,
      () => this.history(room, user).join() === history.join(),
    ).catch((error: unknown) => {
      throw new Error(`${String(error)}; instead: ${this.history(room, user).join(', ')}`);
    });
  }

  override async join(user: User, room: string, nick: string): Promise<void> {
    const before = this.history(room, user).length;
    await this.home.forgetFailures(room.slice(room.indexOf('@') + 1));
    await user.join(room, nick);
    await until(`${user.jid} in ${room} is recorded`, () => this.history(room, user).length > before);
  }

  /** Waits until everything that a user and a chat service have sent so far has been reported, if it ever is. */
  async settle(user: User, muc = this.muc()): Promise<void> {
    this.#visits += 1;
    const room = muc.room(`visit-${this.#visits}`);
    await this.join(user, room, 'visitor');
    await user.leave(room, 'visitor');
    await this.waitForHistory(room, ['joined visitor', 'left'], user);
  }

  /** The closes of streams with a chat service that have been reported since a time, in milliseconds. */
  closes(since: number, muc = this.muc()): readonly Reported[] {
    return this.reported().filter(
      ({ type, remote, at }) => type === 's2s.closed' && remote === muc.domain && at >= since * 1000,
    );
  }

  /** The checks of a room that the module has requested for another cause than a close. */
  requested(room: string): readonly Reported[] {
    return this.reported().filter((event) => event.type === 'check.requested' && event.room === room);
  }

  /** The occupants that the functions have asked the server to ping between two times, in milliseconds. */
  pinged(since: number, end = Infinity): readonly string[] {
    const bodies = this.stanzas.requests.filter(({ at }) => at >= since && at < end).map(({ body }) => body.toString());
    return bodies.flatMap((body) =>
      [...body.matchAll(/<iq [^>]*to="([^"]*)"[^>]*><ping /g)].map(([, to]) => String(to)),
    );
  }

  /** The functions' log lines with a message about a chat service since a time, in milliseconds. */
  lines(message: string, since: number, muc = this.muc()): readonly LogLine[] {
    return this.runtime.lines.filter(
      (line) =>
        line['message'] === message && line['remote'] === muc.domain && Date.parse(String(line['time'])) >= since,
    );
  }

  /** Resets the stream to a chat service; the one from it stays. */
  dropOutgoing(muc = this.muc()): number {
    const moment = Date.now();
    this.away.links.get(muc.domain)?.drop();
    return moment;
  }

  /** Resets the streams from the chat server's domains; those to them stay. */
  dropIncoming(): void {
    for (const link of this.home.links.values()) link.drop();
  }
}
