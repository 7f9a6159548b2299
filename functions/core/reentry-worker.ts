import type { CheckPorts, CheckState, Send } from './check-state.ts';
import { BATCH_SIZE } from './limits.ts';
import { type Lost, notify, roomText } from './notices.ts';
import { ReentryQueue } from './reentry-queue.ts';
import { type ReentryOutcome, hasFailed, reentryOutcome } from './reentry.ts';
import type { Result, Results } from './results.ts';
import { type Answer, reentry, stanzaId } from './stanzas.ts';
import type { Stop } from './stop.ts';
import { hasTimeForReentry, isOver, isTooLateForReentry } from './time.ts';

type Ports = Pick<CheckPorts, 'now' | 'remaining'>;

/**
 * Brings users back into their rooms (rule 10 in docs/rules.md) while the next joins are pinged: one request after the
 * other, for the users of all batches. Users who cannot re-enter are notified. Users for whom there is no time, or no
 * link, are left to the next round.
 */
export class ReentryWorker {
  readonly #state: CheckState;
  readonly #ports: Ports;
  readonly #stop: Stop;
  readonly #send: Send;
  readonly #results: Results;
  readonly #queue = new ReentryQueue();
  #running: Promise<void> | undefined;
  /** This invocation has not sent a re-entry yet. One is sent in any case, so that each invocation makes progress. */
  #isFirst = true;
  #isStopped = false;

  constructor(state: CheckState, ports: Ports, stop: Stop, send: Send, results: Results) {
    this.#state = state;
    this.#ports = ports;
    this.#stop = stop;
    this.#send = send;
    this.#results = results;
  }

  /** Users who wait for re-entry. */
  get waiting(): number {
    return this.#queue.size;
  }

  /** It was stopped, or has failed: nothing more is sent. */
  get isStopped(): boolean {
    return this.#isStopped;
  }

  /** Starts no further request. */
  stop(): void {
    this.#isStopped = true;
  }

  add(those: readonly Lost[]): void {
    this.#queue.add(those);
    if (this.#queue.size === 0 || this.#running !== undefined) return;
    this.#running = this.#reenterAll();
    this.#running.catch(() => undefined); // end() throws the error
  }

  /** Returns when no user waits any more. @throws what a port has thrown */
  async end(): Promise<void> {
    await this.#running;
  }

  async #reenterAll(): Promise<void> {
    let results: Result[] = [];
    try {
      while (this.#queue.size > 0 && !this.#isStopped) {
        results.push(...(await this.#next()));
        if (results.length < BATCH_SIZE && this.#queue.size > 0) continue;
        await this.#results.add(results);
        results = [];
      }
      this.#running = undefined; // without an await after the last look at the queue: the next add() starts again
    } catch (error) {
      this.#isStopped = true;
      throw error;
    }
  }

  /** The next request; or what becomes of all who wait, if there can be none. */
  async #next(): Promise<readonly Result[]> {
    if (isTooLateForReentry(this.#state, this.#ports.now())) return this.#notify(this.#queue.takeAll());
    return this.#maySend() ? this.#reenterNext() : postponed(this.#queue.takeAll());
  }

  #maySend(): boolean {
    if (this.#queue.isLinkDown || this.#stop.reason !== undefined) return false;
    return this.#isFirst || hasTimeForReentry(this.#state, this.#ports.remaining());
  }

  /** Does one request, from the re-entries to the notices for those that failed. */
  async #reenterNext(): Promise<readonly Result[]> {
    const request = this.#queue.next();
    if (!(await this.#stop.reserve(request.length))) return postponed(request);
    const sentAt = this.#ports.now();
    const answers = await this.#enter(request);
    const answeredAt = this.#ports.now();
    const outcomes = request.map(({ join }) => this.#outcome(answers.get(stanzaId(join)), answeredAt));
    this.#queue.learn(request, outcomes, answeredAt - sentAt);
    await this.#stop.giveBack(outcomes.filter((outcome) => outcome !== 'back').length);
    const results: Result[] = [];
    const failed: Lost[] = [];
    for (const [index, { join, reason }] of request.entries()) {
      const outcome = outcomes[index] as ReentryOutcome;
      const answer = answers.get(stanzaId(join));
      const refusal = outcome === 'refused' ? roomText(answer, this.#state.host) : undefined;
      if (hasFailed(outcome)) failed.push({ join, reason: refusal ?? reason });
      else results.push({ join, verdict: 'left', outcome: outcome === 'broken' ? 'postponed' : outcome, answer });
    }
    this.#results.reportTold(results);
    return [...results, ...(await this.#notify([...failed, ...this.#queue.takeShut()]))];
  }

  /** What a re-entry came to. When the check must end, a broken link counts as no answer. */
  #outcome(answer: Answer | undefined, nowMs: number): ReentryOutcome {
    const outcome = reentryOutcome(answer, this.#state.host);
    return outcome === 'broken' && isOver(this.#state, nowMs) ? 'unanswered' : outcome;
  }

  /** Asks the server to enter the rooms again. In a dry run, all of them count as back. */
  async #enter(request: readonly Lost[]): Promise<ReadonlyMap<string, Answer>> {
    if (request.length === 0) return new Map();
    this.#isFirst = false;
    if (this.#state.dryRun) return new Map(request.map(({ join }) => [stanzaId(join), { kind: 'result' }]));
    return this.#send(request.map(({ join }) => reentry(join)));
  }

  async #notify(those: readonly Lost[]): Promise<readonly Result[]> {
    const results: Result[] = [];
    for (let from = 0; from < those.length; from += BATCH_SIZE) {
      const part = those.slice(from, from + BATCH_SIZE);
      const outcomes = await notify(part, this.#state.dryRun, this.#stop, this.#send);
      const told = Array.from(outcomes, ([join, outcome]): Result => {
        return { join, verdict: 'left', outcome, isOfReentry: true };
      });
      this.#results.reportTold(told);
      results.push(...told);
    }
    return results;
  }
}

function postponed(those: readonly Lost[]): readonly Result[] {
  return those.map(({ join }) => ({ join, verdict: 'left', outcome: 'postponed' }));
}
