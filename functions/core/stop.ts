import { type CheckPorts, type CheckState, decidedOf } from './check-state.ts';
import { NewerClose } from './newer-close.ts';

/** Why a check stops, and how it continues: the limit of notices (rule 13) and a pause (rule 14): docs/rules.md. */

/** How often a running check reads whether it is paused, at most. */
const READ_PAUSE_EVERY_MS = 10_000;
/** How long a check waits before it looks again. */
const WAIT_SECONDS = 60;
/**
 * After so long, a paused check waits longer: the history of an execution has at most 25,000 events (Step Functions
 * quotas), and a round of waiting takes nine. A hold of a day takes 12,960, two hours of a pause 1,080, and each
 * further day of it 2,592.
 */
const LONG_PAUSE_SECONDS = 7200;
const LONG_WAIT_SECONDS = 300;
/** Nobody has decided about a held check for so long: it is dropped. */
const LONGEST_HOLD_SECONDS = 86_400;

type Reason = 'held' | 'paused';

/** The state of a check that waits for an operator. */
export function stopped(state: CheckState, reason: Reason, nowMs: number): CheckState {
  const stoppedAt = state.stoppedAt ?? nowMs / 1000;
  const isLong = reason === 'paused' && nowMs / 1000 - stoppedAt >= LONG_PAUSE_SECONDS;
  return { ...state, [reason]: true, stoppedAt, next: 'wait', wait: isLong ? LONG_WAIT_SECONDS : WAIT_SECONDS };
}

/** The state without the time for which it was stopped: neither patience (rule 7) nor a newer close (rule 5) counts it. */
function resumed({ held: _held, paused: _paused, stoppedAt, ...state }: CheckState, nowMs: number): CheckState {
  if (stoppedAt === undefined) return state;
  const seconds = Math.max(0, nowMs / 1000 - stoppedAt);
  return {
    ...state,
    stoppedFor: (state.stoppedFor ?? 0) + seconds,
    due: state.due + seconds,
    ...(state.deadline === undefined ? {} : { deadline: state.deadline + seconds }),
  };
}

/** What an invocation does first. */
interface Beginning {
  readonly state: CheckState;
  /** It asks nobody: the check waits, or has ended. */
  readonly isStopped: boolean;
  /** Users whom this check has notified or brought back, counting what an invocation did that failed later. */
  readonly told: number;
}

/** Looks whether the check is paused or held, and whether it may continue. */
export async function beginOrWait(state: CheckState, ports: CheckPorts): Promise<Beginning> {
  const nowMs = ports.now();
  const atRest = (rest: CheckState): Beginning => ({ state: rest, isStopped: true, told: 0 });
  if (await ports.isPaused()) return atRest(stopped(state, 'paused', nowMs));
  const { paused: _paused, ...unpaused } = state;
  if (state.limit === undefined) return { state: resumed(unpaused, nowMs), isStopped: false, told: 0 };
  const { told, decision } = await ports.readHold(state.id);
  if (state.held !== true) return { state: resumed(unpaused, nowMs), isStopped: false, told };
  const { limit: _limit, ...unlimited } = resumed(unpaused, nowMs);
  if (decision === 'release') return { state: unlimited, isStopped: false, told };
  if (decision === 'drop') return atRest({ ...unlimited, next: 'done', dropped: true });
  return atRest(await endedHold(unpaused, unlimited, ports));
}

/** A held check about which nobody has decided: a newer close takes it over (rule 5), or it has been held too long. */
async function endedHold(held: CheckState, state: CheckState, ports: CheckPorts): Promise<CheckState> {
  const nowMs = ports.now();
  const newerClose = new NewerClose(state, ports);
  const isTakenOver = await newerClose.lookUp();
  if (isTakenOver) await newerClose.passOn();
  const isExpired = nowMs / 1000 - (held.stoppedAt ?? 0) >= LONGEST_HOLD_SECONDS;
  if (!isTakenOver && !isExpired) return stopped(held, 'held', nowMs);
  await ports.forgetHold(held.id);
  return { ...state, next: 'done', ...(isTakenOver ? { superseded: true } : { dropped: true, expired: true }) };
}

/**
 * Whether an invocation may still notify users and bring them back. Several requests are in flight at a time, so each
 * reserves its users before it is sent.
 */
export class Stop {
  readonly #state: CheckState;
  readonly #ports: Pick<CheckPorts, 'isPaused' | 'countTold' | 'now'>;
  #reason: Reason | undefined;
  #readAt: number;
  #reading: Promise<void> | undefined;
  #told: number;
  #decided: number;
  #left: number;

  /** @param told users whom the check has notified or brought back */
  constructor(state: CheckState, ports: Pick<CheckPorts, 'isPaused' | 'countTold' | 'now'>, told: number) {
    const { notified, reentered } = state.totals;
    const { decided, left } = decidedOf(state.totals);
    this.#state = state;
    this.#ports = ports;
    this.#readAt = ports.now();
    this.#told = Math.max(told, notified + reentered);
    this.#decided = decided;
    this.#left = left;
  }

  /** Undefined while the invocation may go on. */
  get reason(): Reason | undefined {
    return this.#reason;
  }

  /** Looks whether there is a pause, at most every ten seconds. Returns whether the invocation has stopped. */
  async look(): Promise<boolean> {
    if (this.#ports.now() - this.#readAt >= READ_PAUSE_EVERY_MS) {
      this.#readAt = this.#ports.now();
      this.#reading = this.#readPause();
    }
    await this.#reading;
    return this.#reason !== undefined;
  }

  async #readPause(): Promise<void> {
    if (await this.#ports.isPaused()) this.#reason ??= 'paused';
  }

  /** Counts joins that were decided, and how many of them are left. */
  count(decided: number, left: number): void {
    this.#decided += decided;
    this.#left += left;
  }

  /** Reserves so many notices or re-entries: all of them, or none, and then none any more. */
  async reserve(count: number): Promise<boolean> {
    if (count === 0) return true;
    if (await this.look()) return false;
    const { limit, id } = this.#state;
    const isBeyond = limit !== undefined && this.#told + count > limit.notices;
    if (isBeyond && this.#left > limit.share * this.#decided) this.#reason = 'held';
    if (this.#reason !== undefined) return false;
    this.#told += count; // before any other request can reserve
    if (limit !== undefined) await this.#ports.countTold(id, count);
    return true;
  }

  /** So many of the reserved users were neither notified nor brought back. */
  async giveBack(count: number): Promise<void> {
    this.#told -= count;
    const { limit, id } = this.#state;
    if (limit !== undefined && count > 0) await this.#ports.countTold(id, -count);
  }
}
