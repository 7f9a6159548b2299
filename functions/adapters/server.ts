import { randomUUID } from 'node:crypto';
import { Agent as HttpAgent, type IncomingMessage, request as httpRequest } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { type Answer, type Stanza, AnswerError, requestBody, readAnswers, requests } from '../core/stanzas.ts';
import { type Key, sign } from '../core/signature.ts';
import type { Secrets } from './secrets.ts';

/** The server's API can't be reached, or does not know our secret (yet). */
export class ServerUnreachableError extends Error {
  override readonly name: string = 'ServerUnreachableError';
}

/** The server asks us to wait for longer than is waited for here: it is there, and others' checks may keep it busy. */
export class ServerBusyError extends ServerUnreachableError {
  override readonly name = 'ServerBusyError';
}

/** The server's API does not take what we send: one of the two sides breaks the contract. */
export class ServerRefusedError extends Error {
  override readonly name = 'ServerRefusedError';
}

/** What the server may take over its own time-out for answering. */
const GRACE_MS = 15_000;
/** 1,000 answers of 8 KiB, and as much again. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;
/** A problem's detail is cut here, in characters, before it goes into an error. */
const MAX_DETAIL = 300;
/** What is waited where Retry-After says less, or nothing that we understand, in seconds. */
const RETRY_AFTER = { least: 1, missing: 2 } as const;
/**
 * How long a busy server (429, 503) is waited for, from its first such answer while no other request of ours gets
 * through. That is time for two checks that share the server's thousand pings to take turns, second by second. Whoever
 * asks for more is waited for in the workflow, where waiting costs nothing, and takes no invocation from other checks.
 */
const BUSY_MS = 5000;
/**
 * A connection that was kept alive and is found dead: the other end had closed it, or forgotten it, before our request
 * came.
 */
const DEAD_CONNECTION: ReadonlySet<string | undefined> = new Set(['ECONNRESET', 'EPIPE']);

const agents = {
  http: new HttpAgent({ keepAlive: true, maxSockets: 8 }),
  https: new HttpsAgent({ keepAlive: true, maxSockets: 8 }),
};

/** A kept-alive connection was dead: the server has most likely not seen the request. */
class ConnectionDiedError extends Error {
  override readonly name = 'ConnectionDiedError';
}

/** One request, however often it is tried. */
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

/** The XMPP server's stanza API. */
export class StanzaApi {
  readonly #base: string;
  readonly #secrets: Pick<Secrets, 'keys' | 'renewed'>;
  readonly #remaining: () => number;
  /** Since when the server has been busy, in milliseconds. */
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
   * Sends stanzas, in as few requests as they need, one after the other, and returns the answers by id.
   * @param timeout seconds for which the server waits for each answer
   * @throws ServerUnreachableError, which is worth trying again later; ServerRefusedError, which is not: the server
   * does not take a request, or a stanza of it
   */
  async send(host: string, stanzas: readonly Stanza[], timeout: number): Promise<Map<string, Answer>> {
    const answers = new Map<string, Answer>();
    for (const request of requests(stanzas)) {
      for (const [id, answer] of await this.#request(host, request, timeout)) answers.set(id, answer);
    }
    return answers;
  }

  /** Sends one request. Waits as Retry-After asks, for a moment, and as this invocation may. */
  async #request(host: string, stanzas: readonly Stanza[], timeout: number): Promise<Map<string, Answer>> {
    const url = new URL(`${this.#base.replaceAll('{host}', host).replace(/\/+$/, '')}/stanzas`);
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
        return taken(url, host, stanzas, this.#read(reply.body));
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

  /** Whether this invocation lives long enough for another try. */
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
   * Sends a request; once more, over a connection of its own, if the kept-alive one was dead: that says nothing of the
   * server.
   *
   * Mostly the server never saw the first. If it did, and the connection died later, the second is a retry like any
   * other: it has the same id and a newer timestamp, so it is no replay; pings do no harm twice; and a notice that was
   * delivered has ended its join, so that the second is a `conflict`, by which the row goes as it should.
   */
  async #post(outgoing: Outgoing, keys: readonly Key[]): Promise<Reply> {
    const { url, timeout } = outgoing;
    try {
      return await exchange(outgoing, keys, url.protocol === 'https:' ? agents.https : agents.http).catch(
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

/** @param agent false: over a connection of its own */
function exchange(outgoing: Outgoing, keys: readonly Key[], agent: HttpAgent | HttpsAgent | false): Promise<Reply> {
  const { url, id, body, timeout } = outgoing;
  // a retry has a newer timestamp, or it is a replay; within the same second it is ahead of the clock by less than one
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
        isAnswered = true; // from here on, what breaks is a living connection
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
 * The answers, if the server takes every stanza. One that it does not take says nothing of a join.
 * @throws ServerRefusedError
 */
function taken(url: URL, host: string, stanzas: readonly Stanza[], answers: Map<string, Answer>): Map<string, Answer> {
  for (const { id, xml, isReentry } of stanzas) {
    const answer = answers.get(id);
    if (isReentry || answer?.kind !== 'error' || answer.condition !== 'policy-violation') continue;
    // under another name it may be the room that refuses a ping; but only a server answers a notice, be it the wrong one
    if (answer.by !== host && !xml.startsWith('<presence ')) continue;
    const text = answer.text?.slice(0, MAX_DETAIL) ?? 'it does not say why';
    throw new ServerRefusedError(
      `${url.origin} does not take the stanza ${id} of ${host}: ${text}; either the stanza is wrong, which is our fault, ` +
        `or the request reached the module of another host, as it does where serverApiUrl lacks {host}`,
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
