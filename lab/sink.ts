import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { readRequestBody } from '../local/http.ts';
import type { Lab } from './lab.ts';

export interface WebhookEvent {
  readonly type: string;
  readonly at: number;
  readonly user?: string;
  readonly room?: string;
  readonly nick?: string;
}

/** Accepts webhooks in place of the functions, and only keeps their events. */
export async function startSink(lab: Lab): Promise<{ readonly url: string; readonly events: readonly WebhookEvent[] }> {
  const events: WebhookEvent[] = [];
  const server = createServer((request, response) => {
    void readRequestBody(request, 1_000_000).then((body) => {
      events.push(...(JSON.parse(body.toString()) as { events: WebhookEvent[] }).events);
      response.end('{"accepted":1,"rejected":[]}');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  lab.keep({
    async stop() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, events };
}
