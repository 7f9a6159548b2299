import * as v from 'valibot';
import { type Queue, readQueue } from './heartbeats.ts';
import { type Jid, isNick, isXmlText, parseHost, parseJid } from './jid.ts';
import { TOLERANCE_SECONDS } from './signature.ts';

/** The contract's server-to-functions half: what a webhook request may contain. */

/** Events in a request. */
export const MAX_EVENTS = 1000;
/** Bytes of a request. */
export const MAX_BODY_BYTES = 262_144;

/** One session in one remote room under one nick, since one moment. */
export interface Join {
  readonly host: string;
  readonly remote: string;
  /** The room's bare JID. */
  readonly room: string;
  /** The session's full JID. */
  readonly user: string;
  readonly nick: string;
  /** Microseconds since the epoch, strictly increasing for a host. It orders events, and names the join. */
  readonly at: number;
}

export type JoinedEvent = { readonly type: 'muc.joined' } & Join;
export type LeftEvent = { readonly type: 'muc.left' } & Omit<Join, 'nick'>;

/** The reason for a check: a close, an error of the room itself, a long silence, or the request of an operator. */
type Cause = 'close' | 'room-error' | 'silence' | 'operator';

/**
 * A server's request for a check. Its cause is the end of an s2s connection between a local host and a remote host, at
 * one moment, or another reason to doubt that users are still in a room, or in the rooms of a host. A room is checked
 * as if it were the only one on its host (rule 11, docs/rules.md).
 */
export interface CheckRequest {
  readonly host: string;
  readonly remote: string;
  readonly cause: Cause;
  /** The bare JID of the one room that is checked. Undefined: all rooms on the remote host, as after a close. */
  readonly room?: string;
  /** Microseconds since the epoch, by the server's clock. */
  readonly at: number;
  /** Seconds from `at` to the check. For a close, `ping_muc_delay`. */
  readonly delay: number;
  /** `ping_muc_timeout`, in seconds. */
  readonly timeout: number;
  /** `ping_muc_patience`, in seconds. */
  readonly patience: number;
  readonly dryRun: boolean;
  /** `ping_muc_reenter`: the server understands re-entry, and wants it. */
  readonly reenter: boolean;
  /** The limit of notices (rule 13). Undefined: there is none. */
  readonly limit?: NoticeLimit;
}

/** Beyond both of them, a check is held for an operator (rule 13, docs/rules.md). */
interface NoticeLimit {
  /** `ping_muc_notice_limit`: users who are notified or brought back. */
  readonly notices: number;
  /** `ping_muc_notice_share`: the share of the joins decided so far that are left, from 0 to 1. */
  readonly share: number;
}

/** An event that will never be accepted. */
export interface Rejected {
  /** Its place in the request, from 0. */
  readonly index: number;
  /** What is wrong, for the sender's operator. */
  readonly error: string;
}

/** An event, with its place in the request. */
interface Placed<Event> {
  readonly index: number;
  readonly event: Event;
}

export interface Webhook {
  readonly host: string;
  /** If the webhook is a heartbeat: the state of the sender's queue. */
  readonly queue?: Queue;
  /** What is wrong with a queue that was ignored. */
  readonly queueError?: string;
  readonly accepted: number;
  readonly rejected: readonly Rejected[];
  /** The newest event of each join, in the order of the request. */
  readonly joins: readonly Placed<JoinedEvent | LeftEvent>[];
  /** The newest close of each remote host, and the newest other cause for each room. */
  readonly closes: readonly Placed<CheckRequest>[];
}

/** The whole request cannot be read. The message is safe to show to the sender. */
export class WebhookError extends Error {
  override readonly name = 'WebhookError';
}

/** DynamoDB's longest sort key. Ours is `<room>#<user>`, or `<room>` for the cause of a room's check. */
const MAX_SORT_KEY_BYTES = 1024;
/**
 * DynamoDB's longest partition key. Our longest is that of a close. That of a join contains the hosts of its room and
 * its user, which its sort key limits.
 */
const MAX_PARTITION_KEY_BYTES = 2048;
const MAX_HOSTS_BYTES = MAX_PARTITION_KEY_BYTES - 'CLOSE##'.length;

const text = (maximum: number): v.GenericSchema<string> =>
  v.pipe(v.string('must be a string'), v.maxLength(maximum, `must be at most ${maximum} characters`));
const whole = (minimum: number, maximum: number): v.GenericSchema<number> => {
  const message = `must be a whole number from ${minimum} to ${maximum}`;
  return v.pipe(v.number(message), v.integer(message), v.minValue(minimum, message), v.maxValue(maximum, message));
};

/** September 2001. An earlier moment means that the sender uses seconds or milliseconds: that is refused. */
const EARLIEST_AT = 1e15;
const AT_MESSAGE = 'must be whole microseconds since the epoch, for example 1795355000123456';
const at = v.pipe(v.number(AT_MESSAGE), v.safeInteger(AT_MESSAGE), v.minValue(EARLIEST_AT, AT_MESSAGE));
const address = (maximum: number, isRight: (jid: Jid) => boolean, message: string): v.GenericSchema<string, Jid> =>
  v.pipe(
    text(maximum),
    v.rawTransform(({ dataset, addIssue, NEVER }) => {
      const jid = parseJid(dataset.value);
      if (jid !== undefined && isRight(jid)) return jid;
      addIssue({ message });
      return NEVER;
    }),
  );
const user = address(
  3071,
  (jid) => jid.local !== '' && jid.resource !== '',
  'must be a full JID, for example user@example.net/phone',
);
const room = address(
  2047,
  (jid) => jid.local !== '' && jid.resource === '',
  'must be a bare JID, for example room@muc.host',
);
const nick = v.pipe(text(1023), v.check(isNick, 'must be a nick of 1 to 1,023 bytes'));
const remote = address(
  1023,
  (jid) => jid.local === '' && jid.resource === '',
  'must be a host name, for example muc.host',
);

/** If a server sets a limit of notices, and no share. */
const DEFAULT_SHARE = 0.5;
const SHARE_MESSAGE = 'must be a number from 0 to 1';
const share = v.pipe(v.number(SHARE_MESSAGE), v.minValue(0, SHARE_MESSAGE), v.maxValue(1, SHARE_MESSAGE));

/** How to check. */
const how = {
  timeout: whole(1, 300),
  patience: whole(0, 86_400),
  dry_run: v.boolean('must be true or false'),
  // an older server sends none of these
  reenter: v.optional(v.boolean('must be true or false'), false),
  notice_limit: v.optional(whole(0, 1_000_000), 0),
  notice_share: v.optional(share, DEFAULT_SHARE),
};

const eventSchema = v.variant(
  'type',
  [
    v.object({ type: v.literal('muc.joined'), at, user, room, nick }),
    v.object({ type: v.literal('muc.left'), at, user, room }),
    v.object({
      type: v.literal('s2s.closed'),
      at,
      remote,
      direction: v.picklist(['incoming', 'outgoing'], 'must be incoming or outgoing'),
      reason: v.optional(v.pipe(text(1024), v.check(isXmlText, 'must be text'))),
      delay: whole(1, 86_400),
      ...how,
    }),
    v.object({
      type: v.literal('check.requested'),
      at,
      remote,
      room: v.optional(room),
      cause: v.picklist(['room-error', 'silence', 'operator'], 'must be room-error, silence or operator'),
      delay: whole(0, 86_400),
      ...how,
    }),
  ],
  'must be muc.joined, muc.left, s2s.closed or check.requested',
);

/**
 * Reads a webhook request.
 *
 * A bad event never blocks the good ones: it is listed in `rejected`, and the others are accepted.
 * @param body the request's body, decoded
 * @param sentSeconds the sender's own timestamp of the request, in seconds since the epoch
 * @throws WebhookError if it is not JSON, or not of this shape
 */
export function readWebhook(body: string, sentSeconds: number): Webhook {
  const { host, events, queue } = readEnvelope(body);
  const rejected: Rejected[] = [];
  const joins = new Map<string, Placed<JoinedEvent | LeftEvent>>();
  const closes = new Map<string, Placed<CheckRequest>>();
  events.forEach((raw, index) => {
    const result = readEvent(host, raw, sentSeconds);
    if (typeof result === 'string') rejected.push({ index, error: result });
    else if ('close' in result) keepNewest(closes, subject(result.close), { index, event: result.close });
    else keepNewest(joins, `${result.room}#${result.user}`, { index, event: result });
  });
  return {
    host,
    ...(queue === undefined ? {} : readQueue(queue)),
    accepted: events.length - rejected.length,
    rejected,
    joins: [...joins.values()],
    closes: [...closes.values()],
  };
}

/** What a check is about. A close is never replaced by another cause, because it may be due later. */
function subject({ room, remote, cause }: CheckRequest): string {
  return room ?? (cause === 'close' ? remote : `all rooms on ${remote}`);
}

function keepNewest<Event extends { at: number }>(
  map: Map<string, Placed<Event>>,
  key: string,
  value: Placed<Event>,
): void {
  const known = map.get(key);
  if (known !== undefined && known.event.at > value.event.at) return;
  map.delete(key); // so that the order is that of the newest events
  map.set(key, value);
}

function readEnvelope(body: string): { host: string; events: readonly unknown[]; queue: unknown } {
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch {
    throw new WebhookError('the body must be JSON: {"host": "example.net", "events": [...]}');
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new WebhookError('the body must be an object with host and events');
  const { host, events, queue } = json as Record<string, unknown>;
  const name = typeof host === 'string' ? parseHost(host) : undefined;
  if (name === undefined) throw new WebhookError('host: must be a host name, for example example.net');
  if (!Array.isArray(events)) throw new WebhookError('events: must be a list');
  if (events.length > MAX_EVENTS)
    throw new WebhookError(`events: at most ${MAX_EVENTS} a request, got ${events.length}`);
  return { host: name, events, queue };
}

type ReadEvent = JoinedEvent | LeftEvent | { close: CheckRequest };

/** Returns the event, or what is wrong with it. */
function readEvent(host: string, raw: unknown, sentSeconds: number): ReadEvent | string {
  const parsed = v.safeParse(eventSchema, raw, { abortEarly: true });
  if (!parsed.success) {
    const [issue] = parsed.issues;
    const path = v.getDotPath(issue);
    if (path === null) return 'must be an object with type, at and what the type asks for';
    return issue.received === 'undefined' && path !== 'type' ? `${path}: missing` : `${path}: ${issue.message}`;
  }
  const event = parsed.output;
  if (event.at > (sentSeconds + TOLERANCE_SECONDS) * 1e6)
    return `at: lies more than ${TOLERANCE_SECONDS} s after the request's own webhook-timestamp`;
  if (event.type === 's2s.closed' || event.type === 'check.requested') {
    const { at, delay, timeout, patience, dry_run: dryRun, reenter } = event;
    const { notice_limit: notices, notice_share: share } = event;
    const remote = event.remote.domain;
    if (remote === host) return 'remote: must be another host than the one that reports';
    if (Buffer.byteLength(host + remote) > MAX_HOSTS_BYTES)
      return `remote: together with host it may take ${MAX_HOSTS_BYTES} bytes`;
    const limit = notices === 0 ? {} : { limit: { notices, share } };
    const close = { host, remote, at, delay, timeout, patience, dryRun, reenter, ...limit };
    if (event.type === 's2s.closed') return { close: { ...close, cause: 'close' } };
    if (event.room === undefined)
      return event.cause === 'silence' ? 'room: missing' : { close: { ...close, cause: event.cause } };
    const { bare, domain } = event.room;
    if (domain !== remote) return 'room: must be a room on remote';
    if (Buffer.byteLength(bare) > MAX_SORT_KEY_BYTES) return `room: it may take ${MAX_SORT_KEY_BYTES} bytes`;
    return { close: { ...close, cause: event.cause, room: bare } };
  }
  if (event.user.domain !== host) return `user: must be a session of ${host}`;
  if (event.room.domain === host) return 'room: must be a room on a remote host';
  if (Buffer.byteLength(`${event.room.bare}#${event.user.full}`) > MAX_SORT_KEY_BYTES) {
    return `room: together with user it may take ${MAX_SORT_KEY_BYTES - 1} bytes`;
  }
  const join = { host, remote: event.room.domain, room: event.room.bare, user: event.user.full, at: event.at };
  return event.type === 'muc.joined' ? { type: event.type, ...join, nick: event.nick } : { type: event.type, ...join };
}
