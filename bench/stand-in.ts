import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { readRequestBody } from '../local/http.ts';

export interface StandIn {
  /** The base of its stanza API. */
  readonly url: string;
  /** What its rooms say of everyone. */
  answers: 'joined' | 'left';
  close(): Promise<void>;
}

/**
 * A server's stanza API without a server, where it is the functions alone that are measured: every ping is answered as
 * `answers` says, every notice is delivered.
 */
export async function startStandIn(): Promise<StandIn> {
  const server = createServer((request, response) => {
    void readRequestBody(request, 1024 * 1024).then((body) => {
      const pings = [...body.toString().matchAll(/<iq type="get" id="([^"]+)"/g)].map(([, id]) =>
        standIn.answers === 'joined'
          ? `<iq type="result" id="${id}"/>`
          : `<iq type="error" id="${id}"><error type="cancel"><not-acceptable xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>`,
      );
      response.writeHead(200, { 'content-type': 'application/xmpp+xml' }).end(`<xmpp>${pings.join('')}</xmpp>`);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const standIn: StandIn = {
    answers: 'joined',
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
  return standIn;
}
