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
  /** When it arrived, in milliseconds. */
  readonly at: number;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** The body and the status of the answer, once there is one. */
  answer?: string;
  status?: number;
}

/** An answer that the proxy gives itself, instead of the target's. */
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
 * What a test does with the requests. The proxy waits for what an interceptor returns, and answers with it if it is a
 * `StubAnswer`. If the interceptor throws, the connection is reset.
 */
export interface Interceptor {
  /** Called before a request is forwarded. */
  before?(body: string, headers: IncomingHttpHeaders): unknown;
  /** Called when the target has answered, before its answer is returned. */
  after?(body: string, answer: string, headers: IncomingHttpHeaders): unknown;
}

/** A proxy in front of HTTP endpoints, which records the requests and their answers. */
export class RecordingProxy {
  readonly url: string;
  readonly requests: RecordedRequest[] = [];
  interceptor: Interceptor = {};
  readonly #server: Server;
  readonly #address: string;
  readonly #port: number;
  readonly #target: string | undefined;

  #listener: ((recorded: RecordedRequest & { readonly answer: string }) => void) | undefined;

  private constructor(address: string, port: number, target: string | undefined) {
    this.#address = address;
    this.#port = port;
    this.#target = target;
    this.url = `http://${address}:${port}${target === undefined ? '' : new URL(target).pathname}`;
    this.#server = createServer((request, response) => {
      this.#forward(request, response).catch(() => request.socket.resetAndDestroy());
    });
  }

  /**
   * @param target the URL to which every request goes; if undefined, the path begins with the host and port, as it does
   * with PING_MUC_AWS_RELAY
   */
  static async start(lab: Lab, address: string, port: number, target?: string): Promise<RecordingProxy> {
    const proxy = new RecordingProxy(address, port, target);
    await proxy.up();
    return lab.keep(proxy);
  }

  /** Calls the listener for every request that the target has answered. */
  watch(listener: (recorded: RecordedRequest & { readonly answer: string }) => void): void {
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

  async #forward(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await readRequestBody(request, 10_000_000);
    const recorded: RecordedRequest = { at: Date.now(), path: request.url ?? '', headers: request.headers, body };
    this.requests.push(recorded);
    const stub = await this.interceptor.before?.(body.toString(), request.headers);
    if (stub instanceof StubAnswer) return answer(response, stub);
    const { host: _host, connection: _connection, 'content-length': _length, ...headers } = request.headers;
    const reply = await fetch(this.#target ?? `http:/${request.url}`, {
      method: 'POST',
      body,
      headers: headers as Record<string, string>,
    });
    recorded.answer = await reply.text();
    recorded.status = reply.status;
    this.#listener?.(recorded as RecordedRequest & { readonly answer: string });
    const replaced = await this.interceptor.after?.(body.toString(), recorded.answer, request.headers);
    const retryAfter = reply.headers.get('retry-after');
    const returned = {
      'content-type': reply.headers.get('content-type') ?? '',
      ...(retryAfter === null ? {} : { 'retry-after': retryAfter }),
    };
    answer(
      response,
      replaced instanceof StubAnswer ? replaced : new StubAnswer(reply.status, returned, recorded.answer),
    );
  }
}

function answer(response: ServerResponse, { status, headers, body }: StubAnswer): void {
  response.writeHead(status, headers).end(body);
}
