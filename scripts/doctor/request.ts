import { randomUUID } from 'node:crypto';
import { type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { TLSSocket } from 'node:tls';
import { type Key, TOLERANCE_SECONDS, sign } from '../../functions/core/signature.ts';

const TIMEOUT_MS = 10_000;
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
        signal: AbortSignal.timeout(TIMEOUT_MS),
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

/** What is wrong with the clocks of both sides, if an endpoint refuses a signature; undefined: nothing. */
export function clockProblem(reply: Reply): string | undefined {
  if (reply.status !== 401 || !/\bclocks?\b/.test(detailOf(reply))) return undefined;
  const { ahead } = reply;
  const how = ahead === undefined ? 'differs from' : `is ${Math.abs(ahead)} s ${ahead > 0 ? 'ahead of' : 'behind'}`;
  return `its clock ${how} the clock of this machine, and ${TOLERANCE_SECONDS} s are tolerated. Run timedatectl on both`;
}

/** The detail of a problem document (RFC 9457), or the beginning of another body. */
export function detailOf({ body }: Pick<Reply, 'body'>): string {
  try {
    const { detail } = JSON.parse(body) as { readonly detail?: unknown };
    if (typeof detail === 'string') return detail;
  } catch {
    // another server has answered
  }
  return body.replaceAll(/\s+/g, ' ').slice(0, 200);
}

/** Why there was no answer, and what to do. */
export function describeUnanswered(url: string, { code, message }: Unanswered): string {
  const { origin, hostname } = new URL(url);
  if (code === 'ECONNREFUSED') return `nothing listens at ${origin}`;
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return `the name ${hostname} cannot be resolved: check DNS`;
  if (code === 'TimeoutError' || code === 'ABORT_ERR' || code === 'ETIMEDOUT')
    return `${origin} does not answer within ${TIMEOUT_MS / 1000} s: check firewall and routing`;
  return certificateProblem(code, hostname) ?? `${origin} cannot be reached: ${message}`;
}

/** Codes of Node's TLS, which are those of OpenSSL. */
function certificateProblem(code: string, hostname: string): string | undefined {
  if (code === 'CERT_HAS_EXPIRED') return `the certificate of ${hostname} has expired: renew it, and reload Prosody`;
  if (code === 'CERT_NOT_YET_VALID') return `the certificate of ${hostname} is not valid yet: check both clocks`;
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return `the certificate is not one of ${hostname}: install one with this name for the HTTP server`;
  if (/SELF_SIGNED|UNABLE_TO_|UNKNOWN_CA/.test(code))
    return (
      `the certificate of ${hostname} is not from an authority that Node trusts: ` +
      `send the whole chain, or name your authority in NODE_EXTRA_CA_CERTS`
    );
  return undefined;
}
