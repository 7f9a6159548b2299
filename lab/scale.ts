import type { Totals } from '../functions/core/check-state.ts';
import { Population, type Outcomes, type ChatService, RealRooms, type NoticeCounts } from './population.ts';
import { Lab, sleep, until } from './lab.ts';
import { Prosody } from './prosody.ts';
import { type LogLine, Runtime, type Settings } from './runtime.ts';
import { ScriptedMuc } from './scripted-muc.ts';
import { type Latency, LatencyProbe } from './latency-probe.ts';

const DELAY_SECONDS = 2;
/** Nothing more is said of checks, or to clients, after this. */
const QUIET_MS = 1500;
/** After the streams are cut: what was on its way has been answered by an error, which would put out who listens. */
const PROBE_AFTER_MS = 1000;
/** Between two lines of the witness: 100 a second at most are sent into a room of the crowd, to all who are in it together. */
const MESSAGE_INTERVAL_MS = 100;
const A_FEW = 10;
const [SENDER, RECEIVER] = ['speaker', 'listener'];
/** What comes too late, or twice, has come by then. */
const SETTLE_MS = 2000;

/** One loss, and what came of it. Times are counted from the moment that the check was due: the delay after the streams were cut. */
export interface Loss extends NoticeCounts {
  readonly totals: Totals;
  /** When the check was due, and when it was done, in milliseconds. */
  readonly due: number;
  readonly doneAt: number;
  /** Seconds until the check was done: all verdicts given, all notices sent, all rows that ended deleted. */
  readonly done: number;
  /** Seconds until the last notice reached its client; 0 where there was none. */
  readonly lastNotice: number;
  /** Seconds until the last who was let in again heard so from the room; 0 where there was none. */
  readonly lastEntry: number;
  /** Presences that clients got. */
  readonly presences: number;
  /** The most that the check function's heap held after a full collection, in megabytes. */
  readonly heldMb: number;
  /** How late live lines came, by the room; where there is a witness. */
  readonly latency: ReadonlyMap<string, Latency>;
}

export interface ScaleOptions {
  readonly joins: number;
  /** Occupants of a room; 2 unless set. */
  readonly perRoom?: number;
  /** A real server's rooms, or a service that counts what it is asked. */
  readonly rooms?: 'real' | 'scripted';
  /** `ping_muc_timeout`, in seconds; 60 unless set. */
  readonly timeout?: number;
  /** Other settings of the module; as the functions print them unless set. */
  readonly settings?: Settings;
  /** Whether the streams between the servers are managed (XEP-0198), as they are unless set. */
  readonly isManaged?: boolean;
  /** Whether somebody listens how late live lines come: in one of the rooms, and in another of the same service. */
  readonly hasLatencyProbe?: boolean;
  /** What else the configuration of the users' server holds: in its global section, below its host. */
  readonly global?: string;
  readonly forHost?: string;
}

/** Losses at size, on real servers: many joins, both streams cut, and every notice counted that reached a client. */
export class Scale {
  readonly lab: Lab;
  readonly runtime: Runtime;
  readonly home: Prosody;
  readonly away: Prosody;
  readonly service: ChatService;
  readonly population: Population;
  readonly latencyProbe: LatencyProbe | undefined;
  readonly #forHost: (changes: Settings) => string;
  /** What a join may take on a busy machine, in milliseconds; recording it takes the embedded database one on a quiet one. */
  readonly #msPerJoin: number;

  private constructor(
    parts: Pick<Scale, 'lab' | 'runtime' | 'home' | 'away' | 'service' | 'population' | 'latencyProbe'>,
    forHost: (changes: Settings) => string,
    msPerJoin: number,
  ) {
    this.lab = parts.lab;
    this.runtime = parts.runtime;
    this.home = parts.home;
    this.away = parts.away;
    this.service = parts.service;
    this.population = parts.population;
    this.latencyProbe = parts.latencyProbe;
    this.#forHost = forHost;
    this.#msPerJoin = msPerJoin;
  }

  /** Starts everything; nobody is in a room yet. */
  static async open({
    joins,
    perRoom,
    rooms = 'real',
    timeout = 60,
    settings = {},
    isManaged = true,
    hasLatencyProbe = false,
    global = '',
    forHost = '',
  }: ScaleOptions): Promise<Scale> {
    const lab = await Lab.open();
    try {
      const runtime = await Runtime.start(lab);
      const ofHost = (changes: Settings): string =>
        `${runtime.prosodySettings({ ping_muc_delay: DELAY_SECONDS, ping_muc_timeout: timeout, ...settings, ...changes }).forHost}\n${forHost}`;
      const streams = `smacks_enabled_s2s = ${isManaged}`;
      const home = await Prosody.start(lab, {
        host: lab.address(2),
        users: [...Population.users(joins, perRoom), RECEIVER],
        global: `${runtime.prosodySettings().global}\n${streams}\n${global}`,
        forHost: ofHost({}),
        hasThreadedLinks: hasLatencyProbe,
      });
      const domain = lab.address(4);
      const away = await Prosody.start(lab, {
        host: lab.address(3),
        users: [SENDER],
        global: streams,
        hasThreadedLinks: hasLatencyProbe,
        [rooms === 'real' ? 'mucs' : 'components']: [domain],
      });
      const service = rooms === 'real' ? new RealRooms(lab, away, domain) : await ScriptedMuc.open(lab, away, domain);
      const population = await Population.open(lab, home, service, joins, perRoom);
      const occupants = Math.ceil(population.members.length / new Set(population.members.map(({ room }) => room)).size);
      const probedRooms = new Map([
        [service.room('another-room'), MESSAGE_INTERVAL_MS],
        [population.members[0]?.room ?? '', MESSAGE_INTERVAL_MS * Math.max(1, occupants / A_FEW)],
      ]);
      const latencyProbe = hasLatencyProbe
        ? await LatencyProbe.start(lab, {
            sender: { at: away, name: SENDER },
            receiver: { at: home, name: RECEIVER },
            rooms: probedRooms,
          })
        : undefined;
      return new Scale(
        { lab, runtime, home, away, service, population, latencyProbe },
        ofHost,
        Population.msPerJoin(perRoom),
      );
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  /** Changes settings of the module, which follows. */
  async set(changes: Settings): Promise<void> {
    await this.home.reload(this.#forHost(changes));
  }

  /** What has become of each member since the last loss: what clients were told, beside what the rooms say. */
  async outcomes(): Promise<Outcomes> {
    return this.population.outcomes(await this.#realRooms.ask());
  }

  get #realRooms(): RealRooms {
    if (!(this.service instanceof RealRooms)) throw new Error('only real rooms know who is in them');
    return this.service;
  }

  /** Everyone who is not in a room enters, and is recorded. */
  async enter(progress?: (entered: number) => void): Promise<void> {
    const before = this.#recorded();
    const entered = await this.population.enter(progress);
    await until(
      `${entered} joins are recorded`,
      () => this.#recorded() - before >= entered,
      30_000 + entered * this.#msPerJoin,
    );
  }

  #recorded(): number {
    return this.runtime.lines.reduce((sum, line) => sum + Number(line['JoinsRecorded'] ?? 0), 0);
  }

  /** The rooms forget some, by their index, and both streams are cut. Returns when the check is done and nothing more comes. */
  async lose(isLost: (index: number) => boolean): Promise<Loss> {
    await this.#dropMembers(isLost);
    const since = this.runtime.lines.length;
    const due = this.#cut() + DELAY_SECONDS * 1000;
    await sleep(PROBE_AFTER_MS);
    await this.latencyProbe?.startSending();
    const line = (message: string, matches: (line: LogLine) => boolean = () => true): LogLine | undefined =>
      this.runtime.lines.slice(since).find((candidate) => candidate['message'] === message && matches(candidate));
    const done = await until(
      'the check is done',
      () => line('check done'),
      60_000 + this.population.members.length * this.#msPerJoin,
    );
    const report = await until('the function reports', () =>
      line('REPORT', ({ requestId }) => requestId === done['requestId']),
    );
    await sleep(SETTLE_MS);
    const latency = (await this.latencyProbe?.stopSending()) ?? new Map<string, Latency>();
    const doneAt = Date.parse(String(done['time']));
    const noticeCounts = this.population.noticeCounts();
    return {
      ...noticeCounts,
      totals: done['totals'] as Totals,
      due,
      doneAt,
      done: (doneAt - due) / 1000,
      lastNotice: noticeCounts.notices === 0 ? 0 : (this.population.lastNotice - due) / 1000,
      lastEntry: this.population.lastEntry > due ? (this.population.lastEntry - due) / 1000 : 0,
      presences: this.population.presences,
      latency,
      heldMb: Number(report['heldMb']),
    };
  }

  async #dropMembers(isLost: (index: number) => boolean): Promise<void> {
    await this.population.lose(isLost);
    if (this.service instanceof RealRooms) await this.service.watch();
  }

  /** Cuts both streams; new ones pass. Returns the moment, in milliseconds. */
  #cut(): number {
    const moment = Date.now();
    for (const server of [this.home, this.away]) for (const link of server.links.values()) link.drop();
    return moment;
  }

  /**
   * A link that breaks again and again: the rooms forget some, by their index, both streams are cut, and cut again at so many
   * seconds after the check of the last cut was due. Returns when all checks have ended and nothing more comes.
   */
  async flap(
    isLost: (index: number) => boolean,
    again: readonly number[],
  ): Promise<NoticeCounts & { readonly pinged: number; readonly checks: number; readonly superseded: number }> {
    await this.#dropMembers(isLost);
    const since = this.runtime.lines.length;
    const sum = (name: string): number =>
      this.runtime.lines.slice(since).reduce((total, line) => total + Number(line[name] ?? 0), 0);
    let due = this.#cut() + DELAY_SECONDS * 1000;
    for (const seconds of again) {
      await sleep(due + seconds * 1000 - Date.now());
      due = this.#cut() + DELAY_SECONDS * 1000;
    }
    let quietSince = Date.now();
    let seen = '';
    await until(
      'all checks have ended',
      () => {
        const now = [
          sum('ChecksStarted'),
          sum('ChecksDone') + sum('ChecksSuperseded'),
          this.population.presences,
        ].join();
        if (now !== seen) quietSince = Date.now();
        seen = now;
        return (
          Date.now() > due &&
          sum('ChecksStarted') > 0 &&
          sum('ChecksStarted') === sum('ChecksDone') + sum('ChecksSuperseded') &&
          Date.now() - quietSince > QUIET_MS
        );
      },
      120_000 + this.population.members.length * this.#msPerJoin,
    );
    return {
      ...this.population.noticeCounts(),
      pinged: sum('PingsSent'),
      checks: sum('ChecksStarted'),
      superseded: sum('ChecksSuperseded'),
    };
  }

  close(): Promise<void> {
    return this.lab.close();
  }
}
