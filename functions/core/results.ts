import type { CheckPorts, CheckState, StoredJoin, Totals } from './check-state.ts';
import { Backlog, inParallel } from './concurrency.ts';
import { WAITING_TO_BE_WRITTEN, WRITES_IN_FLIGHT, WRITTEN_AT_A_TIME } from './limits.ts';
import type { NoticeOutcome } from './notices.ts';
import type { Answer } from './stanzas.ts';
import { isOver } from './time.ts';
import { type Verdict, isOpen } from './verdict.ts';

/** What a notice or a re-entry came to. */
type Outcome = NoticeOutcome | 'back';

/** What a check found out about one join, and did about it. */
export interface Result {
  readonly join: StoredJoin;
  readonly verdict: Verdict;
  /** If there was a notice or a re-entry. */
  readonly outcome?: Outcome | undefined;
  /** The answer to the ping, or to the re-entry. */
  readonly answer?: Answer | undefined;
  /** The user was to re-enter. */
  readonly isOfReentry?: true;
}

type Ports = Pick<CheckPorts, 'deleteJoin' | 'markUndecided' | 'markDecided' | 'now' | 'told'>;

/** The results of an invocation: counts them, and writes them to the table while the next joins are pinged. */
export class Results {
  readonly #state: CheckState;
  readonly #ports: Ports;
  readonly #totals: { -readonly [Key in keyof Totals]: number };
  readonly #backlog = new Backlog(WRITTEN_AT_A_TIME, WAITING_TO_BE_WRITTEN);
  #open: number;

  constructor(state: CheckState, ports: Ports) {
    this.#state = state;
    this.#ports = ports;
    this.#totals = { ...state.totals };
    this.#open = state.open;
  }

  get totals(): Totals {
    return this.#totals;
  }

  /** Joins of this round that a later round must ask about again. */
  get open(): number {
    return this.#open;
  }

  countPings(count: number): void {
    this.#totals.pinged += count;
  }

  /**
   * Reports users who have just been told, and count for the objective (docs/rules.md): their room has said that they
   * are out, and has said so in the first round. A dry run tells nobody.
   */
  reportTold(results: readonly Pick<Result, 'verdict' | 'outcome'>[]): void {
    if (this.#state.dryRun || this.#state.round > 0) return;
    const told = results.filter(
      ({ verdict, outcome }) => verdict !== 'undecided' && (outcome === 'notified' || outcome === 'back'),
    ).length;
    if (told > 0) this.#ports.told(told);
  }

  /** Takes results. Returns when few enough of them wait to be written. @throws what an earlier write has thrown */
  async add(results: readonly Result[]): Promise<void> {
    const writes = results.map((result) => () => this.#write(result));
    await this.#backlog.add(() => inParallel(writes, WRITES_IN_FLIGHT));
  }

  /** Returns when everything is written. @throws what a write has thrown */
  async end(): Promise<void> {
    await this.#backlog.end();
  }

  async #write(result: Result): Promise<void> {
    const { join, verdict, outcome } = result;
    const { at, dryRun } = this.#state;
    if (this.#isLeftOpen(result)) {
      this.#open += 1;
      if (join.undecidedBy !== at) await this.#ports.markUndecided(join, at);
      return;
    }
    this.#count(result);
    // a session that is entering again keeps its row until the room's answer replaces it; without an answer, the next
    // check needs the row
    const isKept =
      verdict === 'joined' || outcome === 'rejoining' || (dryRun && (outcome === 'notified' || outcome === 'back'));
    if (!isKept) await this.#ports.deleteJoin(join);
    else if (join.undecidedBy !== undefined) await this.#ports.markDecided(join, at);
  }

  /** Whether a later round must ask about the join again. */
  #isLeftOpen({ verdict, outcome }: Result): boolean {
    if (outcome === undefined) return isOpen(verdict);
    return outcome === 'postponed' || (outcome === 'rejoining' && !isOver(this.#state, this.#ports.now()));
  }

  #count({ verdict, outcome, answer, isOfReentry }: Result): void {
    const totals = this.#totals;
    totals[countedAs(verdict, outcome)] += 1;
    if (outcome === 'notified') totals.notified += 1;
    if (outcome === 'notified' && isOfReentry) totals.refused += 1;
    if (outcome === 'back') totals.reentered += 1;
    if (answer?.kind !== 'result') return;
    if (answer.hasGap) totals.gaps += 1;
    if (verdict === 'joined' && answer.isProof) totals.proved += 1;
  }
}

/** The total that counts a join about which the check does not ask again. */
function countedAs(verdict: Verdict, outcome: Outcome | undefined): 'joined' | 'left' | 'undecided' | 'gone' | 'stale' {
  if (outcome === 'gone' || outcome === 'stale') return outcome;
  if (outcome === 'rejoining') return 'stale';
  return verdict === 'no-room' ? 'left' : (verdict as Exclude<Verdict, 'no-room' | 'inconclusive'>);
}
