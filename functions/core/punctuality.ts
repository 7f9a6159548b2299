import type { CheckState } from './check-state.ts';

/**
 * The objective (docs/rules.md, Objective): a user whom the room no longer knows is told within the delay and so many
 * seconds after the close.
 */
const OBJECTIVE_MARGIN_SECONDS = 60;

/**
 * When a close happened, by our own clock, in seconds since the epoch, as if the check had not waited for an operator
 * (rules 13 and 14, docs/rules.md). A state of an earlier release does not say.
 */
function closedAt({ closedAt: moment, due, delay, stoppedFor = 0, stoppedAt }: Moments, nowSeconds: number): number {
  const closed = moment === undefined ? due - delay : moment + stoppedFor; // `due` has been moved by the earlier waits
  return closed + (stoppedAt === undefined ? 0 : nowSeconds - stoppedAt);
}

type Moments = Pick<CheckState, 'closedAt' | 'due' | 'delay' | 'stoppedFor' | 'stoppedAt'>;

/**
 * How punctual one invocation of a check is: when the first answer came, and when users were told.
 *
 * Each time is a sum of two: from the close to its report, by the server's clock, and from the report's arrival until
 * now, by our own. So a difference between the two clocks changes nothing. What the report needs to travel is not
 * counted: a second or two, because the sender stamps each try again.
 */
export class Punctuality {
  readonly #closedMs: number;
  readonly #delayMs: number;
  #firstAnswerMs: number | undefined;
  #lastToldMs: number | undefined;
  #inTime = 0;
  #late = 0;

  /** @param nowMs the beginning of the invocation, in milliseconds since the epoch */
  constructor(state: Moments, nowMs: number) {
    this.#closedMs = closedAt(state, nowMs / 1000) * 1000;
    this.#delayMs = state.delay * 1000;
  }

  /** An answer came, of a room or of the server in its place. @param nowMs milliseconds since the epoch */
  answered(nowMs: number): void {
    this.#firstAnswerMs ??= nowMs;
  }

  /** Users were told. @param nowMs milliseconds since the epoch */
  told(users: number, nowMs: number): void {
    this.#lastToldMs = nowMs;
    if (nowMs <= this.#closedMs + this.#delayMs + OBJECTIVE_MARGIN_SECONDS * 1000) this.#inTime += users;
    else this.#late += users;
  }

  /** From the moment when the check was due to the first answer, in milliseconds. Undefined: no answer came. */
  get answerLateness(): number | undefined {
    return this.#firstAnswerMs === undefined
      ? undefined
      : Math.max(0, this.#firstAnswerMs - this.#closedMs - this.#delayMs);
  }

  /** From the close to the last time that users were told, in milliseconds. Undefined: none was told. */
  get closeToNotice(): number | undefined {
    return this.#lastToldMs === undefined ? undefined : Math.max(0, this.#lastToldMs - this.#closedMs);
  }

  /** Users who were told in time. */
  get inTime(): number {
    return this.#inTime;
  }

  /** Users who were told later. */
  get late(): number {
    return this.#late;
  }
}
