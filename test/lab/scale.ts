import type { Totals } from '../../functions/core/check-state.ts';
import { Crowd, type ForgetfulService, RealRooms, type Told } from './crowd.ts';
import { Lab, sleep, until } from './lab.ts';
import { Prosody } from './prosody.ts';
import { type LogLine, Runtime } from './runtime.ts';
import { ScriptedMuc } from './scripted-muc.ts';

const DELAY_SECONDS = 2;
/** Nothing more is said of checks, or to clients, after this. */
const QUIET_MS = 1500;
/** Recording is as slow as the embedded database, some 1,000 a second on a quiet machine. */
const MS_PER_JOIN = 10;
/** What comes too late, or twice, has come by then. */
const AFTERMATH_MS = 2000;

/** One loss, and what came of it. Times are counted from the moment that the check was due: the delay after the streams were cut. */
export interface Loss extends Told {
  readonly totals: Totals;
  /** When the check was due, and when it was done, in milliseconds. */
  readonly due: number;
  readonly doneAt: number;
  /** Seconds until the check was done: all verdicts given, all notices sent, all rows that ended deleted. */
  readonly done: number;
  /** Seconds until the last notice reached its client; 0 where there was none. */
  readonly lastNotice: number;
  /** The most that the check function's heap held after a full collection, in megabytes. */
  readonly heldMb: number;
}

export interface ScaleOptions {
  readonly joins: number;
  /** A real server's rooms, or a service that counts what it is asked. */
  readonly rooms?: 'real' | 'scripted';
  /** `ping_muc_timeout`, in seconds; 60 unless set. */
  readonly timeout?: number;
  /** `ping_muc_patience`, in seconds; as the functions print it unless set. */
  readonly patience?: number;
  /** Whether the streams between the servers are managed (XEP-0198), as they are unless set. */
  readonly isManaged?: boolean;
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
  readonly service: ForgetfulService;
  readonly crowd: Crowd;

  private constructor(lab: Lab, runtime: Runtime, home: Prosody, away: Prosody, service: ForgetfulService, crowd: Crowd) {
    this.lab = lab;
    this.runtime = runtime;
    this.home = home;
    this.away = away;
    this.service = service;
    this.crowd = crowd;
  }

  /** Starts everything; nobody is in a room yet. */
  static async open({ joins, rooms = 'real', timeout = 60, patience, isManaged = true, global = '', forHost = '' }: ScaleOptions): Promise<Scale> {
    const lab = await Lab.open();
    try {
      const runtime = await Runtime.start(lab);
      const changes = { ping_muc_delay: DELAY_SECONDS, ping_muc_timeout: timeout, ...(patience === undefined ? {} : { ping_muc_patience: patience }) };
      const settings = runtime.prosodySettings(changes);
      const streams = `smacks_enabled_s2s = ${isManaged}`;
      const home = await Prosody.start(lab, {
        host: lab.address(2),
        users: Crowd.users(joins),
        global: `${settings.global}\n${streams}\n${global}`,
        forHost: `${settings.forHost}\n${forHost}`,
      });
      const domain = lab.address(4);
      const away = await Prosody.start(lab, { host: lab.address(3), global: streams, [rooms === 'real' ? 'mucs' : 'components']: [domain] });
      const service = rooms === 'real' ? new RealRooms(lab, away, domain) : await ScriptedMuc.open(lab, away, domain);
      return new Scale(lab, runtime, home, away, service, await Crowd.open(lab, home, service, joins));
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  /** Everyone who is not in a room enters, and is recorded. */
  async enter(progress?: (entered: number) => void): Promise<void> {
    const before = this.#recorded();
    const entered = await this.crowd.enter(progress);
    await until(`${entered} joins are recorded`, () => this.#recorded() - before >= entered, 30_000 + entered * MS_PER_JOIN);
  }

  #recorded(): number {
    return this.runtime.lines.reduce((sum, line) => sum + Number(line['JoinsRecorded'] ?? 0), 0);
  }

  /** The rooms forget some, by their index, and both streams are cut. Returns when the check is done and nothing more comes. */
  async lose(isLost: (index: number) => boolean): Promise<Loss> {
    await this.crowd.lose(isLost);
    const since = this.runtime.lines.length;
    const due = this.#cut() + DELAY_SECONDS * 1000;
    const line = (message: string, matches: (line: LogLine) => boolean = () => true): LogLine | undefined =>
      this.runtime.lines.slice(since).find((candidate) => candidate['message'] === message && matches(candidate));
    const done = await until('the check is done', () => line('check done'), 60_000 + this.crowd.members.length * MS_PER_JOIN);
    const report = await until('the function reports', () => line('REPORT', ({ requestId }) => requestId === done['requestId']));
    await sleep(AFTERMATH_MS);
    const doneAt = Date.parse(String(done['time']));
    const told = this.crowd.told();
    return {
      ...told,
      totals: done['totals'] as Totals,
      due,
      doneAt,
      done: (doneAt - due) / 1000,
      lastNotice: told.notices === 0 ? 0 : (this.crowd.lastNotice - due) / 1000,
      heldMb: Number(report['heldMb']),
    };
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
  async flap(isLost: (index: number) => boolean, again: readonly number[]): Promise<Told & { readonly pinged: number; readonly superseded: number }> {
    await this.crowd.lose(isLost);
    const since = this.runtime.lines.length;
    const sum = (name: string): number => this.runtime.lines.slice(since).reduce((total, line) => total + Number(line[name] ?? 0), 0);
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
        const now = [sum('ChecksStarted'), sum('ChecksDone') + sum('ChecksSuperseded'), this.crowd.told().notices].join();
        if (now !== seen) quietSince = Date.now();
        seen = now;
        return Date.now() > due && sum('ChecksStarted') > 0 && sum('ChecksStarted') === sum('ChecksDone') + sum('ChecksSuperseded') && Date.now() - quietSince > QUIET_MS;
      },
      120_000 + this.crowd.members.length * MS_PER_JOIN,
    );
    return { ...this.crowd.told(), pinged: sum('PingsSent'), superseded: sum('ChecksSuperseded') };
  }

  close(): Promise<void> {
    return this.lab.close();
  }
}
