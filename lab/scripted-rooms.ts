import { Lab, until } from './lab.ts';
import { Prosody } from './prosody.ts';
import { type LogLine, Runtime, type Settings } from './runtime.ts';
import { ScriptedMuc } from './scripted-muc.ts';
import { TestBed } from './test-bed.ts';
import { RecordingProxy } from './recording-proxy.ts';
import type { User } from './user.ts';

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

/** A scene whose chat services do as they are told, with a tap on each of the two ways between server and functions. */
export class ScriptedRooms extends TestBed {
  readonly mucs: readonly ScriptedMuc[];
  /** On the way from the server to the functions. */
  readonly webhooks: RecordingProxy;
  /** On the way from the functions to the server. */
  readonly stanzas: RecordingProxy;
  readonly #settings: Settings;
  #visits = 0;

  private constructor(
    lab: Lab,
    runtime: Runtime,
    home: Prosody,
    away: Prosody,
    mucs: readonly ScriptedMuc[],
    proxies: readonly [RecordingProxy, RecordingProxy],
    settings: Settings,
  ) {
    super(lab, runtime, home, away);
    this.mucs = mucs;
    [this.webhooks, this.stanzas] = proxies;
    this.#settings = settings;
  }

  /**
   * @param settings of the module, where they are not to be as printed; the delay is two seconds and there is no
   * patience unless set
   * @param services how many chat services there are on the other server
   * @param global what else Prosody's configuration holds
   * @param prepare what must be there before the runtime is started, and with what it is started
   */
  static async open(
    settings: Settings = {},
    services = 1,
    global = '',
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
      const printed = runtime.prosodySettings(moduleSettings);
      const home = await Prosody.start(lab, {
        host,
        users: ['juliet', 'romeo', 'nurse'],
        ...printed,
        global: `${printed.global}\n${global}`,
      });
      const domains = Array.from({ length: services }, (_, index) => lab.address(10 + index));
      const away = await Prosody.start(lab, { host: lab.address(3), components: domains });
      const mucs: ScriptedMuc[] = [];
      for (const domain of domains) mucs.push(await ScriptedMuc.open(lab, away, domain));
      return new ScriptedRooms(lab, runtime, home, away, mucs, [webhooks, stanzas], moduleSettings);
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  /** The n-th chat service. */
  muc(n = 0): ScriptedMuc {
    const muc = this.mucs[n];
    if (muc === undefined) throw new Error(`this scene has no chat service ${n}`);
    return muc;
  }

  /** Changes settings of the module, by a reload. */
  async set(changes: Settings): Promise<void> {
    await this.home.reload(this.runtime.prosodySettings({ ...this.#settings, ...changes }).forHost);
  }

  /** All events that have reached the functions, in the order of their moments. */
  reported(): readonly Reported[] {
    const delivered = this.webhooks.requests.filter(({ answer }) => answer !== undefined);
    const events = delivered.flatMap(({ body }) => (JSON.parse(body.toString()) as { events: Reported[] }).events);
    return [...new Map(events.map((event) => [event.at, event])).values()].sort((a, b) => a.at - b.at);
  }

  /** What was reported of a room, or of one session in it: `joined <nick>`, `left`. */
  history(room: string, user?: User): readonly string[] {
    const events = this.reported().filter(
      (event) =>
        event.type.startsWith('muc.') && event.room === room && (user === undefined || event.user === user.jid),
    );
    return events.map(({ type, nick }) => (type === 'muc.joined' ? `joined ${nick}` : 'left'));
  }

  /** Waits until what was reported of a room is this. */
  async waitForHistory(room: string, history: readonly string[], user?: User): Promise<void> {
    await until(
      `it is reported of ${room} that ${history.join(', ')}`,
      () => this.history(room, user).join() === history.join(),
    ).catch((error: unknown) => {
      throw new Error(`${String(error)}; instead: ${this.history(room, user).join(', ')}`);
    });
  }

  override async join(user: User, room: string, nick: string): Promise<void> {
    const before = this.history(room, user).length;
    await user.join(room, nick);
    await until(`${user.jid} in ${room} is recorded`, () => this.history(room, user).length > before);
  }

  /** Waits until all that a user and a chat service have sent so far must have been reported, if it is reported at all. */
  async settle(user: User, muc = this.muc()): Promise<void> {
    this.#visits += 1;
    const room = muc.room(`visit-${this.#visits}`);
    await this.join(user, room, 'visitor');
    await user.leave(room, 'visitor');
    await this.waitForHistory(room, ['joined visitor', 'left'], user);
  }

  /** The closes of the ways to a chat service that have been reported since a moment, in milliseconds. */
  closes(since: number, muc = this.muc()): readonly Reported[] {
    return this.reported().filter(
      ({ type, remote, at }) => type === 's2s.closed' && remote === muc.domain && at >= since * 1000,
    );
  }

  /** The checks of a room that the module has asked for, for another cause than a close. */
  requested(room: string): readonly Reported[] {
    return this.reported().filter((event) => event.type === 'check.requested' && event.room === room);
  }

  /** Occupants whose pings the functions have asked for between two moments, in milliseconds. */
  pinged(since: number, end = Infinity): readonly string[] {
    const bodies = this.stanzas.requests.filter(({ at }) => at >= since && at < end).map(({ body }) => body.toString());
    return bodies.flatMap((body) =>
      [...body.matchAll(/<iq [^>]*to="([^"]*)"[^>]*><ping /g)].map(([, to]) => String(to)),
    );
  }

  /** The functions' log lines with a message, about a chat service, since a moment, in milliseconds. */
  lines(message: string, since: number, muc = this.muc()): readonly LogLine[] {
    return this.runtime.lines.filter(
      (line) =>
        line['message'] === message && line['remote'] === muc.domain && Date.parse(String(line['time'])) >= since,
    );
  }

  /** Cuts the stream to a chat service; the one from it stays. */
  dropOutgoing(muc = this.muc()): number {
    const moment = Date.now();
    this.away.links.get(muc.domain)?.drop();
    return moment;
  }

  /** Cuts the streams from the other server's domains; those to them stay. */
  dropIncoming(): void {
    for (const link of this.home.links.values()) link.drop();
  }
}
