import { createHmac, timingSafeEqual } from 'node:crypto';

/**
 * Signatures of Standard Webhooks (https://www.standardwebhooks.com, version 1): HMAC-SHA256 over `id.timestamp.body`,
 * in both directions.
 *
 * We do not use the reference library, because it takes only one key, and reads `12x` as the timestamp 12.
 */

/** The largest difference between the two clocks, in seconds, in either direction. */
export const TOLERANCE_SECONDS = 300;

/** A decoded secret: the HMAC key. */
export type Key = Buffer;

export interface SignatureHeaders {
  readonly 'webhook-id': string;
  readonly 'webhook-timestamp': string;
  readonly 'webhook-signature': string;
}

/** The message was not signed with the secret, or not now. The error's text is safe to show to the sender. */
export class SignatureError extends Error {
  override readonly name = 'SignatureError';
  readonly reason: 'missing' | 'malformed' | 'clock' | 'mismatch';

  constructor(reason: SignatureError['reason'], message: string) {
    super(message);
    this.reason = reason;
  }
}

/** A live secret cannot be used. The error never contains the secret. */
export class SecretError extends Error {
  override readonly name = 'SecretError';
}

/**
 * Decodes a secret of the form `whsec_<base64>`; the prefix may be missing.
 * @throws SecretError if it is not base64, or not of 24 to 64 bytes
 */
export function decodeSecret(secret: string): Key {
  const base64 = secret.startsWith('whsec_') ? secret.slice('whsec_'.length) : secret;
  const key = Buffer.from(base64, 'base64');
  if (key.toString('base64').replace(/=+$/, '') !== base64.replace(/=+$/, '') || key.length < 24 || key.length > 64) {
    throw new SecretError(
      'the secret must be whsec_ followed by the base64 of 24 to 64 bytes, ' +
        'for example one made by: echo whsec_$(openssl rand -base64 32)',
    );
  }
  return key;
}

function hmac(key: Key, id: string, timestamp: string, body: Buffer): Buffer {
  return createHmac('sha256', key).update(`${id}.${timestamp}.`).update(body).digest();
}

/** Signs a body with every live secret: the other side may know any of them. `timestamp` is in seconds. */
export function sign(keys: readonly Key[], id: string, timestamp: number, body: Buffer): SignatureHeaders {
  const stamp = String(timestamp);
  return {
    'webhook-id': id,
    'webhook-timestamp': stamp,
    'webhook-signature': keys.map((key) => `v1,${hmac(key, id, stamp, body).toString('base64')}`).join(' '),
  };
}

/** Signatures of one message that are verified. A sender has two live secrets. */
const MAX_SIGNATURES = 4;

/**
 * Verifies a message and returns the sender's timestamp, in seconds since the epoch.
 *
 * The signature is verified before the clock, so that only a sender who knows the secret learns the time of our clock.
 * @throws SignatureError
 */
export function verify(
  keys: readonly Key[],
  headers: Partial<Record<string, string>>,
  body: Buffer,
  nowSeconds: number,
): { id: string; timestamp: number } {
  const id = headers['webhook-id'];
  const stamp = headers['webhook-timestamp'];
  const signatures = headers['webhook-signature'];
  if (!id || !stamp || !signatures) {
    throw new SignatureError('missing', 'the headers webhook-id, webhook-timestamp and webhook-signature are required');
  }
  if (!/^[\x21-\x7e]{1,255}$/.test(id) || !/^[0-9]{1,10}$/.test(stamp)) {
    throw new SignatureError(
      'malformed',
      'webhook-id must be 1 to 255 printable characters, webhook-timestamp whole seconds since the epoch',
    );
  }
  const expected = keys.map((key) => hmac(key, id, stamp, body));
  const given = signatures
    .split(' ', MAX_SIGNATURES)
    .filter((signature) => signature.startsWith('v1,'))
    .map((signature) => Buffer.from(signature.slice('v1,'.length), 'base64'));
  const matches = expected.some((mine) =>
    given.some((theirs) => theirs.length === mine.length && timingSafeEqual(theirs, mine)),
  );
  if (!matches) {
    throw new SignatureError(
      'mismatch',
      'webhook-signature matches none of the live secrets: is the secret the same on both sides?',
    );
  }
  const timestamp = Number(stamp);
  if (Math.abs(nowSeconds - timestamp) > TOLERANCE_SECONDS) {
    const apart = Math.round(timestamp - nowSeconds);
    throw new SignatureError(
      'clock',
      `webhook-timestamp is ${Math.abs(apart)} s ${apart > 0 ? 'ahead of' : 'behind'} this clock, ` +
        `more than ${TOLERANCE_SECONDS} s: check the clocks of both sides`,
    );
  }
  return { id, timestamp };
}
