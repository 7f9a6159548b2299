import { once } from 'node:events';
import { type IncomingHttpHeaders, type Server, createServer } from 'node:http';
import { readRequestBody } from '../../local/http.ts';
import type { Lab } from './lab.ts';

interface Tapped {
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** A relay in front of an HTTP endpoint, which keeps what passes. */
export class Tap {
  readonly url: string;
  readonly requests: Tapped[] = [];
  readonly #server: Server;

  private constructor(url: string, server: Server) {
    this.url = url;
    this.#server = server;
  }

  static async start(lab: Lab, address: string, port: number, target: string): Promise<Tap> {
    const server = createServer((request, response) => {
      void (async () => {
        const body = await readRequestBody(request, 10_000_000);
        tap.requests.push({ headers: request.headers, body });
        const { host: _host, connection: _connection, 'content-length': _length, ...headers } = request.headers;
        const reply = await fetch(target, { method: 'POST', body, headers: headers as Record<string, string> });
        response.writeHead(reply.status, { 'content-type': reply.headers.get('content-type') ?? '' }).end(Buffer.from(await reply.arrayBuffer()));
      })().catch(() => response.destroy());
    });
    const tap = new Tap(`http://${address}:${port}/webhooks`, server);
    server.listen(port, address);
    await once(server, 'listening');
    return lab.keep(tap);
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}
