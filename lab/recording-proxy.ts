import { once } from 'node:events';
import {
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
  createServer,
} from 'node:http';
import { readRequestBody } from '../local/http.ts';
import type { Lab } from './lab.ts';

interface RecordedRequest {
  /** When it came, in milliseconds. */
  readonly at: number;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** What was answered, once it has been. */
  answer?: string;
  /** With what status. */
  status?: number;
}

/** An answer that is not from where the request was sent. */
export class StubAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;

  constructor(status: number, headers: Readonly<Record<string, string>> = {}, body = '') {
    this.status = status;
    this.headers = headers;
    this.body = body;
  }
}

/**
 * What a test does to the requests that pass. What it returns is waited for; an `Instead` is answered in the place of
 * what would have been; where it throws, the connection is reset.
 */
export interface Interceptor {
  /** A request has come, and has not been passed on. */
  before?(body: string, headers: IncomingHttpHeaders): unknown;
  /** It has been answered, and its answer has not been passed back. */
  after?(body: string, answer: string, headers: IncomingHttpHeaders): unknown;
}

/** A relay in front of HTTP endpoints, which keeps what passes. */
export class RecordingProxy {
  readonly url: string;
  readonly requests: RecordedRequest[] = [];
  interceptor: Interceptor = {};
  readonly #server: Server;
  readonly #address: string;
  readonly #port: number;
  readonly #target: string | undefined;

  #listener: ((passed: RecordedRequest & { readonly answer: string }) => void) | undefined;

  private constructor(address: string, port: number, target: string | undefined) {
    this.#address = address;
    this.#port = port;
    this.#target = target;
    this.url = `http://${address}:${port}${target === undefined ? '' : new URL(target).pathname}`;
    this.#server = createServer((request, response) => {
      this.#relay(request, response).catch(() => request.socket.resetAndDestroy());
    });
  }

  /** @param target the URL to which everything goes; undefined: the path begins with the host and port, as it does behind PING_MUC_AWS_RELAY */
  static async start(lab: Lab, address: string, port: number, target?: string): Promise<RecordingProxy> {
    const proxy = new RecordingProxy(address, port, target);
    await proxy.up();
    return lab.keep(proxy);
  }

  /** Calls back for every request that has been answered. */
  watch(listener: (passed: RecordedRequest & { readonly answer: string }) => void): void {
    this.#listener = listener;
  }

  /** Refuses connections. */
  async down(): Promise<void> {
    if (!this.#server.listening) return;
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async up(): Promise<void> {
    if (this.#server.listening) return;
    this.#server.listen(this.#port, this.#address);
    await once(this.#server, 'listening');
  }

  stop(): Promise<void> {
    return this.down();
  }

  async #relay(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await readRequestBody(request, 10_000_000);
    const passed: RecordedRequest = { at: Date.now(), path: request.url ?? '', headers: request.headers, body };
    this.requests.push(passed);
    const stub = await this.interceptor.before?.(body.toString(), request.headers);
    if (stub instanceof StubAnswer) return answer(response, stub);
    const { host: _host, connection: _connection, 'content-length': _length, ...headers } = request.headers;
    const reply = await fetch(this.#target ?? `http:/${request.url}`, {
      method: 'POST',
      body,
      headers: headers as Record<string, string>,
    });
    passed.answer = await reply.text();
    passed.status = reply.status;
    this.#listener?.(passed as RecordedRequest & { readonly answer: string });
    const replaced = await this.interceptor.after?.(body.toString(), passed.answer, request.headers);
    const retryAfter = reply.headers.get('retry-after');
    const passedBack = {
      'content-type': reply.headers.get('content-type') ?? '',
      ...(retryAfter === null ? {} : { 'retry-after': retryAfter }),
    };
    answer(
      response,
      replaced instanceof StubAnswer ? replaced : new StubAnswer(reply.status, passedBack, passed.answer),
    );
  }
}

function answer(response: ServerResponse, { status, headers, body }: StubAnswer): void {
  response.writeHead(status, headers).end(body);
}
