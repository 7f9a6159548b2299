import { request } from 'node:http';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Asset } from '../../local/console/pages.ts';
import { type ConsoleServer, startServer } from '../../local/console/server.ts';

const asset = (body: string): Asset => ({ type: 'text/plain', body: Buffer.from(body), etag: `"${body}"` });
const errors: unknown[] = [];
let server: ConsoleServer;

beforeAll(async () => {
  const assets = new Map([
    ['index.html', asset('shell')],
    ['app.js', asset('script')],
  ]);
  const api = (path: string): unknown => {
    if (path === 'broken') throw new Error('broken');
    return path === 'overview' ? { joins: 3 } : undefined;
  };
  server = await startServer(0, Promise.resolve(assets), api, (error) => errors.push(error));
});
afterAll(() => server.close());

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: string;
}

function ask(path: string, { method = 'GET', body = '', ...headers }: Record<string, string> = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port: server.port, path, method, timeout: 5000 };
    const sent = request({ ...options, headers: { host: `127.0.0.1:${server.port}`, ...headers } }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => (text += part));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
    });
    sent.on('error', reject).end(body);
  });
}

const own = (name: string): string => `${name}:${server.port}`;

describe('the console answers', () => {
  it.each(['/', '/dashboard', '/alarms', '/checks', '/search?q=juliet', '/servers', '/runbook'])(
    '%s with the page',
    async (path) => {
      expect(await ask(path)).toMatchObject({ status: 200, body: 'shell' });
    },
  );

  it('under each name of loopback', async () => {
    for (const host of ['127.0.0.1', 'localhost', '[::1]', 'LocalHost'])
      expect(await ask('/', { host: own(host) })).toMatchObject({ status: 200 });
  });

  it('its own pages’ requests', async () => {
    const headers = { origin: `http://${own('localhost')}`, 'sec-fetch-site': 'same-origin' };
    expect(await ask('/api/overview', headers)).toMatchObject({ status: 200, body: '{"joins":3}' });
  });

  it('HEAD without a body', async () => {
    expect(await ask('/', { method: 'HEAD' })).toMatchObject({ status: 200, body: '' });
  });

  it('304 if the page has not changed', async () => {
    expect(await ask('/app.js', { 'if-none-match': '"script"' })).toMatchObject({ status: 304, body: '' });
  });

  it('everything with a policy that allows nothing inline and nothing from elsewhere, and without cookies', async () => {
    for (const path of ['/', '/app.js', '/api/overview', '/nothing']) {
      const { headers } = await ask(path);
      expect(headers).toMatchObject({
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
        'cross-origin-resource-policy': 'same-origin',
        'cross-origin-opener-policy': 'same-origin',
      });
      const policy = String(headers['content-security-policy']);
      expect(policy).not.toMatch(/unsafe|\*|data:|https?:/);
      for (const part of ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"])
        expect(policy).toContain(part);
      expect(headers).not.toHaveProperty('set-cookie');
      expect(headers).not.toHaveProperty('access-control-allow-origin');
    }
  });
});

describe('the console refuses', () => {
  it.each(['evil.example', 'evil.example:1', '127.0.0.1', '127.0.0.1.evil.example', 'localhost:1'])(
    'the name %j in Host, so that no page elsewhere reaches it under its own name',
    async (host) => {
      expect(await ask('/api/overview', { host })).toMatchObject({ status: 421 });
    },
  );

  it.each(['https://evil.example', 'null', 'http://localhost', 'http://127.0.0.1:1'])(
    'requests of the origin %s',
    async (origin) => {
      expect(await ask('/api/overview', { origin })).toMatchObject({ status: 403 });
    },
  );

  it.each(['cross-site', 'same-site'])('what the browser says is %s', async (site) => {
    expect(await ask('/api/overview', { 'sec-fetch-site': site })).toMatchObject({ status: 403 });
  });

  it.each(['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'])('%s', async (method) => {
    const { status, headers } = await ask('/', { method });
    expect(status).toBe(405);
    expect(headers['allow']).toBe('GET, HEAD');
  });

  it('a body', async () => {
    expect(await ask('/', { body: 'text', 'content-length': '4' })).toMatchObject({ status: 400 });
  });

  it('an address that is too long', async () => {
    expect(await ask(`/?${'a'.repeat(12_000)}`)).toMatchObject({ status: 414 });
  });

  it.each(['/../package.json', '/..%2fpackage.json', '/%2e%2e/%2e%2e/etc/passwd', '//etc/passwd', '/api/../app.css'])(
    'the path %s',
    async (path) => {
      expect(await ask(path)).toMatchObject({ status: 404 });
    },
  );

  it.each(['/api/', '/api/constructor', '/api/nothing', '/index', '/wp-login.php'])(
    '%s, which is nothing',
    async (path) => {
      expect(await ask(path)).toMatchObject({ status: 404 });
    },
  );

  it('an address that is none', async () => {
    expect(await ask('http://[')).toMatchObject({ status: 404 });
  });
});

it('a failure of the API is reported to the log, not to the page', async () => {
  const { status, body } = await ask('/api/broken');
  expect(status).toBe(500);
  expect(body).toBe('The console failed. The log says why.\n');
  expect(errors.map(String)).toEqual(['Error: broken']);
});

it('listens on loopback alone, and says what to do if the port is in use', async () => {
  const socket = connect(server.port, '127.0.0.1');
  await new Promise((resolve) => socket.once('connect', resolve));
  socket.destroy();
  await expect(
    startServer(
      server.port,
      Promise.resolve(new Map()),
      () => undefined,
      () => undefined,
    ),
  ).rejects.toThrow(
    `the console cannot listen on port ${server.port}: give another one with --console, or --console off`,
  );
});
