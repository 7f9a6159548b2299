import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2 } from 'aws-lambda';
import type { Route } from './assembly.ts';
import { TooLargeError, readRequestBody } from './http.ts';

/** The payload limit of an HTTP API (API Gateway quotas). */
const MAX_BODY_BYTES = 10 * 1024 * 1024;
const REQUEST_TIMEOUT_MS = 30_000;
const MAX_CONNECTIONS = 256;

export interface Gateway {
  readonly port: number;
  close(): Promise<void>;
}

/** A request that has its answer. Times are in milliseconds; `at` is when it arrived. */
export interface ServedRequest {
  readonly status: number;
  readonly at: number;
  readonly latencyMs: number;
}

/** The HTTP API on one machine. It converts requests to API Gateway events (payload format 2.0). */
export async function startGateway(
  host: string,
  port: number,
  routes: readonly Route[],
  invoke: (functionArn: string, event: unknown) => Promise<unknown>,
  observe: (request: ServedRequest) => void = () => undefined,
): Promise<Gateway> {
  const functions = new Map(routes.map((route) => [route.key, route.functionArn]));
  const server: Server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, (request, response) => {
    const [at, began] = [Date.now(), performance.now()];
    response.on('finish', () => observe({ status: response.statusCode, at, latencyMs: performance.now() - began }));
    serve(request, functions, invoke).then(
      ({ statusCode = 200, headers = {}, body = '' }) =>
        response.writeHead(statusCode, headers as Record<string, string>).end(body),
      (error: unknown) => fail(response, error),
    );
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.listen(port, host);
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async close() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

function fail(response: ServerResponse, error: unknown): void {
  const tooLarge = error instanceof TooLargeError;
  if (!tooLarge)
    process.stderr.write(`${JSON.stringify({ level: 'ERROR', message: 'request failed', detail: String(error) })}\n`);
  if (response.destroyed) return;
  response.writeHead(tooLarge ? 413 : 500, { 'content-type': 'application/json', connection: 'close' });
  response.end(JSON.stringify({ message: tooLarge ? 'Request Entity Too Large' : 'Internal Server Error' }));
}

async function serve(
  request: IncomingMessage,
  functions: ReadonlyMap<string, string>,
  invoke: (functionArn: string, event: unknown) => Promise<unknown>,
): Promise<APIGatewayProxyStructuredResultV2> {
  const url = URL.parse(request.url ?? '', 'http://localhost');
  const routeKey = `${request.method} ${url?.pathname}`;
  const functionArn = functions.get(routeKey);
  if (functionArn === undefined)
    return { statusCode: 404, headers: { 'content-type': 'application/json' }, body: '{"message":"Not Found"}' };
  const body = await readRequestBody(request, MAX_BODY_BYTES);
  const headers = Object.fromEntries(
    Object.entries(request.headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(',') : value]),
  );
  const isText = /^(text\/|application\/(json|xml|javascript))/.test(headers['content-type'] ?? '');
  const event: APIGatewayProxyEventV2 = {
    version: '2.0',
    routeKey,
    rawPath: url?.pathname ?? '',
    rawQueryString: url?.search.slice(1) ?? '',
    headers,
    requestContext: {
      accountId: '000000000000',
      apiId: 'local',
      domainName: 'localhost',
      domainPrefix: 'localhost',
      http: {
        method: request.method ?? '',
        path: url?.pathname ?? '',
        protocol: `HTTP/${request.httpVersion}`,
        sourceIp: request.socket.remoteAddress ?? '',
        userAgent: headers['user-agent'] ?? '',
      },
      requestId: randomUUID(),
      routeKey,
      stage: '$default',
      time: new Date().toISOString(),
      timeEpoch: Date.now(),
    },
    body: body.toString(isText ? 'utf8' : 'base64'),
    isBase64Encoded: !isText,
  };
  return (await invoke(functionArn, event)) as APIGatewayProxyStructuredResultV2;
}
