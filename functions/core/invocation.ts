import { BatchReader, type Batch, earlierKey } from './batches.ts';
import type { CheckPorts, CheckState, Send, StoredJoin, Totals } from './check-state.ts';
import { allToTheirEnd } from './concurrency.ts';
import { MAX_WAITING_FOR_REENTRY, REQUESTS_IN_FLIGHT } from './limits.ts';
import { NewerClose } from './newer-close.ts';
import { type Lost, notify, roomText } from './notices.ts';
import { ReentryWorker } from './reentry-worker.ts';
import { mayReenter } from './reentry.ts';
import { Results } from './results.ts';
import { RoomQuestions } from './room-questions.ts';
import { type Answer, ping, stanzaId } from './stanzas.ts';
import { Stop } from './stop.ts';
import { hasTimeForBatch, isOver } from './time.ts';
import { type PingVerdict, type Verdict, isOpen, pingVerdict, isHostOutOfReach } from './verdict.ts';

/** What an invocation did, for the next one. */
export interface Progress {
  readonly totals: Totals;
  /** Joins of this round that a later round must ask about again. */
  readonly open: number;
  /**
   * Why it ended. `taken over`: a newer close decides the rest. `out of reach`: nothing more can be learned in this
   * round. `all asked`: the round is complete. `stopped`: the next invocation continues after the cursor. `held` and
   * `paused`: the same, but an operator must let it (rules 13 and 14).
   */
  readonly end: 'taken over' | 'out of reach' | 'all asked' | 'stopped' | 'held' | 'paused';
  /** The key of the last join that was taken. */
  readonly cursor: string | undefined;
  /** Joins after this key count as not asked, because the host was out of reach. '' is before all keys. */
  readonly unaskedAfter: string | undefined;
}

/** A join that was pinged. */
interface Pinged<AVerdict extends PingVerdict = PingVerdict> {
  readonly join: StoredJoin;
  readonly answer: Answer | undefined;
  readonly verdict: AVerdict;
}

/**
 * One invocation: a part of a round, or all of it. Reads joins in batches, of which several are in flight:
 *
 *   read joins ──▶ ping ──▶ (ask the room) ──▶ notify ┄┄▶ delete the rows of joins that have ended
 *                   └┄┄▶ re-enter ──▶ notify users who could not ┄┄▶ delete
 *
 * The steps after a dotted arrow do not hold up the others: the next batch is pinged at the same time.
 *
 * A user counts as out of the room in two cases only: the room has answered so, or nothing could be learned until
 * patience ended, with no newer close in between (rules 6 and 7 in docs/rules.md). A newer close takes over the joins
 * that are undecided then.
 */
export class Invocation {
  readonly #state: CheckState;
  readonly #ports: CheckPorts;
  readonly #newerClose: NewerClose;
  readonly #reader: BatchReader;
  readonly #rooms: RoomQuestions;
  readonly #results: Results;
  readonly #reentries: ReentryWorker;
  readonly #stop: Stop;
  /** The host is out of reach: nothing more is sent to it in this invocation. */
  #isOutOfReach = false;
  #unaskedAfter: string | undefined;

  /** @param told users whom the check has notified or brought back */
  constructor(state: CheckState, ports: CheckPorts, told: number) {
    this.#state = state;
    this.#ports = ports;
    this.#newerClose = new NewerClose(state, ports);
    this.#reader = new BatchReader(state, ports, () => this.#mayTakeBatch());
    this.#rooms = new RoomQuestions(state.host, this.#send);
    this.#results = new Results(state, ports);
    this.#stop = new Stop(state, ports, told);
    this.#reentries = new ReentryWorker(state, ports, this.#stop, this.#send, this.#results);
  }

  /** @throws what a port has thrown, once everything in flight has ended */
  async run(): Promise<Progress> {
    const batches = this.#reader.batches();
    const first = await batches.next();
    if (first.done) return this.#progress();
    await this.#check(first.value); // one join, whose ping shows whether the host can be reached
    const worker = async (): Promise<void> => {
      for (;;) {
        await this.#stop.look();
        const batch = await batches.next();
        if (batch.done) return;
        await this.#check(batch.value);
      }
    };
    const stop = (error: unknown): never => {
      this.#reentries.stop();
      throw error;
    };
    const workers = Array.from({ length: REQUESTS_IN_FLIGHT }, () => worker().catch(stop));
    const rest = Promise.allSettled(workers).then(async () => {
      await batches.return();
      await Promise.allSettled([this.#reentries.end()]);
      await this.#results.end();
    });
    await allToTheirEnd([...workers, rest]);
    await this.#reentries.end(); // throws what a re-entry has thrown, once everything has ended
    await this.#newerClose.passOn();
    return this.#progress();
  }

  #progress(): Progress {
    return {
      totals: this.#results.totals,
      open: this.#results.open,
      end: this.#end(),
      cursor: this.#reader.cursor,
      unaskedAfter: this.#unaskedAfter,
    };
  }

  #end(): Progress['end'] {
    if (this.#newerClose.takesOver) return 'taken over';
    if (this.#isRoundLost()) return 'out of reach'; // also if it is held or paused: the next round looks again
    if (this.#stop.reason !== undefined) return this.#stop.reason;
    return this.#reader.isAtEnd ? 'all asked' : 'stopped';
  }

  /** Nothing more can be learned in this round. In the last round, users are notified nevertheless. */
  #isRoundLost(): boolean {
    return this.#isOutOfReach && this.#state.final !== true;
  }

  #mayTakeBatch(): boolean {
    return (
      !this.#reentries.isStopped &&
      this.#stop.reason === undefined &&
      !this.#newerClose.takesOver &&
      !this.#isRoundLost() &&
      this.#reentries.waiting < MAX_WAITING_FOR_REENTRY &&
      hasTimeForBatch(this.#state, this.#ports.remaining())
    );
  }

  /** Checks one batch, from the ping to the notice, and hands over what is to be written. */
  async #check({ joins, after }: Batch): Promise<void> {
    const { host } = this.#state;
    const answers = await this.#ping(joins);
    if (answers === undefined) {
      this.#unaskedAfter = this.#unaskedAfter === undefined ? after : earlierKey(this.#unaskedAfter, after);
      return;
    }
    const pinged = joins.map((join): Pinged => {
      const answer = answers.get(stanzaId(join));
      return { join, answer, verdict: pingVerdict(answer, host) };
    });
    const [lost, others] = partition(pinged, ({ verdict }) => mayReenter(this.#state, verdict));
    const known = others.filter(({ verdict }) => verdict !== 'ask-room' && !isOpen(verdict));
    const leftOfKnown = known.filter(({ verdict }) => verdict === 'left').length;
    this.#stop.count(lost.length + known.length, lost.length + leftOfKnown);
    this.#reentries.add(lost.map((one) => this.#lost(one)));
    const own = await this.#withoutTakenOver(await this.#askRooms(others));
    const out = own.filter(({ verdict }) => this.#isOut(verdict)).map((one) => this.#lost(one));
    const isDecided = ({ verdict }: Pinged<Verdict>): boolean => this.#isOut(verdict) || !isOpen(verdict);
    this.#stop.count(own.filter(isDecided).length - known.length, out.length - leftOfKnown);
    const outcomes = await notify(out, this.#state.dryRun, this.#stop, this.#send);
    const results = own.map((one) => ({ ...one, outcome: outcomes.get(one.join) }));
    this.#results.reportTold(results);
    await this.#results.add(results);
  }

  /**
   * Returns undefined if the host is out of reach and there is patience: then the joins count as not asked. Without
   * patience there are no answers, and all are undecided.
   */
  async #ping(joins: readonly StoredJoin[]): Promise<ReadonlyMap<string, Answer> | undefined> {
    const { at, host } = this.#state;
    if (this.#isOutOfReach) return this.#isRoundLost() ? undefined : new Map();
    const answers = await this.#send(joins.map((join) => ping(join, at)));
    this.#results.countPings(joins.length);
    const areUnreached = isHostOutOfReach(
      joins.map((join) => answers.get(stanzaId(join))),
      host,
    );
    if (areUnreached && !(await this.#newerClose.lookUp())) this.#isOutOfReach = true;
    return areUnreached && this.#isRoundLost() ? undefined : answers;
  }

  /** Replaces `ask-room` by what the room says. When the check must end, `inconclusive` counts as undecided. */
  async #askRooms(pinged: readonly Pinged[]): Promise<readonly Pinged<Verdict>[]> {
    const unsure = pinged.filter(({ verdict }) => verdict === 'ask-room').map(({ join }) => join);
    const rooms = await this.#rooms.ask(unsure);
    const mustEnd = isOver(this.#state, this.#ports.now());
    return pinged.map(({ join, answer, verdict: own }) => {
      const verdict = own === 'ask-room' ? (rooms.get(join.room) ?? 'undecided') : own;
      return { join, answer, verdict: verdict === 'inconclusive' && mustEnd ? 'undecided' : verdict };
    });
  }

  /** Leaves out the undecided joins if a newer close takes them over. In the last round, looks whether there is one. */
  async #withoutTakenOver(pinged: readonly Pinged<Verdict>[]): Promise<readonly Pinged<Verdict>[]> {
    const decided = pinged.filter(({ verdict }) => !isOpen(verdict));
    const mustLook = this.#state.final === true && decided.length < pinged.length;
    const isTakenOver = this.#newerClose.takesOver || (mustLook && (await this.#newerClose.lookUp()));
    return isTakenOver ? decided : pinged;
  }

  /** Whether a user counts as out of the room. */
  #isOut(verdict: Verdict): boolean {
    return verdict === 'left' || verdict === 'no-room' || (this.#state.final === true && verdict === 'undecided');
  }

  #lost({ join, answer }: Pinged): Lost {
    return { join, reason: roomText(answer, this.#state.host) };
  }

  /** Sends stanzas, and learns from the answers about newer closes. */
  readonly #send: Send = async (stanzas) => {
    const answers = await this.#ports.send(this.#state.host, stanzas, this.#state.timeout);
    this.#newerClose.learn(answers.values());
    return answers;
  };
}

function partition<One>(all: readonly One[], isFirst: (one: One) => boolean): readonly [One[], One[]] {
  return [all.filter((one) => isFirst(one)), all.filter((one) => !isFirst(one))];
}
