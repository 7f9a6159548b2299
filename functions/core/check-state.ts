import type { Close, Join } from './events.ts';
import type { Answer, Stanza } from './stanzas.ts';

/** What one check remembers between its invocations, and what it needs of the world. */

export interface Totals {
  /** Joins asked about, over all rounds. */
  readonly pinged: number;
  readonly joined: number;
  /** Of the joined, those whose room had not answered, or was not asked: it had sent them something since the close. */
  readonly proved: number;
  readonly left: number;
  /** Treated as left, as nothing could be learned of them for as long as patience lasts. */
  readonly undecided: number;
  readonly gone: number;
  readonly stale: number;
  /** Re-entries that the room let in; in a dry run, those that would have been asked for. */
  readonly reentered: number;
  /** Of the re-entered, those to whom the room's history did not bring all that they had missed. */
  readonly gaps: number;
  /** Notices delivered; in a dry run, those that would have been sent. */
  readonly notified: number;
  /** Of the notified, those who were to re-enter: they were refused, or nobody answered for their room. */
  readonly refused: number;
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

/** The shape of a state. An execution may be older than the release that goes on with it: see `readState`. */
const STATE_VERSION = 3;

/** The state of one execution: the input and the output of each invocation. */
export interface CheckState extends Close {
  readonly version: number;
  /** The execution's name, for logs. */
  readonly id: string;
  /** When the delay is over by our own clock, in seconds since the epoch. */
  readonly due: number;
  /** What the next Wait state waits for, in seconds. */
  readonly wait: number;
  readonly next: 'page' | 'wait' | 'done';
  readonly round: number;
  /** The oldest close that this check answers, in microseconds: from it the five delays of rule 5 (docs/rules.md) are counted. */
  readonly oldest?: number;
  /** Where this round goes on: the key of the last join that was dealt with. */
  readonly cursor?: string;
  /** In a later round: joins after this key have never been asked about, as their host was out of reach. */
  readonly unaskedAfter?: string;
  /** When patience ends, in seconds since the epoch. */
  readonly deadline?: number;
  /** This round is the last: the undecided are told. */
  readonly final?: boolean;
  /** Joins that this round left undecided. */
  readonly open: number;
  /** A newer close's check decides what this one has not. */
  readonly superseded?: boolean;
  readonly totals: Totals;
}

/** A join as the table holds it. */
export interface StoredJoin extends Join {
  readonly key: string;
  /** `at` of the check that left it undecided. */
  readonly undecidedBy?: number;
}

/** What the table remembers of the closes of one pair of hosts; or, apart from them, of the other causes to check one room. */
export interface CloseRecord {
  /** The newest close. */
  readonly at: number;
  /** The delay that it asks for, in seconds. */
  readonly delay: number;
  /** No later than the oldest close that no check has answered. */
  readonly since?: number;
  /** The close whose check began last, and the oldest close that it answers. */
  readonly checked?: number;
  readonly answers?: number;
}

/** What a check needs of the world. */
export interface CheckPorts {
  /** Joins on a remote host, or in the one room that is checked, made before a moment (µs), in the order of their keys, after `cursor`. */
  readJoins(close: Close, cursor: string | undefined): AsyncIterable<readonly StoredJoin[], void>;
  /** Sends stanzas to the server and returns the answers by id. `timeout` in seconds. */
  send(host: string, stanzas: readonly Stanza[], timeout: number): Promise<Map<string, Answer>>;
  /** Deletes a join's row, unless a newer join has taken its place. */
  deleteJoin(join: StoredJoin): Promise<void>;
  /** Remembers that the check of the close at `checkAt` left this join undecided, unless a newer one has. */
  markUndecided(join: StoredJoin, checkAt: number): Promise<void>;
  /** Forgets that a check did, unless it is a newer one than that of the close at `checkAt`. */
  markDecided(join: StoredJoin, checkAt: number): Promise<void>;
  readClose(close: Close): Promise<CloseRecord | undefined>;
  /**
   * Records that this check has begun, and answers the closes since `oldest` (µs). Returns false when the record is no
   * longer the one that was read.
   */
  claimClose(close: Close, seen: CloseRecord, oldest: number): Promise<boolean>;
  /** Records that the closes since `oldest` (µs) are still unanswered, unless a newer close's check has begun. */
  passOn(close: Close, oldest: number): Promise<void>;
  /** Milliseconds since the epoch. */
  now(): number;
  /** Milliseconds that this invocation may still take. */
  remaining(): number;
}

/** Sends stanzas of one check, with its time-out, and returns the answers by id. */
export type Send = (stanzas: readonly Stanza[]) => Promise<ReadonlyMap<string, Answer>>;

/**
 * The first state of a close's check.
 * @param wait seconds until it is due; @param nowSeconds our own clock
 */
export function firstState(close: Close, id: string, wait: number, nowSeconds: number): CheckState {
  return {
    ...close,
    version: STATE_VERSION,
    id,
    wait,
    due: nowSeconds + wait,
    next: 'wait',
    round: 0,
    open: 0,
    totals: NO_TOTALS,
  };
}

/** The state was written by a release after this one. */
class StateVersionError extends Error {
  override readonly name = 'StateVersionError';
}

/** Takes over a state of this release, or of one before it. @throws StateVersionError */
export function readState(state: CheckState): CheckState {
  // the first release wrote no version, the second knew nothing of re-entry, and of no cause but closes
  const { version = 1, reenter = false, cause = 'close' } = state as Partial<CheckState>;
  if (version > STATE_VERSION) {
    throw new StateVersionError(
      `the state has version ${version}, this release knows ${STATE_VERSION}: deploy the newer release again`,
    );
  }
  return { ...state, version: STATE_VERSION, reenter, cause, totals: { ...NO_TOTALS, ...state.totals } };
}
