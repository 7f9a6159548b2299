import type { CheckPorts, CheckState } from './check-state.ts';
import type { Answer } from './stanzas.ts';
import { countedFrom, isNewerToDecide } from './supersession.ts';

type Ports = Pick<CheckPorts, 'readClose' | 'passOn'>;

/** Whether a newer close takes over the joins that a check which has begun cannot decide (rule 5 in docs/rules.md). */
export class NewerClose {
  readonly #state: CheckState;
  readonly #ports: Ports;
  /** The newest close that the server's answers name, µs. Its report may still be on its way. */
  #newest = 0;
  #takesOver = false;
  /** The newer close is on this check's own record. The check of a room may also leave joins to a close of the host. */
  #isOnRecord = false;

  constructor(state: CheckState, ports: Ports) {
    this.#state = state;
    this.#ports = ports;
  }

  /** What the last look-up found. From then on the check pings no more joins. */
  get takesOver(): boolean {
    return this.#takesOver;
  }

  /** Remembers the newest close that the server names in its answers. */
  learn(answers: Iterable<Answer>): void {
    for (const answer of answers) {
      if (answer.kind === 'error' && answer.by === this.#state.host)
        this.#newest = Math.max(this.#newest, answer.closed ?? 0);
    }
  }

  /** Looks for a newer close. Reads the record each time, because the close may have happened a moment ago. */
  async lookUp(): Promise<boolean> {
    if (this.#takesOver) return true;
    const record = await this.#ports.readClose(this.#state);
    const isOfRoom = this.#state.room !== undefined;
    // two batches may look at the same time: what one has found stays true, whatever the other finds
    this.#isOnRecord ||= isNewerToDecide(this.#state, Math.max(isOfRoom ? 0 : this.#newest, record?.at ?? 0));
    this.#takesOver ||= this.#isOnRecord || (isOfRoom && isNewerToDecide(this.#state, this.#newest));
    return this.#takesOver;
  }

  /** Hands the closes that this check answers to the check of the newer close, if there is one. */
  async passOn(): Promise<void> {
    if (this.#isOnRecord) await this.#ports.passOn(this.#state, countedFrom(this.#state));
  }
}
