import { randomUUID } from 'node:crypto';
import { decodeSecret, sign } from '../functions/core/signature.ts';

export interface SignedRequest {
  readonly url: string;
  /** Without a secret, the request is not signed. */
  readonly secret?: string;
  readonly body: string | Buffer;
  readonly type?: string;
  /** The difference between the timestamp of the request and the clock, in seconds. */
  readonly off?: number;
  readonly id?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Reply {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** Posts a request as the other side of the contract would. */
export async function post({
  url,
  secret,
  body,
  type = 'application/json',
  off = 0,
  id = `msg_${randomUUID()}`,
  headers,
}: SignedRequest): Promise<Reply> {
  const bytes = Buffer.from(body);
  const signed =
    secret === undefined ? {} : sign([decodeSecret(secret)], id, Math.floor(Date.now() / 1000) + off, bytes);
  const response = await fetch(url, {
    method: 'POST',
    body: bytes,
    headers: { 'content-type': type, ...signed, ...headers },
    signal: AbortSignal.timeout(30_000),
  });
  return { status: response.status, headers: response.headers, body: await response.text() };
}
