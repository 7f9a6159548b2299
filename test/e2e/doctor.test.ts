import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DeleteItemCommand, UpdateItemCommand } from '@aws-sdk/client-dynamodb';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { doctor } from '../../lab/doctor.ts';
import { listen } from '../../lab/endpoint.ts';
import { NOT_SHIFTED, shifted } from '../../lab/faketime.ts';
import { Lab, until } from '../../lab/lab.ts';
import { Runtime } from '../../lab/runtime.ts';
import { HTTPS_PORT } from '../../lab/server-process.ts';
import { startHome } from '../../lab/servers.ts';
import type { XmppServer } from '../../lab/xmpp-server.ts';
import { readAddress } from '../../local/address.ts';
import { type StackTable, nowSeconds, openTable } from '../../scripts/controls.ts';
import type { Finding } from '../../scripts/doctor/finding.ts';
import { instanceFindings } from '../../scripts/doctor/instance.ts';

/** `npm run doctor`, on an installation that works, and on ones that do not: each fault is named in one line. */

const OTHER_SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
let lab: Lab;
let runtime: Runtime;
let home: XmppServer;
let table: StackTable;

/** The certificate of the HTTPS server. */
const httpsCertificate = (): string => join(lab.directory, 'https');
const httpsApi = (): string => `https://${lab.address(2)}:${HTTPS_PORT}/ping_muc`;

type CertificateKind = 'valid' | 'expired' | 'of another name';

async function certify(kind: CertificateKind): Promise<void> {
  const authority = await lab.authority();
  const name = lab.address(kind === 'of another name' ? 9 : 2);
  await authority.certify([name], httpsCertificate(), { isExpired: kind === 'expired' });
}

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
  await certify('valid');
  home = await startHome(lab, {
    host: lab.address(2),
    module: { runtime, changes: {} },
    httpsCertificate: httpsCertificate(),
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

/** Hosts report, and the functions know it. */
async function announce(hosts = [home.host]): Promise<void> {
  await home.moduleCommand('announce');
  await until(`${hosts.join(' and ')} have reported`, async () => {
    const { heartbeats } = await table.hosts.read(nowSeconds());
    const fresh = heartbeats.filter(({ last }) => nowSeconds() - last < 300).map(({ host }) => host);
    return hosts.every((host) => fresh.includes(host));
  });
}

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
    const { status, output } = await doctor(runtime.data, ['--host', home.host, '--server-api', httpsApi()], {
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
  async function restart(): Promise<void> {
    await home.kill();
    await home.start();
  }

  it('is out of reach', async () => {
    await expectFault(
      /^Server API of .*: nothing listens at .*:5999\. Start the XMPP server, and check where its HTTP server listens/,
      {
        serverApi: 'http://{host}:5999/ping_muc',
      },
    );
  });

  it('is reached at a URL of something else', async () => {
    await expectFault(/^Server API of .* answers 404 to a request without a signature|answers 404: check/, {
      serverApi: 'http://{host}:5280/elsewhere',
    });
  });

  it('has another secret', async () => {
    await home.set({ ping_muc_secret: OTHER_SECRET });
    await expectFault(/^Server API of .* has another secret: set the same ping_muc_secret there/);
    await home.set();
  });

  it('has not loaded the module', async () => {
    await home.unloadModule();
    await expectFault(/^Server API of .* answers 404: check that mod_ping_muc_webhook is loaded for /);
    await home.loadModule();
  });

  it('serves the module under another http_host', async () => {
    await home.set({ http_host: 'elsewhere.example' });
    await restart();
    await expectFault(/^Server API of .* answers 404: .* and that its section sets no other http_host/);
    await home.set();
    await restart();
  });

  it('passes requests of one host to the module of another', async () => {
    const { host: second } = await home.addHost(lab.address(6), [], {});
    await announce([home.host, second]); // so none needs to be named
    await expectFault(new RegExp(`^Server API of ${second}: .* reaches the module of ${home.host}\\. Use {host}`), {
      hosts: [],
      serverApi: `http://${home.host}:5280/ping_muc`,
    });
  });

  it('sends its webhooks elsewhere', async () => {
    await home.set({ ping_muc_webhook_url: `http://${runtime.host}:5999/webhooks` });
    await home.moduleCommand('announce');
    const isFailing = async (): Promise<boolean> => (await home.moduleCommand('status')).includes('cannot be reached');
    await until('a webhook has failed', isFailing);
    await expectFault(/^Webhooks of .*: the newest one was not accepted\. Run prosodyctl shell ping_muc status \(ejab/);
    await home.set();
    await home.reloadModule();
    await until('a webhook is accepted', async () => !(await isFailing()));
  });

  it('has the dry run on', async () => {
    await home.set({ ping_muc_dry_run: true });
    await expectFault(/^Dry run of .*: on: nobody is notified or brought back/);
    await home.set();
  });

  it('has other settings than those that were printed, which is mentioned', async () => {
    await home.set({ ping_muc_delay: 30 });
    const notes = (await find()).filter(({ mark }) => mark !== 'ok').map(({ text }) => text);
    expect(notes).toContainEqual(
      expect.stringMatching(/^Settings of .*: delay 30 s, .*\. Those that were printed have delay 60 s$/),
    );
    await home.set();
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
    await expectFault(/^Heartbeat of .*: the last one came 25 min ago\. Run prosodyctl shell ping_muc status /);
    await table.client.send(new DeleteItemCommand({ TableName: table.name, Key }));
    await expectFault(/^Heartbeat of .*: none has come\. Run prosodyctl shell ping_muc announce /);
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
    await certify(kind);
    await restart(); // Prosody serves clients without SNI the old one until then
    const { certificate } = await lab.authority();
    const { status, output } = await doctor(
      runtime.data,
      ['--host', home.host, '--server-api', httpsApi()],
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
