import { randomUUID } from 'node:crypto';
import { type IncomingMessage, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { type Answer, type Stanza, AnswerError, requestBody, readAnswers, requests } from '../core/stanzas.ts';
import { type Key, sign } from '../core/signature.ts';
import { type Agents, keepAlive } from './connections.ts';
import type { Secrets } from './secrets.ts';

/** The server's API cannot be reached, or does not know our secret (yet). */
export class ServerUnreachableError extends Error {
  override readonly name: string = 'ServerUnreachableError';
}

/** The server asks for a longer wait than is done here. It can be reached, but other checks may keep it busy. */
export class ServerBusyError extends ServerUnreachableError {
  override readonly name = 'ServerBusyError';
}

/** The server's API does not accept our request: one of the two sides breaks the contract. */
export class ServerRefusedError extends Error {
  override readonly name = 'ServerRefusedError';
}

/** How much longer than its own time-out the server may need to answer. */
const GRACE_MS = 15_000;
/** Twice 1,000 answers of 8 KiB. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;
/** A problem's detail is cut to so many characters in an error. */
const MAX_DETAIL = 300;
/** The wait in seconds if Retry-After is smaller, or missing or not understood. */
const RETRY_AFTER = { least: 1, missing: 2 } as const;
/**
 * How long to wait for a busy server (429, 503), from its first such answer and while all our requests get it. In this
 * time two checks that share the server's thousand pings can take turns, second by second. If the server asks for a
 * longer wait, the workflow waits: there, waiting costs nothing and takes no invocation from other checks.
 */
const BUSY_MS = 5000;
/**
 * The errors of a kept-alive connection that is dead: the other end had closed or lost it before our request came.
 */
const DEAD_CONNECTION: ReadonlySet<string | undefined> = new Set(['ECONNRESET', 'EPIPE']);

const agents = keepAlive(8);

/** A kept-alive connection was dead: the server most likely did not get the request. */
class ConnectionDiedError extends Error {
  override readonly name = 'ConnectionDiedError';
}

/** One request, with all its tries. */
interface Outgoing {
  readonly url: URL;
  readonly id: string;
  readonly body: Buffer;
  /** Seconds for which the server waits for each answer. */
  readonly timeout: number;
  /** When it was last sent, in seconds since the epoch. */
  timestamp: number;
}

interface Reply {
  readonly status: number;
  readonly retryAfter: string | undefined;
  readonly body: string;
}

/** @param base the API's URL without `/stanzas`; `{host}` stands for the XMPP host */
export function stanzasUrl(base: string, host: string): string {
  return `${base.replaceAll('{host}', host).replace(/\/+$/, '')}/stanzas`;
}

/** The XMPP server's stanza API. */
export class StanzaApi {
  readonly #base: string;
  readonly #secrets: Pick<Secrets, 'keys' | 'renewed'>;
  readonly #remaining: () => number;
  /** The time of the server's first busy answer since it last accepted a request, in milliseconds. */
  #busySince: number | undefined;

  /**
   * @param base the API's URL without `/stanzas`; `{host}` stands for the XMPP host
   * @param remaining milliseconds that this invocation may still take
   */
  constructor(base: string, secrets: Pick<Secrets, 'keys' | 'renewed'>, remaining: () => number) {
    this.#base = base;
    this.#secrets = secrets;
    this.#remaining = remaining;
  }

  /**
   * Sends stanzas in as few requests as possible, one after the other, and returns the answers by id.
   * @param timeout seconds for which the server waits for each answer
   * @throws ServerUnreachableError, after which a later try may succeed; ServerRefusedError, after which it cannot: the
   * server does not accept a request, or a stanza of it
   */
  async send(host: string, stanzas: readonly Stanza[], timeout: number): Promise<Map<string, Answer>> {
    const answers = new Map<string, Answer>();
    for (const request of requests(stanzas)) {
      for (const [id, answer] of await this.#request(host, request, timeout)) answers.set(id, answer);
    }
    return answers;
  }

  /** Sends one request. Waits as Retry-After asks, for some seconds at most, if this invocation has time. */
  async #request(host: string, stanzas: readonly Stanza[], timeout: number): Promise<Map<string, Answer>> {
    const url = new URL(stanzasUrl(this.#base, host));
    const outgoing: Outgoing = {
      url,
      id: `msg_${randomUUID()}`,
      body: Buffer.from(requestBody(stanzas, timeout)),
      timeout,
      timestamp: 0,
    };
    let keys = await this.#secrets.keys();
    let renewed = false;
    for (;;) {
      const reply = await this.#post(outgoing, keys);
      if (reply.status === 200) {
        this.#busySince = undefined;
        return requireAccepted(url, host, stanzas, this.#read(reply.body));
      }
      const problem = `${url.origin} answered ${reply.status}: ${reply.body.slice(0, MAX_DETAIL)}`;
      if (reply.status === 429 || reply.status === 503) {
        const waitMs = retryAfterSeconds(reply.retryAfter) * 1000;
        this.#busySince ??= Date.now();
        if (Date.now() + waitMs > this.#busySince + BUSY_MS || !this.#hasTime(timeout, waitMs))
          throw new ServerBusyError(problem);
        await new Promise((resolve) => setTimeout(resolve, waitMs));
      } else if (reply.status === 401 && !renewed) {
        renewed = true;
        const fresh = await this.#secrets.renewed();
        if (fresh === undefined) throw new ServerUnreachableError(problem);
        keys = fresh;
      } else if (reply.status === 401 || reply.status === 404 || reply.status >= 500) {
        throw new ServerUnreachableError(problem);
      } else {
        throw new ServerRefusedError(problem);
      }
    }
  }

  /** Whether this invocation has enough time for another try. */
  #hasTime(timeout: number, waitMs = 0): boolean {
    return this.#remaining() >= waitMs + timeout * 1000 + GRACE_MS;
  }

  #read(body: string): Map<string, Answer> {
    try {
      return readAnswers(body);
    } catch (error) {
      if (error instanceof AnswerError) throw new ServerUnreachableError(error.message, { cause: error });
      throw error;
    }
  }

  /**
   * Sends a request. If a kept-alive connection was dead, sends it once more over a new connection: a dead connection
   * says nothing about the server.
   *
   * In most cases the server did not get the first request. If it did, and the connection died later, the second is a
   * normal retry. It has the same id and a newer timestamp, so it is not a replay. A second ping does no harm. A
   * delivered notice has ended its join, so the second one gets a `conflict`, and the row is deleted as it should be.
   */
  async #post(outgoing: Outgoing, keys: readonly Key[]): Promise<Reply> {
    const { url, timeout } = outgoing;
    try {
      return await exchange(outgoing, keys, url.protocol === 'https:' ? agents.httpsAgent : agents.httpAgent).catch(
        (error: unknown) => {
          if (error instanceof ConnectionDiedError && this.#hasTime(timeout)) return exchange(outgoing, keys, false);
          throw error;
        },
      );
    } catch (error) {
      throw new ServerUnreachableError(
        `${url.origin} can't be reached: ${error instanceof Error ? error.message : String(error)}`,
        { cause: error },
      );
    }
  }
}

/** @param agent false: over a new connection */
function exchange(outgoing: Outgoing, keys: readonly Key[], agent: Agents[keyof Agents] | false): Promise<Reply> {
  const { url, id, body, timeout } = outgoing;
  // a retry needs a newer timestamp, or it is a replay; so in the same second it is up to a second ahead of the clock
  outgoing.timestamp = Math.max(Math.floor(Date.now() / 1000), outgoing.timestamp + 1);
  return new Promise<Reply>((resolve, reject) => {
    let isAnswered = false;
    const request = (url.protocol === 'https:' ? httpsRequest : httpRequest)(
      url,
      {
        method: 'POST',
        agent,
        signal: AbortSignal.timeout(timeout * 1000 + GRACE_MS),
        headers: {
          ...sign(keys, id, outgoing.timestamp, body),
          'content-type': 'application/xmpp+xml',
          'content-length': body.length,
        },
      },
      (response) => {
        isAnswered = true; // an error after this is not that of a dead connection
        readBody(response).then(resolve, reject);
      },
    );
    request.on('error', (error: NodeJS.ErrnoException) => {
      const wasDead = request.reusedSocket && !isAnswered && DEAD_CONNECTION.has(error.code);
      reject(wasDead ? new ConnectionDiedError(error.message, { cause: error }) : error);
    });
    request.end(body);
  });
}

/**
 * Returns the answers if the server accepted every stanza. A stanza that is not accepted says nothing about its join.
 * @throws ServerRefusedError
 */
function requireAccepted(
  url: URL,
  host: string,
  stanzas: readonly Stanza[],
  answers: Map<string, Answer>,
): Map<string, Answer> {
  for (const { id, xml, isReentry } of stanzas) {
    const answer = answers.get(id);
    if (isReentry || answer?.kind !== 'error' || answer.condition !== 'policy-violation') continue;
    // an error made by another host may be the room's refusal of a ping; but only a server answers a notice
    if (answer.by !== host && !xml.startsWith('<presence ')) continue;
    const text = answer.text?.slice(0, MAX_DETAIL) ?? 'it does not say why';
    throw new ServerRefusedError(
      `${url.origin} does not take the stanza ${id} of ${host}: ${text}; either the stanza is wrong, which is our ` +
        `fault, or the request reached the module of another host, as it does where serverApiUrl lacks {host}`,
    );
  }
  return answers;
}

async function readBody(response: IncomingMessage): Promise<Reply> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response) {
    size += (chunk as Buffer).length;
    if (size > MAX_ANSWER_BYTES) throw new AnswerError(`the answer is longer than ${MAX_ANSWER_BYTES} bytes`);
    chunks.push(chunk as Buffer);
  }
  return {
    status: response.statusCode ?? 0,
    retryAfter: response.headers['retry-after'],
    body: Buffer.concat(chunks).toString(),
  };
}

function retryAfterSeconds(header: string | undefined): number {
  const seconds = header !== undefined && /^[0-9]{1,6}$/.test(header) ? Number(header) : RETRY_AFTER.missing;
  return Math.max(RETRY_AFTER.least, seconds);
}
