import { type Key, sign } from '../../functions/core/signature.ts';
import { WEBHOOK_TIME } from '../../functions/names.ts';

/**
 * The sender of one XMPP host, as mod_ping_muc_webhook sends: one request at a time, in order, until it is accepted.
 */

/** As in sender.lib.lua and outbox.lib.lua. */
const MERGE_MS = 100;
const MAX_BATCH = 1000;
const LONGEST_BACKOFF_SECONDS = 60;
/** As `ping_muc_heartbeat`. */
const HEARTBEAT_MS = 300_000;
/** How often the sender looks whether a heartbeat is due. */
const LOOK_EVERY_MS = 10_000;

/** What a request came to. Undefined: there was no answer. */
export type Delivery = (
  headers: Readonly<Record<string, string>>,
  body: string,
) => Promise<{ readonly status: number; readonly retryAfter?: number | undefined } | undefined>;

interface Waiting {
  readonly event: object;
  readonly since: number;
}

export class Sender {
  readonly host: string;
  /** The secret with which it signs. */
  keys: readonly Key[];
  /** The server is down: it sends nothing, and keeps its queue. */
  isDown = false;
  /** What the network between the sender and the functions does to a request. */
  network: (deliver: () => ReturnType<Delivery>) => ReturnType<Delivery> = (deliver) => deliver();
  /** Added to each event: something that the functions do not accept. */
  spoil: ((event: object) => object) | undefined;
  readonly #deliver: Delivery;
  readonly #queue: Waiting[] = [];
  #isBusy = false;
  #acceptedAt = -Infinity;
  #last = 0;

  constructor(host: string, keys: readonly Key[], deliver: Delivery) {
    this.host = host;
    this.keys = keys;
    this.#deliver = deliver;
    const beat = (): void => {
      if (!this.isDown && Date.now() - this.#acceptedAt >= HEARTBEAT_MS && !this.#isBusy) void this.#send(true);
    };
    setInterval(beat, LOOK_EVERY_MS);
  }

  /** Reports an event. */
  report(event: object): void {
    this.#queue.push({ event, since: Date.now() });
    if (!this.#isBusy) void this.#send(false);
  }

  /** Sends what waits, until nothing waits. */
  async #send(isHeartbeat: boolean): Promise<void> {
    this.#isBusy = true;
    if (!isHeartbeat) await sleep(MERGE_MS);
    for (let failures = 0; isHeartbeat || this.#queue.length > 0;) {
      if (this.isDown) {
        await sleep(1000);
        continue;
      }
      const batch = this.#queue.slice(0, MAX_BATCH);
      const answer = await this.#post(batch);
      if (answer !== undefined && answer.status < 300) {
        this.#queue.splice(0, batch.length);
        this.#acceptedAt = Date.now();
        [failures, isHeartbeat] = [0, false];
        continue;
      }
      failures += 1;
      const backoff = Math.min(2 ** (failures - 1), LONGEST_BACKOFF_SECONDS) * (0.75 + 0.25 * Math.random());
      await sleep(1000 * (answer?.retryAfter ?? backoff));
    }
    this.#isBusy = false;
  }

  async #post(batch: readonly Waiting[]): ReturnType<Delivery> {
    const { spoil = (event: object): object => event } = this;
    const oldest = batch[0] === undefined ? 0 : Math.floor((Date.now() - batch[0].since) / 1000);
    const body = JSON.stringify({
      host: this.host,
      events: batch.map(({ event }) => spoil(event)),
      queue: { length: this.#queue.length, oldest },
    });
    const id = `msg_${this.host}_${(this.#last += 1)}`;
    const headers = {
      ...sign(this.keys, id, Math.floor(Date.now() / 1000), Buffer.from(body)),
      'content-type': 'application/json',
    };
    const noAnswer = sleep(WEBHOOK_TIME.senderWaitsSeconds * 1000).then(() => undefined);
    return Promise.race([this.network(() => this.#deliver(headers, body)), noAnswer]);
  }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
