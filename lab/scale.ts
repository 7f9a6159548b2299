import type { Totals } from '../functions/core/check-state.ts';
import { Population, type Outcomes, type ChatService, RealRooms, type NoticeCounts } from './population.ts';
import { Lab, sleep, until } from './lab.ts';
import type { Settings } from './printed-settings.ts';
import type { ProsodySettings } from './prosody.ts';
import { type LogLine, Runtime } from './runtime.ts';
import { ScriptedMuc } from './scripted-muc.ts';
import { type Kind, ROLES, startAway, startServer } from './servers.ts';
import { type Latency, LatencyProbe } from './latency-probe.ts';
import type { XmppServer } from './xmpp-server.ts';

const DELAY_SECONDS = 2;
/** When nothing has happened for this time, nothing more is expected. */
const QUIET_MS = 1500;
/** The same, if no check has started since the last cut: the report may wait for its turn (sender.lib.lua). */
const QUIET_WITHOUT_REPORT_MS = 6000;
/**
 * After the streams are cut. A message that was in flight then is returned, and its recipient would be out of the room.
 */
const PROBE_AFTER_MS = 1000;
/** Between two messages of the latency probe. A room of the population sends at most 100 copies a second. */
const MESSAGE_INTERVAL_MS = 100;
const A_FEW = 10;
const [SENDER, RECEIVER] = ['speaker', 'listener'];
/** Time for late or duplicate notices to arrive. */
const SETTLE_MS = 2000;

/** One loss and its result. Times are counted from when the check was due: the delay after the streams were cut. */
export interface Loss extends NoticeCounts {
  readonly totals: Totals;
  /** When the check was due, and when it was done, in milliseconds. */
  readonly due: number;
  readonly doneAt: number;
  /** Seconds until the check was done: all verdicts found, all notices sent, the rows of ended joins deleted. */
  readonly done: number;
  /** Seconds until the last notice reached its client; 0 if there was none. */
  readonly lastNotice: number;
  /** Seconds until the last client that was brought back received its self-presence; 0 if there was none. */
  readonly lastEntry: number;
  /** Presences that clients received. */
  readonly presences: number;
  /** The maximum of the check function's heap after a full garbage collection, in megabytes. */
  readonly heldMb: number;
  /** The latency of live messages, by room, if there is a latency probe. */
  readonly latency: ReadonlyMap<string, Latency>;
}

export interface ScaleOptions {
  readonly joins: number;
  /** Occupants of a room; 2 by default. */
  readonly perRoom?: number;
  /** A real server's rooms, or a scripted service, which counts its requests. */
  readonly rooms?: 'real' | 'scripted';
  /** `ping_muc_timeout`, in seconds; 60 by default. */
  readonly timeout?: number;
  /** Other settings of the module; by default as the functions print them. */
  readonly settings?: Settings;
  /** Whether the streams between the servers are managed (XEP-0198); true by default. */
  readonly isManaged?: boolean;
  /** Whether the latency of live messages is measured, in one of the rooms and in another room of the same service. */
  readonly hasLatencyProbe?: boolean;
  /** The users' server; by default as ROLES says (lab/servers.ts). */
  readonly users?: Kind;
  /** More configuration of the users' server, if it is Prosody: for its global section, and for its host. */
  readonly prosody?: Pick<ProsodySettings, 'global' | 'forHost'>;
}

/** Losses of many joins on real servers: both streams are cut, and every notice that reaches a client is counted. */
export class Scale {
  readonly lab: Lab;
  readonly runtime: Runtime;
  readonly home: XmppServer;
  readonly away: XmppServer;
  readonly service: ChatService;
  readonly population: Population;
  readonly latencyProbe: LatencyProbe | undefined;
  /** How long a join may take on a busy machine, in milliseconds. Recording it takes 1 ms on an idle one. */
  readonly #msPerJoin: number;

  private constructor(
    parts: Pick<Scale, 'lab' | 'runtime' | 'home' | 'away' | 'service' | 'population' | 'latencyProbe'>,
    msPerJoin: number,
  ) {
    this.lab = parts.lab;
    this.runtime = parts.runtime;
    this.home = parts.home;
    this.away = parts.away;
    this.service = parts.service;
    this.population = parts.population;
    this.latencyProbe = parts.latencyProbe;
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
    users = ROLES.users,
    prosody = {},
  }: ScaleOptions): Promise<Scale> {
    const lab = await Lab.open();
    try {
      const runtime = await Runtime.start(lab);
      const ofModule = { ping_muc_delay: DELAY_SECONDS, ping_muc_timeout: timeout, ...settings };
      const home = await startServer(users, lab, {
        host: lab.address(2),
        users: [...Population.users(joins, perRoom), RECEIVER],
        module: { runtime, changes: ofModule },
        isManaged,
        hasThreadedLinks: hasLatencyProbe,
        ...prosody,
      });
      const domain = lab.address(4);
      const away = await startAway(lab, {
        host: lab.address(3),
        users: [SENDER],
        isManaged,
        hasThreadedLinks: hasLatencyProbe,
        [rooms === 'real' ? 'mucs' : 'components']: [domain],
      });
      const service = rooms === 'real' ? new RealRooms(away, domain) : await ScriptedMuc.open(lab, away, domain);
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
      return new Scale({ lab, runtime, home, away, service, population, latencyProbe }, Population.msPerJoin(perRoom));
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  /** Changes settings of the module, by a reload. */
  async set(changes: Settings): Promise<void> {
    await this.home.set(changes);
  }

  /** The outcome of the last loss: what the clients received, compared with what the rooms say. */
  async outcomes(): Promise<Outcomes> {
    return this.population.outcomes(await this.#realRooms.ask());
  }

  get #realRooms(): RealRooms {
    if (!(this.service instanceof RealRooms)) throw new Error('only real rooms know their occupants');
    return this.service;
  }

  /** All members who are not in their room enter it. Returns when their joins are recorded. */
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

  /**
   * The rooms drop members, by index, and both streams are cut. Returns when the check is done and nothing is pending.
   */
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
    const report = await until('the function logs its report', () =>
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
    if (this.service instanceof RealRooms) await this.service.countEntries();
  }

  /** Resets both streams; new ones can be opened. Returns the time, in milliseconds. */
  #cut(): number {
    const moment = Date.now();
    for (const server of [this.home, this.away]) for (const link of server.links.values()) link.drop();
    return moment;
  }

  /**
   * A link that breaks repeatedly. The rooms drop members, by index, and both streams are cut. They are cut again at
   * each number of seconds after the check of the previous cut was due. Returns when all checks have ended and nothing
   * is pending.
   */
  async flap(
    isLost: (index: number) => boolean,
    again: readonly number[],
  ): Promise<NoticeCounts & { readonly pinged: number; readonly checks: number; readonly superseded: number }> {
    await this.#dropMembers(isLost);
    const since = this.runtime.lines.length;
    const sum = (name: string): number =>
      this.runtime.lines.slice(since).reduce((total, line) => total + Number(line[name] ?? 0), 0);
    let lastCut = this.#cut();
    const due = (): number => lastCut + DELAY_SECONDS * 1000;
    for (const seconds of again) {
      await sleep(due() + seconds * 1000 - Date.now());
      lastCut = this.#cut();
    }
    const isReported = (): boolean =>
      this.runtime.lines
        .slice(since)
        .some((line) => line['ChecksStarted'] === 1 && Date.parse(String(line['time'])) >= lastCut);
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
          Date.now() > due() &&
          sum('ChecksStarted') > 0 &&
          sum('ChecksStarted') === sum('ChecksDone') + sum('ChecksSuperseded') &&
          Date.now() - quietSince > (isReported() ? QUIET_MS : QUIET_WITHOUT_REPORT_MS)
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
