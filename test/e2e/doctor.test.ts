import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DeleteItemCommand, UpdateItemCommand } from '@aws-sdk/client-dynamodb';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { doctor } from '../../lab/doctor.ts';
import { listen } from '../../lab/endpoint.ts';
import { NOT_SHIFTED, shifted } from '../../lab/faketime.ts';
import { Lab, until } from '../../lab/lab.ts';
import { Prosody } from '../../lab/prosody.ts';
import { Runtime, type Settings } from '../../lab/runtime.ts';
import { readAddress } from '../../local/address.ts';
import { type StackTable, nowSeconds, openTable } from '../../scripts/controls.ts';
import type { Finding } from '../../scripts/doctor/finding.ts';
import { instanceFindings } from '../../scripts/doctor/instance.ts';

/** `npm run doctor`, on an installation that works, and on ones that do not: each fault is named in one line. */

const OTHER_SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
const HTTPS_PORT = 5281;
/** The addresses of Prosody's HTTPS server, by the kind of their certificate. */
const HTTPS = { valid: 2, expired: 7, 'of another name': 8 } as const;
let lab: Lab;
let runtime: Runtime;
let home: Prosody;
/** Another host of the same server. */
let second: string;
let table: StackTable;

/** The configuration of both hosts. @param changes settings of the first one */
function forHosts(changes: Settings = {}): string {
  const { forHost } = runtime.prosodySettings(changes);
  return `${forHost}\nVirtualHost "${second}"\n${runtime.prosodySettings().forHost}`;
}

/** Prosody's HTTPS server, with a certificate for each of its addresses (13.0 does not take one for each port). */
async function certificates(): Promise<string> {
  const authority = await lab.authority();
  const entries: string[] = [];
  for (const [kind, address] of Object.entries(HTTPS)) {
    const directory = join(lab.directory, 'https', String(address));
    const name = lab.address(kind === 'of another name' ? 9 : address);
    await authority.certify([name], directory, { isExpired: kind === 'expired' });
    const files = `certificate = "${directory}/server.crt", key = "${directory}/server.key"`;
    entries.push(`["${lab.address(address)}"] = { ${files} }`);
  }
  const interfaces = Object.values(HTTPS).map((address) => `"${lab.address(address)}"`);
  return [
    `https_interfaces = { ${interfaces.join(', ')} }`,
    `https_ports = { ${HTTPS_PORT} }`,
    `https_ssl = { ${entries.join(', ')} }`,
  ].join('\n');
}

const httpsApi = (kind: keyof typeof HTTPS): string => `https://${lab.address(HTTPS[kind])}:${HTTPS_PORT}/ping_muc`;

async function openRuntimeTable(): Promise<StackTable> {
  return openTable((await readAddress(runtime.data)) ?? '');
}

/** A runtime that starts again has its table at another address. */
async function openTableAgain(): Promise<void> {
  table.client.destroy();
  table = await openRuntimeTable();
}

beforeAll(async () => {
  lab = await Lab.open();
  runtime = await Runtime.start(lab, { environment: { PING_MUC_CONSOLE: '0' } });
  second = lab.address(6);
  const { global } = runtime.prosodySettings();
  home = await Prosody.start(lab, {
    host: lab.address(2),
    global: `${global}\n${await certificates()}`,
    forHost: forHosts(),
  });
  table = await openRuntimeTable();
  await announce();
});
afterAll(async () => {
  table.client.destroy();
  await lab.close();
});

/** What the doctor finds about the first host. */
async function find(changes: Partial<Parameters<typeof instanceFindings>[0]> = {}): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  for await (const finding of instanceFindings({ data: runtime.data, hosts: [home.host], ...changes }))
    findings.push(finding);
  return findings;
}
const broken = (findings: readonly Finding[]): readonly string[] =>
  findings.filter(({ mark }) => mark === 'bad').map(({ text }) => text);

/** The fault is named in one line, and nothing else is said to be broken. */
async function expectFault(text: RegExp, changes: Parameters<typeof find>[0] = {}): Promise<void> {
  expect(broken(await find(changes))).toEqual([expect.stringMatching(text)]);
}

/** The hosts report, and the functions know it. */
async function announce(): Promise<void> {
  await home.shell('ping_muc', 'announce');
  await until('both hosts have reported', async () => {
    const { heartbeats } = await table.hosts.read(nowSeconds());
    return heartbeats.filter(({ last }) => nowSeconds() - last < 300).length === 2;
  });
}

async function configure(changes: Settings): Promise<void> {
  await home.reload(forHosts(changes));
}

const module = (verb: string): Promise<string> => home.shell('module', verb, 'ping_muc_webhook', home.host);

describe('an installation that works', () => {
  it('is found to work: it ends with 0, and each link has a tick', async () => {
    const { status, output } = await doctor(runtime.data, ['--host', home.host]);
    expect(output).not.toContain('✗');
    for (const link of [
      'Node',
      'Data directory',
      'Secret',
      'Webhooks',
      'Server API',
      'Clock',
      'Settings',
      'Dry run',
      'Checks',
    ])
      expect(output).toMatch(new RegExp(`^✓ ${link}\\b`, 'm'));
    expect(output).toMatch(/^✓ Heartbeat of \S+: the last one came \d+ s ago, with 0 events in the queue$/m);
    expect(output).toMatch(/^[✓!] Alarms?: /m);
    expect(output).toContain('A user who falls out of a room now would be told.');
    expect(output).not.toContain(runtime.secret.slice('whsec_'.length));
    expect(status).toBe(0);
  });

  it('with HTTPS: it says how many days of the certificate are left', async () => {
    const { certificate } = await lab.authority();
    const { status, output } = await doctor(runtime.data, ['--host', home.host, '--server-api', httpsApi('valid')], {
      NODE_EXTRA_CA_CERTS: certificate,
    });
    expect(output).toMatch(/^! Certificate of the server API of \S+: 1 day is left: check that it is renewed/m);
    expect(status).toBe(0);
  });
});

describe('npm start', () => {
  it('does not run', async () => {
    const empty = await mkdtemp(join(lab.directory, 'empty-'));
    await expectFault(/^Data directory: nothing runs on .*\. Run npm start -- --data /, { data: empty });
  });

  it('has crashed: nothing listens on its port', async () => {
    await runtime.end('SIGKILL');
    await expectFault(/^Webhooks: nothing listens at .*:8787\. Run npm start/);
    await runtime.start();
    await openTableAgain();
  });

  it.each([
    ['is malformed', 'whsec_not-base64!\n', /^Secret: .*\/secret: the secret must be whsec_/],
    ['is another one than it runs with', `${OTHER_SECRET}\n`, /^Webhooks: .* does not have the secret of .*\/secret/],
  ])('has a file with a secret that %s', async (_what, content, expected) => {
    const file = join(runtime.data, 'secret');
    const right = await readFile(file, 'utf8');
    await writeFile(file, content);
    await expectFault(expected);
    await rm(file);
    await expectFault(/^Secret: .*\/secret is missing/);
    await writeFile(file, right);
  });

  it('runs an older release, which does not say where it listens', async () => {
    const file = join(runtime.data, 'address.json');
    const address = await readFile(file, 'utf8');
    const { endpoint, table: name } = JSON.parse(address) as Readonly<Record<string, string>>;
    await writeFile(file, JSON.stringify({ endpoint, table: name }));
    await expectFault(/^Data directory: .* is that of an instance of an older release\. Run npm start/);
    await writeFile(file, address);
  });

  it('checks nothing, because an operator has paused it', async () => {
    await table.controls.pause({ since: nowSeconds(), by: 'an operator', reason: 'maintenance' });
    await expectFault(/^Checks: .*paused since .* by an operator, until npm run control -- resume: maintenance/);
    await table.controls.resume();
  });
});

describe('the server', () => {
  it('is out of reach', async () => {
    await expectFault(/^Server API of .*: nothing listens at .*:5999\. Start Prosody, and check http_ports/, {
      serverApi: 'http://{host}:5999/ping_muc',
    });
  });

  it('is reached at a URL of something else', async () => {
    await expectFault(/^Server API of .* answers 404 to a request without a signature|answers 404: check/, {
      serverApi: 'http://{host}:5280/elsewhere',
    });
  });

  it('has another secret', async () => {
    await configure({ ping_muc_secret: OTHER_SECRET });
    await expectFault(/^Server API of .* has another secret: set the same ping_muc_secret in Prosody/);
    await configure({});
  });

  it('has not loaded the module', async () => {
    await module('unload');
    await expectFault(/^Server API of .* answers 404: check that mod_ping_muc_webhook is loaded for /);
    await module('load');
  });

  it('serves the module under another http_host', async () => {
    const restart = async (changes: Settings): Promise<void> => {
      await home.kill();
      await home.configure(forHosts(changes));
      await home.start();
    };
    await restart({ http_host: 'elsewhere.example' });
    await expectFault(/^Server API of .* answers 404: .* and that its section sets no other http_host/);
    await restart({});
  });

  it('passes requests of one host to the module of another', async () => {
    // both hosts have reported, so none needs to be named
    await expectFault(new RegExp(`^Server API of ${second}: .* reaches the module of ${home.host}\\. Use {host}`), {
      hosts: [],
      serverApi: `http://${home.host}:5280/ping_muc`,
    });
  });

  it('sends its webhooks elsewhere', async () => {
    await configure({ ping_muc_webhook_url: `http://${runtime.host}:5999/webhooks` });
    await home.shell('ping_muc', 'announce');
    const status = (): Promise<string> => home.shell('ping_muc', 'status');
    await until('a webhook has failed', async () => (await status()).includes('cannot be reached'));
    await expectFault(/^Webhooks of .*: the newest one was not accepted\. Run prosodyctl shell ping_muc status/);
    await configure({});
    await module('reload');
    await until('a webhook is accepted', async () => !(await status()).includes('cannot be reached'));
  });

  it('has the dry run on', async () => {
    await configure({ ping_muc_dry_run: true });
    await expectFault(/^Dry run of .*: on: nobody is notified or brought back/);
    await configure({});
  });

  it('has a module that is older than the functions', async () => {
    const older = await listen((_request, response, n) =>
      n === 1 ? response.writeHead(401).end() : response.writeHead(200).end('<xmpp></xmpp>'),
    );
    await expectFault(/^Server API of .*: the module is older than these functions/, { serverApi: older.url });
    await older.close();
  });

  it('does not report any more, or never has', async () => {
    const Key = { pk: { S: 'HOST' }, sk: { S: home.host } };
    await table.client.send(
      new UpdateItemCommand({
        TableName: table.name,
        Key,
        UpdateExpression: 'SET #last = :last',
        ExpressionAttributeNames: { '#last': 'last' },
        ExpressionAttributeValues: { ':last': { N: String(nowSeconds() - 1500) } },
      }),
    );
    await expectFault(/^Heartbeat of .*: the last one came 25 min ago\. Run prosodyctl shell ping_muc status/);
    await table.client.send(new DeleteItemCommand({ TableName: table.name, Key }));
    await expectFault(/^Heartbeat of .*: none has come\. Run prosodyctl shell ping_muc announce/);
    await announce();
  });

  it.each([
    ['that has expired', 'expired', /^✗ Server API of .*: the certificate of \S+ has expired: renew it/m],
    [
      'of another name',
      'of another name',
      /^✗ Server API of .*: the certificate is not one of \S+: install one with this name/m,
    ],
    [
      'that nobody trusts',
      'valid',
      /^✗ Server API of .*: the certificate of \S+ is not from an authority that Node trusts/m,
    ],
  ] as const)('has a certificate %s', async (_what, kind, expected) => {
    const { certificate } = await lab.authority();
    const { status, output } = await doctor(
      runtime.data,
      ['--host', home.host, '--server-api', httpsApi(kind)],
      kind === 'valid' ? {} : { NODE_EXTRA_CA_CERTS: certificate },
    );
    expect(output).toMatch(expected);
    expect(output.match(/^✗/gm)).toHaveLength(1);
    expect(status).toBe(1);
  });

  it('has a clock that is ten minutes behind', async () => {
    await runtime.restart(shifted(600));
    await openTableAgain();
    const { status, output } = await doctor(runtime.data, ['--host', home.host], shifted(600));
    expect(output).toMatch(/^✗ Server API of .* its clock is \d{3} s behind the clock of the functions/m);
    expect(output.match(/^✗/gm)).toHaveLength(1);
    expect(status).toBe(1);
    const other = await doctor(runtime.data, ['--host', home.host]);
    expect(other.output).toMatch(/^✗ Webhooks: .* its clock is \d{3} s ahead of the clock of this machine/m);
    await runtime.restart(NOT_SHIFTED);
    await openTableAgain();
  });
});
