import { once } from 'node:events';
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { readRequestBody } from '../local/http.ts';

interface Received {
  readonly url: string;
  /** The other end of its connection. */
  readonly port: number | undefined;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

export interface Endpoint {
  readonly url: string;
  readonly received: Received[];
  close(): Promise<void>;
}

/** A server on a loopback port with scripted answers. */
export async function listen(
  answer: (request: Received, response: ServerResponse, n: number) => void,
): Promise<Endpoint> {
  const received: Received[] = [];
  const server = createServer((request, response) => {
    void readRequestBody(request, 10_000_000).then((body) => {
      const { url = '', headers, socket } = request;
      const one = { url, port: socket.remotePort, headers, body };
      received.push(one);
      answer(one, response, received.length);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    received,
    async close() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
