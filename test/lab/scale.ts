import type { Totals } from '../../functions/core/check-state.ts';
import { Crowd, type ForgetfulService, RealRooms, type Told } from './crowd.ts';
import { Lab, sleep, until } from './lab.ts';
import { Prosody } from './prosody.ts';
import { type LogLine, Runtime } from './runtime.ts';
import { ScriptedMuc } from './scripted-muc.ts';

const DELAY_SECONDS = 2;
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
  static async open({ joins, rooms = 'real', global = '', forHost = '' }: ScaleOptions): Promise<Scale> {
    const lab = await Lab.open();
    try {
      const runtime = await Runtime.start(lab);
      const settings = runtime.prosodySettings({ ping_muc_delay: DELAY_SECONDS, ping_muc_timeout: 60 });
      const home = await Prosody.start(lab, {
        host: lab.address(2),
        users: Crowd.users(joins),
        global: `${settings.global}\n${global}`,
        forHost: `${settings.forHost}\n${forHost}`,
      });
      const domain = lab.address(4);
      const away = await Prosody.start(lab, { host: lab.address(3), [rooms === 'real' ? 'mucs' : 'components']: [domain] });
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
    const due = Date.now() + DELAY_SECONDS * 1000;
    for (const server of [this.home, this.away]) for (const link of server.links.values()) link.drop();
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

  close(): Promise<void> {
    return this.lab.close();
  }
}
