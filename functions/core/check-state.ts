import type { CheckRequest, Join } from './events.ts';
import type { Answer, Stanza } from './stanzas.ts';

/** The state of a check between its invocations, and its ports to the world. */

export interface Totals {
  /** Joins asked about, over all rounds. */
  readonly pinged: number;
  readonly joined: number;
  /** Of the joined: there was a proof since the close, so the room was not asked, or did not need to answer. */
  readonly proved: number;
  readonly left: number;
  /** Treated as left, because nothing could be learned about them until patience ended. */
  readonly undecided: number;
  readonly gone: number;
  readonly stale: number;
  /** Users who are back in their room. In a dry run, users who would have been sent back. */
  readonly reentered: number;
  /** Of the re-entered: the room's history did not contain everything that they had missed. */
  readonly gaps: number;
  /** Notices delivered. In a dry run, notices that would have been sent. */
  readonly notified: number;
  /** Of the notified: they were to re-enter, but the re-entry was refused or not answered. */
  readonly refused: number;
}

/** Joins with a verdict, and those of them whose users count as out of their rooms. */
export function decidedOf({ joined, left, undecided, gone, stale }: Totals): {
  readonly decided: number;
  readonly left: number;
} {
  return { decided: joined + left + undecided + gone + stale, left: left + undecided };
}

const NO_TOTALS: Totals = {
  pinged: 0,
  joined: 0,
  proved: 0,
  left: 0,
  undecided: 0,
  gone: 0,
  stale: 0,
  reentered: 0,
  gaps: 0,
  notified: 0,
  refused: 0,
};

/** The version of a state's shape. An execution may be older than the release that continues it: see `readState`. */
const STATE_VERSION = 3;

/** The state of one execution: the input and the output of each invocation. */
export interface CheckState extends CheckRequest {
  readonly version: number;
  /** The execution's name, for logs. */
  readonly id: string;
  /** When the delay is over, by our own clock, in seconds since the epoch. */
  readonly due: number;
  /**
   * When the close happened, by our own clock, in seconds since the epoch: the arrival of the report, less the time
   * that had passed until then by the server's clock.
   */
  readonly closedAt?: number;
  /** How long the next Wait state waits, in seconds. */
  readonly wait: number;
  readonly next: 'page' | 'wait' | 'done';
  readonly round: number;
  /** The oldest close that this check answers, µs: the five delays of rule 5 (docs/rules.md) count from it. */
  readonly oldest?: number;
  /** The round continues after this key: that of the last join that was taken. */
  readonly cursor?: string;
  /** In a later round: joins after this key have not been asked about, because their host was out of reach. */
  readonly unaskedAfter?: string;
  /** When patience ends, in seconds since the epoch. */
  readonly deadline?: number;
  /** This round is the last: the undecided are notified. */
  readonly final?: boolean;
  /** Joins that this round left open. */
  readonly open: number;
  /** The check of a newer close decides what this one has not. */
  readonly superseded?: boolean;
  /** The limit of notices is reached: the check waits for an operator (rule 13, docs/rules.md). */
  readonly held?: boolean;
  /** An operator has paused all checks (rule 14, docs/rules.md). */
  readonly paused?: boolean;
  /** Since when it waits for an operator, in seconds since the epoch. */
  readonly stoppedAt?: number;
  /** For how long it has waited before, in seconds: patience, and rule 5, do not count this time. */
  readonly stoppedFor?: number;
  /** The check was held, and ended without its remaining joins. */
  readonly dropped?: boolean;
  /** Of a dropped check: no operator had decided in time. */
  readonly expired?: boolean;
  readonly totals: Totals;
}

/** A join as the table holds it. */
export interface StoredJoin extends Join {
  readonly key: string;
  /** `at` of the check that left it undecided. */
  readonly undecidedBy?: number;
}

/** The table's record of the closes of a pair of hosts, or of the other causes for checks of one room. */
export interface CloseRecord {
  /** The newest close. */
  readonly at: number;
  /** Its delay, in seconds. */
  readonly delay: number;
  /** Not later than the oldest unanswered close. */
  readonly oldestUnanswered?: number;
  /** The close whose check began last. */
  readonly checkBegun?: number;
  /** The oldest close that this check answers. */
  readonly oldestAnswered?: number;
}

/** What the table has of the limit of notices of one check. */
export interface HoldRecord {
  /** Users whom the check has notified or brought back, or was about to. */
  readonly told: number;
  /** What an operator has decided about the held check. */
  readonly decision?: 'release' | 'drop';
}

/** What a check needs from the world; `functions/check.ts` connects it to AWS and to the server. */
export interface CheckPorts {
  /** Joins on a remote host, or in the one room, made before the close: in the order of keys, after `cursor`. */
  readJoins(close: CheckRequest, cursor: string | undefined): AsyncIterable<readonly StoredJoin[], void>;
  /** Sends stanzas to the server and returns the answers by id. `timeout` is in seconds. */
  send(host: string, stanzas: readonly Stanza[], timeout: number): Promise<Map<string, Answer>>;
  /** Deletes a join's row, unless a newer join has replaced it. */
  deleteJoin(join: StoredJoin): Promise<void>;
  /** Marks a join that the check of the close at `checkAt` left undecided, unless a newer check has marked it. */
  markUndecided(join: StoredJoin, checkAt: number): Promise<void>;
  /** Removes the mark, unless it is of a newer check than that of the close at `checkAt`. */
  markDecided(join: StoredJoin, checkAt: number): Promise<void>;
  readClose(close: CheckRequest): Promise<CloseRecord | undefined>;
  /**
   * Records that this check has begun, and answers the closes since `oldest` (µs). Returns false if the record has
   * changed since it was read.
   */
  claimClose(close: CheckRequest, seen: CloseRecord, oldest: number): Promise<boolean>;
  /** Records that the closes since `oldest` (µs) are still unanswered, unless the check of a newer close has begun. */
  passOn(close: CheckRequest, oldest: number): Promise<void>;
  /**
   * Users were told: their notice was delivered, or they are back. Called at that moment, with those who count for the
   * objective (docs/rules.md).
   */
  told(users: number): void;
  /** Whether an operator has paused all checks. */
  isPaused(): Promise<boolean>;
  readHold(id: string): Promise<HoldRecord>;
  /**
   * Counts users who are about to be notified or brought back, so that an invocation that runs again knows them. A
   * negative count takes back those who were not.
   */
  countTold(id: string, count: number): Promise<void>;
  /** Records that the check is held, for operators. */
  recordHold(state: CheckState): Promise<void>;
  /** The check is no longer held, although nobody has decided about it. */
  forgetHold(id: string): Promise<void>;
  /** Milliseconds since the epoch. */
  now(): number;
  /** Milliseconds that this invocation may still take. */
  remaining(): number;
}

/** Sends stanzas of one check, with its time-out, and returns the answers by id. */
export type Send = (stanzas: readonly Stanza[]) => Promise<ReadonlyMap<string, Answer>>;

/**
 * The first state of a close's check.
 * @param wait seconds until it is due
 * @param nowSeconds our own clock
 * @param reportedAfter seconds from the close to its report, by the server's clock. Default: it was reported in time
 */
export function firstState(
  close: CheckRequest,
  id: string,
  wait: number,
  nowSeconds: number,
  reportedAfter = close.delay - wait,
): CheckState {
  return {
    ...close,
    version: STATE_VERSION,
    id,
    wait,
    due: nowSeconds + wait,
    closedAt: nowSeconds - reportedAfter,
    next: 'wait',
    round: 0,
    open: 0,
    totals: NO_TOTALS,
  };
}

/** The state was written by a later release. */
class StateVersionError extends Error {
  override readonly name = 'StateVersionError';
}

/** Reads a state of this release or an earlier one. @throws StateVersionError */
export function readState(state: CheckState): CheckState {
  // the first release wrote no version; the second knew no re-entry, and no cause but closes
  const { version = 1, reenter = false, cause = 'close' } = state as Partial<CheckState>;
  if (version > STATE_VERSION) {
    throw new StateVersionError(
      `the state has version ${version}, this release knows ${STATE_VERSION}: deploy the newer release again`,
    );
  }
  return { ...state, version: STATE_VERSION, reenter, cause, totals: { ...NO_TOTALS, ...state.totals } };
}
