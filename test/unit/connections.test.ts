import { type Agent, request } from 'node:http';
import type { Context } from 'aws-lambda';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { LONGEST_IDLE_MS, closeIdleConnections, keepAlive } from '../../functions/adapters/connections.ts';
import { ENV } from '../../functions/names.ts';
import { type Endpoint, listen } from '../../lab/endpoint.ts';

const { httpAgent } = keepAlive(2);
let server: Endpoint;
beforeAll(async () => {
  server = await listen((_request, response) => response.end());
});
afterAll(() => server.close());
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

/** Sends a request, and returns the local port of its connection. */
function portOf(agent: Agent, meanwhile: () => void = () => undefined): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const outgoing = request(server.url, { agent }, (response) => {
      const { localPort } = response.socket;
      response.resume().on('end', () => setImmediate(resolve, localPort)); // then it is idle
    });
    outgoing.on('error', reject).on('socket', meanwhile).end();
  });
}

function later(milliseconds: number): void {
  const now = Date.now.bind(Date);
  vi.spyOn(Date, 'now').mockImplementation(() => now() + milliseconds);
}

describe('a kept-alive connection', () => {
  it('is used again by the next invocation', async () => {
    const first = await portOf(httpAgent);
    later(LONGEST_IDLE_MS - 1000);
    closeIdleConnections();
    expect(await portOf(httpAgent)).toBe(first);
  });

  it('is not, if it was idle for so long that a freeze may have broken it', async () => {
    const first = await portOf(httpAgent);
    later(LONGEST_IDLE_MS + 1000);
    closeIdleConnections();
    expect(await portOf(httpAgent)).not.toBe(first);
  });

  it('is idle only after the last answer, and not while a request is under way', async () => {
    const first = await portOf(httpAgent);
    const second = await portOf(httpAgent, () => {
      later(LONGEST_IDLE_MS + 1000);
      closeIdleConnections();
    });
    closeIdleConnections();
    expect([second, await portOf(httpAgent)]).toEqual([first, first]);
  });
});

describe.each(['webhook', 'check'])('the %s function', (name) => {
  it('begins each invocation with no connection that a freeze may have broken', async () => {
    // the secret is the first thing that both ask for, and what they cannot get they ask for again
    const aws = await listen((_request, response) => response.writeHead(400).end('{"__type":"AccessDeniedException"}'));
    const variables = { AWS_REGION: 'eu-central-1', AWS_ACCESS_KEY_ID: 'local', AWS_SECRET_ACCESS_KEY: 'local' };
    for (const [key, value] of Object.entries({ ...variables, AWS_ENDPOINT_URL: aws.url })) vi.stubEnv(key, value);
    for (const key of Object.values(ENV)) vi.stubEnv(key, 'test');
    vi.resetModules(); // so that its clients find this endpoint
    const { handler } = (await import(`../../functions/${name}.ts`)) as {
      handler: (event: object, context: Partial<Context>) => Promise<unknown>;
    };
    vi.spyOn(process.stdout, 'write').mockReturnValue(true);
    const event = { probe: 'example.net', headers: {}, body: '{}' };
    const invoke = (): Promise<unknown> =>
      handler(event, { getRemainingTimeInMillis: () => 20_000 }).catch(() => undefined);
    await invoke();
    await invoke();
    later(LONGEST_IDLE_MS + 1000);
    await invoke();
    const [first, second, third] = aws.received.map(({ port }) => port);
    await aws.close();
    expect([second === first, third === first]).toEqual([true, false]);
    expect(aws.received).toHaveLength(3);
  });
});
