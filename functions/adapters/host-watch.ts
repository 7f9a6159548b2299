import type { Webhook } from '../core/events.ts';
import { hostsHealth } from '../core/heartbeats.ts';
import type { Hosts } from './hosts.ts';
import { type Logger, describe } from './telemetry.ts';

/** How often the heartbeats of all hosts are read, at most, by one instance of the function. */
const READ_EVERY_SECONDS = 60;
/** Hosts that a log line names. */
const MAX_LOGGED = 10;

/**
 * Watches the hosts (rule 12, docs/rules.md). There is no schedule: a host that fell silent is found by the heartbeats
 * of the others. If all are silent there are no metrics, which the alarm treats as breaching.
 */
export class HostWatch {
  readonly #hosts: Pick<Hosts, 'record' | 'read'>;
  readonly #served: ReadonlySet<string>;
  #readAt = -Infinity;

  /** @param served the hosts that the stack serves. Empty: all that report */
  constructor(hosts: Pick<Hosts, 'record' | 'read'>, served: ReadonlySet<string>) {
    this.#hosts = hosts;
    this.#served = served;
  }

  /**
   * Records the heartbeat, if the webhook is one, and reports what the heartbeats of all hosts say.
   * @param sentSeconds the sender's own timestamp of the webhook
   * @throws what the table throws when the heartbeat is recorded
   */
  async hear(
    { host, queue, queueError }: Webhook,
    sentSeconds: number,
    nowSeconds: number,
    log: Logger,
  ): Promise<void> {
    if (queueError !== undefined) log.warn('heartbeat ignored', { host, detail: queueError });
    if (queue === undefined) return;
    await this.#hosts.record(host, queue, sentSeconds, nowSeconds);
    if (nowSeconds - this.#readAt < READ_EVERY_SECONDS) return;
    this.#readAt = nowSeconds;
    try {
      await this.#report(nowSeconds, log);
    } catch (error) {
      log.error('heartbeats not read', describe(error)); // the webhook is stored nevertheless
    }
  }

  async #report(nowSeconds: number, log: Logger): Promise<void> {
    const { heartbeats, isComplete } = await this.#hosts.read(nowSeconds);
    const { silent, reporting, queueLength, queueAge } = hostsHealth(heartbeats, this.#served, nowSeconds);
    log.measure('heartbeats read', {
      HostsSilent: silent.length,
      HostsReporting: reporting,
      QueueLength: queueLength,
      QueueAge: queueAge * 1000,
    });
    if (silent.length > 0) log.warn('hosts are silent', { silent: silent.slice(0, MAX_LOGGED), count: silent.length });
    const last = heartbeats.at(-1)?.host;
    if (!isComplete) log.warn('too many hosts: those after the last one in the alphabet are not watched', { last });
  }
}
