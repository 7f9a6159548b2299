import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { AlarmChange } from '../../../local/cloudwatch/alarm-evaluator.ts';
import { type Delivery, Notifier } from '../../../local/cloudwatch/notifier.ts';
import { readRequestBody } from '../../../local/http.ts';

vi.setConfig({ testTimeout: 30_000 }); // real parts, which are slow on a busy machine

const CHANGE: AlarmChange = {
  name: 'PingMuc: Checks fail',
  description: 'Severity high.',
  from: 'OK',
  to: 'ALARM',
  at: Date.UTC(2027, 0, 15),
  reason: '1 of 1 datapoints are greater than 0',
  actions: ['arn:aws:sns:us-east-1:000000000000:Topic'],
};

let directory: string;
let warnings: string[];
let notifier: Notifier;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ping-muc-unit-'));
  warnings = [];
});
afterEach(async () => {
  await notifier.close();
  rmSync(directory, { recursive: true, force: true });
});

function deliverTo(delivery: Partial<Delivery>, timeouts?: { command: number; url: number }): void {
  const warn = (message: string, detail: string): unknown => warnings.push(`${message}: ${detail}`);
  notifier = new Notifier({ command: undefined, url: undefined, ...delivery }, warn, timeouts);
}

function program(script: string): string {
  const file = join(directory, 'page me; exit 1'); // a shell would run two commands
  writeFileSync(file, `#!/bin/sh\n${script}\n`);
  chmodSync(file, 0o755);
  return file;
}
const output = (): string => readFileSync(join(directory, 'output'), 'utf8');

async function withServer(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
  test: (url: string) => Promise<void>,
): Promise<void> {
  const server = createServer(answer).listen(0, '127.0.0.1');
  await once(server, 'listening');
  await test(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
}

it('the alarm command reads the change as JSON, runs without a shell, and does not see the secret', async () => {
  process.env['PING_MUC_SECRET'] = 'whsec_c2VjcmV0';
  deliverTo({ command: program(`{ cat; env; } > '${directory}/output'`) });
  notifier.notify(CHANGE);
  await notifier.settled();
  delete process.env['PING_MUC_SECRET'];
  const [json = '', ...environment] = output().split('\n');
  expect(JSON.parse(json)).toEqual(CHANGE);
  expect(environment.join()).toContain('PATH=');
  expect(environment.join()).not.toContain('whsec_');
  expect(warnings).toEqual([]);
});

it('one command runs at a time, in the order of the changes', async () => {
  const script = `mkdir '${directory}/lock' || exit 1; cat >> '${directory}/output'; rmdir '${directory}/lock'`;
  deliverTo({ command: program(script) });
  const names = ['one', 'two', 'three'];
  for (const name of names) notifier.notify({ ...CHANGE, name });
  await notifier.settled();
  const lines = output().trim().split('\n');
  expect(lines.map((line) => (JSON.parse(line) as AlarmChange).name)).toEqual(names);
});

it('a command that fails is logged with what it says', async () => {
  deliverTo({ command: program('echo "no pager" >&2; exit 3') });
  notifier.notify(CHANGE);
  await notifier.settled();
  expect(warnings).toEqual([
    'an alarm is not delivered: PingMuc: Checks fail: the alarm command ended with 3: no pager',
  ]);
});

it('a command that is not there is logged', async () => {
  deliverTo({ command: join(directory, 'nothing') });
  notifier.notify(CHANGE);
  await notifier.settled();
  expect(warnings).toEqual([expect.stringMatching(/Checks fail: spawn .*nothing ENOENT$/)]);
});

it('the URL takes the change as JSON', async () => {
  const bodies: string[] = [];
  await withServer(
    (request, response) => {
      void readRequestBody(request, 10_000).then((body) => {
        bodies.push(`${request.method} ${request.headers['content-type']} ${body.toString()}`);
        response.end();
      });
    },
    async (url) => {
      deliverTo({ url });
      notifier.notify(CHANGE);
      await notifier.settled();
    },
  );
  expect(bodies).toEqual([`POST application/json ${JSON.stringify(CHANGE)}`]);
  expect(warnings).toEqual([]);
});

it('a failed request is logged without the path of the URL, which can be secret', async () => {
  await withServer(
    (_, response) => response.writeHead(403).end(),
    async (url) => {
      deliverTo({ url: `${url}/token-1234?key=5678` });
      notifier.notify(CHANGE);
      await notifier.settled();
      expect(warnings).toEqual([`an alarm is not delivered: PingMuc: Checks fail: ${url} answered 403`]);
    },
  );
  notifier.notify(CHANGE); // the server is gone
  await notifier.settled();
  expect(warnings[1]).toMatch(/: http:\/\/127\.0\.0\.1:\d+ cannot be reached: /);
  expect(warnings.join()).not.toMatch(/token|key/);
});

it('a command and a request that take too long are ended', async () => {
  await withServer(
    () => undefined,
    async (url) => {
      deliverTo({ command: program('exec sleep 60'), url }, { command: 200, url: 200 });
      notifier.notify(CHANGE);
      await notifier.settled();
    },
  );
  expect(warnings).toEqual([
    expect.stringContaining('the alarm command ended with SIGKILL'),
    expect.stringMatching(/cannot be reached: .*timeout/),
  ]);
});

it('a redirect is not followed', async () => {
  const paths: (string | undefined)[] = [];
  await withServer(
    (request, response) => {
      paths.push(request.url);
      response.writeHead(request.url === '/first' ? 307 : 200, { location: '/second' }).end();
    },
    async (url) => {
      deliverTo({ url: `${url}/first` });
      notifier.notify(CHANGE);
      await notifier.settled();
    },
  );
  expect(paths).toEqual(['/first']);
  expect(warnings).toEqual([expect.stringContaining('cannot be reached: ')]);
});

it('a change of which the template notifies nobody is not delivered', async () => {
  deliverTo({ command: program(`cat > '${directory}/output'`) });
  notifier.notify({ ...CHANGE, actions: [] });
  await notifier.settled();
  expect(() => output()).toThrow('ENOENT');
});

it('a hundred changes wait, and further ones are logged', () => {
  deliverTo({ command: program('cat > /dev/null; exec sleep 60') });
  for (let index = 0; index < 103; index += 1) notifier.notify({ ...CHANGE, name: `alarm ${index}` });
  expect(warnings).toEqual([
    'an alarm is not delivered: alarm 101: 100 wait already',
    'an alarm is not delivered: alarm 102: 100 wait already',
  ]);
});

it('closing ends the command that runs, and logs what was not delivered', async () => {
  deliverTo({ command: program(`cat > /dev/null; exec sleep 60`) });
  for (const name of ['one', 'two']) notifier.notify({ ...CHANGE, name });
  await notifier.close();
  expect(warnings.map((warning) => warning.slice(0, 33))).toEqual([
    'an alarm is not delivered: one: T',
    'an alarm is not delivered: two: t',
  ]);
});
