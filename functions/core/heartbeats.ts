import * as v from 'valibot';

/** Rule 12 (docs/rules.md): heartbeats of hosts, and which hosts are silent. */

/** A host is silent if its last heartbeat is older. The module sends one in five minutes. */
const SILENT_SECONDS = 900;

/** The events that wait to be accepted by us, as a heartbeat states it. */
export interface Queue {
  readonly length: number;
  /** The age of the oldest, in seconds. */
  readonly oldest: number;
}

/** The last heartbeat of a host, as the table holds it. */
export interface Heartbeat extends Queue {
  readonly host: string;
  /** When it arrived, by our own clock, in seconds since the epoch. */
  readonly last: number;
}

/** What the heartbeats of all hosts say together. */
export interface HostsHealth {
  /** Hosts whose last heartbeat is too old. */
  readonly silent: readonly string[];
  /** How many hosts are not silent. */
  readonly reporting: number;
  /** The longest queue of these, in events. */
  readonly queueLength: number;
  /** The age of the oldest event in their queues, in seconds. */
  readonly queueAge: number;
}

const MESSAGE = 'must be a whole number, 0 or more';
const whole = v.pipe(v.number(MESSAGE), v.safeInteger(MESSAGE), v.minValue(0, MESSAGE));
const queueSchema = v.object({ length: whole, oldest: whole });

/** Reads the queue of a webhook. What is wrong with it must not hold up the webhook's events. */
export function readQueue(raw: unknown): { readonly queue: Queue } | { readonly queueError: string } {
  const parsed = v.safeParse(queueSchema, raw, { abortEarly: true });
  if (parsed.success) return { queue: parsed.output };
  const [issue] = parsed.issues;
  const path = v.getDotPath(issue);
  if (path === null) return { queueError: 'queue: must be an object with length and oldest' };
  return { queueError: `queue.${path}: ${issue.received === 'undefined' ? 'missing' : issue.message}` };
}

/**
 * Judges the last heartbeats of all hosts.
 * @param hosts the hosts that the stack serves: others do not count. Empty: all count
 */
export function hostsHealth(
  heartbeats: readonly Heartbeat[],
  hosts: ReadonlySet<string>,
  nowSeconds: number,
): HostsHealth {
  const served = heartbeats.filter(({ host }) => hosts.size === 0 || hosts.has(host));
  const isSilent = ({ last }: Heartbeat): boolean => nowSeconds - last > SILENT_SECONDS;
  const heard = served.filter((one) => !isSilent(one));
  return {
    silent: served.filter(isSilent).map(({ host }) => host),
    reporting: heard.length,
    queueLength: Math.max(0, ...heard.map(({ length }) => length)),
    queueAge: Math.max(0, ...heard.map(({ oldest }) => oldest)),
  };
}
