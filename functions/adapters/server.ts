import { randomUUID } from 'node:crypto';
import { Agent as HttpAgent, type IncomingMessage, request as httpRequest } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { type Answer, type Stanza, AnswerError, batch, readAnswers, requests } from '../core/stanzas.ts';
import { type Key, sign } from '../core/signature.ts';
import type { Secrets } from './secrets.ts';

/** The server's API can't be reached, asks us to wait for longer than we live, or does not know our secret (yet). */
export class ServerUnreachableError extends Error {
  override readonly name = 'ServerUnreachableError';
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
/** Bounds of a Retry-After, in seconds. */
const RETRY_AFTER = { least: 1, most: 60, missing: 2 } as const;

const agents = {
  http: new HttpAgent({ keepAlive: true, maxSockets: 8 }),
  https: new HttpsAgent({ keepAlive: true, maxSockets: 8 }),
};

interface Reply {
  readonly status: number;
  readonly retryAfter: string | undefined;
  readonly body: string;
}

/** The XMPP server's stanza API. */
export class StanzaApi {
  readonly #base: string;
  readonly #secrets: Secrets;
  readonly #remaining: () => number;

  /**
   * @param base the API's URL without `/stanzas`; `{host}` stands for the XMPP host
   * @param remaining milliseconds that this invocation may still take
   */
  constructor(base: string, secrets: Secrets, remaining: () => number) {
    this.#base = base;
    this.#secrets = secrets;
    this.#remaining = remaining;
  }

  /**
   * Sends stanzas, in as few requests as they need, one after the other, and returns the answers by id.
   * @param timeout seconds for which the server waits for each answer
   * @throws ServerUnreachableError, which is worth trying again later; ServerRefusedError, which is not
   */
  async send(host: string, stanzas: readonly Stanza[], timeout: number): Promise<Map<string, Answer>> {
    const answers = new Map<string, Answer>();
    for (const request of requests(stanzas)) {
      for (const [id, answer] of await this.#request(host, request, timeout)) answers.set(id, answer);
    }
    return answers;
  }

  /** Sends one request. Waits as long as the server asks for by Retry-After, and as this invocation may. */
  async #request(host: string, stanzas: readonly Stanza[], timeout: number): Promise<Map<string, Answer>> {
    const url = new URL(`${this.#base.replaceAll('{host}', host).replace(/\/+$/, '')}/stanzas`);
    const body = Buffer.from(batch(stanzas, timeout));
    const id = `msg_${randomUUID()}`;
    let keys = await this.#secrets.keys();
    let renewed = false;
    for (;;) {
      const reply = await this.#post(url, id, keys, body, timeout);
      if (reply.status === 200) return this.#read(reply.body);
      const problem = `${url.origin} answered ${reply.status}: ${reply.body.slice(0, MAX_DETAIL)}`;
      if (reply.status === 429 || reply.status === 503) {
        const seconds = retryAfterSeconds(reply.retryAfter);
        if (this.#remaining() < (seconds + timeout) * 1000 + GRACE_MS) throw new ServerUnreachableError(problem);
        await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      } else if (reply.status === 401 && !renewed) {
        renewed = true;
        const fresh = await this.#secrets.renewed();
        if (fresh === undefined) throw new ServerUnreachableError(problem);
        keys = fresh;
        await new Promise((resolve) => setTimeout(resolve, 1000)); // a retry has a newer timestamp, or it is a replay
      } else if (reply.status === 401 || reply.status === 404 || reply.status >= 500) {
        throw new ServerUnreachableError(problem);
      } else {
        throw new ServerRefusedError(problem);
      }
    }
  }

  #read(body: string): Map<string, Answer> {
    try {
      return readAnswers(body);
    } catch (error) {
      if (error instanceof AnswerError) throw new ServerUnreachableError(error.message, { cause: error });
      throw error;
    }
  }

  async #post(url: URL, id: string, keys: readonly Key[], body: Buffer, timeout: number): Promise<Reply> {
    const secure = url.protocol === 'https:';
    try {
      return await new Promise<Reply>((resolve, reject) => {
        const request = (secure ? httpsRequest : httpRequest)(
          url,
          {
            method: 'POST',
            agent: secure ? agents.https : agents.http,
            signal: AbortSignal.timeout(timeout * 1000 + GRACE_MS),
            headers: {
              ...sign(keys, id, Math.floor(Date.now() / 1000), body),
              'content-type': 'application/xmpp+xml',
              'content-length': body.length,
            },
          },
          (response) => {
            readBody(response).then(resolve, reject);
          },
        );
        request.on('error', reject);
        request.end(body);
      });
    } catch (error) {
      throw new ServerUnreachableError(`${url.origin} can't be reached: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    }
  }
}

async function readBody(response: IncomingMessage): Promise<Reply> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response) {
    size += (chunk as Buffer).length;
    if (size > MAX_ANSWER_BYTES) throw new AnswerError(`the answer is longer than ${MAX_ANSWER_BYTES} bytes`);
    chunks.push(chunk as Buffer);
  }
  return { status: response.statusCode ?? 0, retryAfter: response.headers['retry-after'], body: Buffer.concat(chunks).toString() };
}

function retryAfterSeconds(header: string | undefined): number {
  const seconds = header !== undefined && /^[0-9]{1,6}$/.test(header) ? Number(header) : RETRY_AFTER.missing;
  return Math.min(RETRY_AFTER.most, Math.max(RETRY_AFTER.least, seconds));
}
