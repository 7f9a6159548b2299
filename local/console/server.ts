import { once } from 'node:events';
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { refusal } from './guard.ts';
import type { Asset } from './pages.ts';

const MAX_CONNECTIONS = 64;
/** For a request's headers, and for all of it. */
const REQUEST_TIMEOUT_MS = 10_000;
const MAX_HEADERS = 64;
/** The pages, each of which is the same document. */
const PAGES: ReadonlySet<string> = new Set([
  '/',
  '/dashboard',
  '/alarms',
  '/checks',
  '/search',
  '/servers',
  '/runbook',
]);

/**
 * Nothing from elsewhere, nothing inline, and no other page may show this one in a frame.
 * https://www.w3.org/TR/CSP3/
 */
const SECURITY: Readonly<Record<string, string>> = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
};

/** Answers a path below /api/ with JSON. Undefined: there is no such path. */
export type Api = (path: string, query: URLSearchParams) => unknown;

export interface ConsoleServer {
  readonly port: number;
  close(): Promise<void>;
}

/**
 * Serves the console on loopback.
 * @param port 0: any free port
 * @param onError is called with what the API throws
 * @throws if the port is in use, with what to do
 */
export async function startServer(
  port: number,
  assets: Promise<ReadonlyMap<string, Asset>>,
  api: Api,
  onError: (error: unknown) => void,
): Promise<ConsoleServer> {
  const options = { headersTimeout: REQUEST_TIMEOUT_MS, requestTimeout: REQUEST_TIMEOUT_MS };
  const server: Server = createServer(options, (request, response) => {
    for (const [name, value] of Object.entries(SECURITY)) response.setHeader(name, value);
    serve(request, response, assets, api).catch((error: unknown) => {
      onError(error);
      if (!response.headersSent) plain(response, 500, 'The console failed. The log says why.');
      else response.destroy();
    });
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.maxHeadersCount = MAX_HEADERS;
  server.listen(port, '127.0.0.1');
  await once(server, 'listening').catch((error: unknown) => {
    throw new Error(`the console cannot listen on port ${port}: give another one with --console, or --console off`, {
      cause: error,
    });
  });
  return {
    port: (server.address() as AddressInfo).port,
    async close() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  assets: Promise<ReadonlyMap<string, Asset>>,
  api: Api,
): Promise<void> {
  const { method = '', url = '', headers, socket } = request;
  const refused = refusal(method, url, headers, socket.localPort ?? 0);
  if (refused !== undefined) {
    response.setHeader('connection', 'close');
    if (refused.status === 405) response.setHeader('allow', 'GET, HEAD');
    return plain(response, refused.status, refused.message);
  }
  const parsed = URL.parse(url, 'http://localhost');
  if (parsed === null) return plain(response, 404, 'There is no such page.');
  const { pathname, searchParams } = parsed;
  if (pathname.startsWith('/api/')) {
    const answer = await api(pathname.slice('/api/'.length), searchParams);
    if (answer === undefined) return plain(response, 404, 'There is no such page.');
    response.writeHead(200, { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store' });
    response.end(JSON.stringify(answer));
    return;
  }
  const asset = (await assets).get(PAGES.has(pathname) ? 'index.html' : pathname.slice(1));
  if (asset === undefined) return plain(response, 404, 'There is no such page.');
  response.setHeader('etag', asset.etag);
  response.setHeader('cache-control', 'no-cache');
  if (headers['if-none-match'] === asset.etag) response.writeHead(304).end();
  else response.writeHead(200, { 'content-type': asset.type }).end(asset.body);
}

function plain(response: ServerResponse, status: number, message: string): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' });
  response.end(`${message}\n`);
}
