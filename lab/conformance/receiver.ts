import { once } from 'node:events';
import { type IncomingHttpHeaders, type Server, createServer } from 'node:http';
import { readRequestBody } from '../../local/http.ts';
import { until } from '../lab.ts';

/** The contract's largest webhook, in bytes; one that is larger is kept for the report, up to this multiple. */
const MAX_BYTES = 262_144;
const TOO_LARGE = 4;
const EVENT_WITHIN_MS = 15_000;

export interface Webhook {
  /** When it arrived, in milliseconds. */
  readonly at: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** The events, or none if it cannot be read. */
  readonly events: readonly Event[];
  readonly hasQueue: boolean;
  readonly status: number;
}

export interface Event {
  readonly type: string;
  readonly at: number;
  readonly user?: string;
  readonly room?: string;
  readonly nick?: string;
  readonly remote?: string;
  readonly reenter?: unknown;
}

/** Receives the webhooks of the server that is tested, in place of the functions. */
export class Receiver {
  readonly webhooks: Webhook[] = [];
  readonly #server: Server;
  #refusals = 0;

  private constructor() {
    this.#server = createServer((request, response) => {
      readRequestBody(request, MAX_BYTES * TOO_LARGE).then(
        (body) => {
          const { events, hasQueue } = read(body);
          const status = events.length > 0 && this.#refusals-- > 0 ? 503 : 200;
          this.webhooks.push({ at: Date.now(), headers: request.headers, body, events, hasQueue, status });
          if (status === 503) response.writeHead(503, { 'retry-after': '1' }).end();
          else
            response
              .writeHead(200, { 'content-type': 'application/json' })
              .end(JSON.stringify({ accepted: events.length, rejected: [] }));
        },
        () => request.socket.destroy(),
      );
    });
  }

  /** @throws if something else listens there */
  static async listen(host: string, port: number): Promise<Receiver> {
    const receiver = new Receiver();
    receiver.#server.listen(port, host);
    await once(receiver.#server, 'listening');
    return receiver;
  }

  /** Answers 503 to the next request with events. */
  refuseNext(): void {
    this.#refusals = 1;
  }

  /** The accepted events, as they arrived. */
  get events(): readonly Event[] {
    return this.webhooks.filter(({ status }) => status === 200).flatMap(({ events }) => events);
  }

  /** Waits for an accepted event. @throws if it does not come */
  event(what: string, isIt: (event: Event) => boolean, milliseconds = EVENT_WITHIN_MS): Promise<Event> {
    return until(`a webhook with ${what} arrives`, () => this.events.findLast(isIt), milliseconds);
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

function read(body: Buffer): Pick<Webhook, 'events' | 'hasQueue'> {
  try {
    const { events = [], queue } = JSON.parse(body.toString()) as { events?: Event[]; queue?: unknown };
    return { events, hasQueue: queue !== undefined };
  } catch {
    return { events: [], hasQueue: false };
  }
}
