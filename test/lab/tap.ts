import { once } from 'node:events';
import { type IncomingHttpHeaders, type Server, createServer } from 'node:http';
import { readRequestBody } from '../../local/http.ts';
import type { Lab } from './lab.ts';

interface Tapped {
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** What was answered, once it has been. */
  answer?: string;
}

/** A relay in front of an HTTP endpoint, which keeps what passes. */
export class Tap {
  readonly url: string;
  readonly requests: Tapped[] = [];
  readonly #server: Server;

  #listener: ((passed: Required<Tapped>) => void) | undefined;

  private constructor(url: string, server: Server) {
    this.url = url;
    this.#server = server;
  }

  /** @param target the URL to which everything goes */
  static async start(lab: Lab, address: string, port: number, target: string): Promise<Tap> {
    const server = createServer((request, response) => {
      void (async () => {
        const body = await readRequestBody(request, 10_000_000);
        const passed: Tapped = { headers: request.headers, body };
        tap.requests.push(passed);
        const { host: _host, connection: _connection, 'content-length': _length, ...headers } = request.headers;
        const reply = await fetch(target, { method: 'POST', body, headers: headers as Record<string, string> });
        const answer = Buffer.from(await reply.arrayBuffer());
        passed.answer = answer.toString();
        tap.#listener?.(passed as Required<Tapped>);
        response.writeHead(reply.status, { 'content-type': reply.headers.get('content-type') ?? '' }).end(answer);
      })().catch(() => response.destroy());
    });
    const tap = new Tap(`http://${address}:${port}${new URL(target).pathname}`, server);
    server.listen(port, address);
    await once(server, 'listening');
    return lab.keep(tap);
  }

  /** Calls back for every request that has been answered. */
  watch(listener: (passed: Required<Tapped>) => void): void {
    this.#listener = listener;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}
