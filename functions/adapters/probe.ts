import { randomUUID } from 'node:crypto';
import { type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { TLSSocket } from 'node:tls';
import { type Key, sign } from '../core/signature.ts';
import { stanzasUrl } from './server.ts';

/**
 * Requests with which `npm run doctor` tests an endpoint of the contract. They ask for nothing, and are not repeated.
 */

/** How long an endpoint may take to answer such a request. */
export const PROBE_SECONDS = 10;
/** Of an answer, so much is read. */
const MAX_BYTES = 64 * 1024;

interface Outgoing {
  readonly type: string;
  readonly body: string;
  /** Without keys, the request is not signed. */
  readonly keys?: readonly Key[];
}

/** An answer of an HTTP server. */
export interface Reply {
  readonly status: number;
  readonly body: string;
  /** How many seconds its clock is ahead of ours; undefined: it does not say. */
  readonly ahead: number | undefined;
  /** When its certificate expires, in milliseconds; undefined: without TLS. */
  readonly expires: number | undefined;
}

/** There was no answer. */
export interface Unanswered {
  /** Node's code of the error, for example ECONNREFUSED. */
  readonly code: string;
  readonly message: string;
}

/** Posts a request over a connection of its own. Never fails. */
export async function post(url: string, outgoing: Outgoing): Promise<Reply | Unanswered> {
  try {
    return await exchange(new URL(url), outgoing);
  } catch (error) {
    const { code, name, message } = error as NodeJS.ErrnoException;
    return { code: code ?? name, message };
  }
}

function exchange(url: URL, { type, body, keys }: Outgoing): Promise<Reply> {
  const bytes = Buffer.from(body);
  const signed = keys === undefined ? {} : sign(keys, `msg_${randomUUID()}`, Math.floor(Date.now() / 1000), bytes);
  return new Promise((resolve, reject) => {
    const request = (url.protocol === 'https:' ? httpsRequest : httpRequest)(
      url,
      {
        method: 'POST',
        agent: false,
        signal: AbortSignal.timeout(PROBE_SECONDS * 1000),
        headers: { ...signed, 'content-type': type, 'content-length': bytes.length },
      },
      (response) => void read(response).then(resolve, reject),
    );
    request.on('error', reject);
    request.end(bytes);
  });
}

async function read(response: IncomingMessage): Promise<Reply> {
  const { socket } = response;
  const expires = socket instanceof TLSSocket ? Date.parse(socket.getPeerCertificate().valid_to) : undefined;
  const date = Date.parse(response.headers.date ?? '');
  const ahead = Number.isNaN(date) ? undefined : Math.round((date - Date.now()) / 1000);
  let body = '';
  for await (const chunk of response.setEncoding('utf8')) {
    body += chunk as string;
    if (body.length > MAX_BYTES) break;
  }
  return { status: response.statusCode ?? 0, body, ahead, expires };
}

/** What the server's stanza API of one host answers. */
export interface ServerAnswers {
  readonly url: string;
  /** To a request without a signature. */
  readonly unsigned: Reply | Unanswered;
  /** To one with a signature; undefined: there was none, because the first one was not answered as it should be. */
  readonly signed?: Reply | Unanswered;
}

/**
 * Asks the server's stanza API for nothing, without a signature and then with one. Never fails.
 * @param base the API's URL without `/stanzas`; `{host}` stands for the XMPP host
 * @param keys undefined: only without a signature
 */
export async function probeServer(
  base: string,
  host: string,
  keys: readonly Key[] | undefined,
): Promise<ServerAnswers> {
  const url = stanzasUrl(base, host);
  const nothing = { type: 'application/xmpp+xml', body: '<xmpp timeout="1"/>' };
  const unsigned = await post(url, nothing);
  if ('code' in unsigned || unsigned.status !== 401 || keys === undefined) return { url, unsigned };
  return { url, unsigned, signed: await post(url, { ...nothing, keys }) };
}
