import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { readRequestBody } from '../local/http.ts';

const NOT_ACCEPTABLE = '<error type="cancel"><not-acceptable xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error>';

export interface FakeServer {
  /** The base of its stanza API. */
  readonly url: string;
  /** What its rooms answer for every user. */
  answers: 'joined' | 'left';
  close(): Promise<void>;
}

/**
 * A fake stanza API, for measurements of the functions alone. It answers every ping with `answers`, and accepts every
 * notice.
 */
export async function startFakeServer(): Promise<FakeServer> {
  const server = createServer((request, response) => {
    void readRequestBody(request, 1024 * 1024).then((body) => {
      const pings = [...body.toString().matchAll(/<iq type="get" id="([^"]+)"/g)].map(([, id]) =>
        fake.answers === 'joined'
          ? `<iq type="result" id="${id}"/>`
          : `<iq type="error" id="${id}">${NOT_ACCEPTABLE}</iq>`,
      );
      response.writeHead(200, { 'content-type': 'application/xmpp+xml' }).end(`<xmpp>${pings.join('')}</xmpp>`);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const fake: FakeServer = {
    answers: 'joined',
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
  return fake;
}
