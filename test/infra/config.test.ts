import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { App } from 'aws-cdk-lib';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { type Config, ConfigError, readConfig } from '../../infra/config.ts';
import { readSettings } from '../../infra/settings-file.ts';
import { SETTINGS } from '../../infra/settings.ts';
import { outdir } from './app.ts';

const URL_OF_SERVER = 'https://xmpp.example.net:5281/ping_muc';
const file = (content: string): string => {
  const path = `${outdir()}.json`;
  writeFileSync(path, content);
  return path;
};
const read = (given: Readonly<Record<string, unknown>>): Config => readConfig(given);

describe('what an operator may set', () => {
  it('needs only the server’s URL', () => {
    expect(read({ serverApiUrl: URL_OF_SERVER })).toEqual({
      serverApiUrl: URL_OF_SERVER,
      xmppHosts: [],
      defaultDelaySeconds: 60,
      defaultTimeoutSeconds: 60,
      defaultPatienceSeconds: 300,
      alarmEmail: undefined,
      alarmTopicArns: {},
      runbookUrl: 'https://github.com/ping-muc/ping-muc/blob/main/docs/runbook.md',
      logRetentionDays: 30,
      removalPolicy: 'retain',
      network: undefined,
      domain: undefined,
      releaseMinutes: 5,
      webhookConcurrency: undefined,
      checkConcurrency: 100,
      stackName: 'PingMuc',
      tags: {},
      given: { serverApiUrl: URL_OF_SERVER },
    });
  });

  it('is the same as text and as JSON', () => {
    const serverApiUrl = 'https://{host}:5281/ping_muc';
    const [high, low] = ['pager', 'tickets'].map((name) => `arn:aws:sns:eu-central-1:123456789012:${name}`);
    const text = {
      alarmTopicArns: `high=${high}, low=${low}`,
      xmppHosts: 'Example.net, example.org',
      defaultDelaySeconds: '90',
      logRetentionDays: '7',
      webhookConcurrency: '0',
      checkConcurrency: '5',
    };
    const json = {
      alarmTopicArns: { high, low },
      xmppHosts: ['example.net', 'example.org'],
      defaultDelaySeconds: 90,
      logRetentionDays: 7,
      webhookConcurrency: 0,
      checkConcurrency: 5,
    };
    const [fromText, fromJson] = [text, json].map((given) => ({ ...read({ serverApiUrl, ...given }), given: {} }));
    expect(fromText).toEqual(fromJson);
  });

  it('is no reservation at all where the account is too small for one', () => {
    expect(read({ serverApiUrl: URL_OF_SERVER, checkConcurrency: 'unreserved' }).checkConcurrency).toBeUndefined();
    expect(read({ serverApiUrl: URL_OF_SERVER, webhookConcurrency: 'unreserved' }).webhookConcurrency).toBeUndefined();
  });

  it.each([
    URL_OF_SERVER,
    'https://{host}:5281/ping_muc',
    'https://xmpp.example.net/{host}',
    'http://127.0.0.1:5280/ping_muc',
    'http://[::1]/',
  ])('takes the URL %s', (serverApiUrl) => {
    expect(read({ serverApiUrl }).serverApiUrl).toBe(serverApiUrl);
  });
});

describe('what is wrong is said in one line that names the key, what it got, and an example', () => {
  const WRONG: readonly [string, unknown][] = [
    ['serverApiUrl', undefined],
    ['serverApiUrl', ''],
    ['serverApiUrl', 'xmpp.example.net'],
    ['serverApiUrl', 'http://xmpp.example.net/'],
    ['serverApiUrl', 'http://{host}/'],
    ['serverApiUrl', 'https://user@xmpp.example.net/'],
    ['serverApiUrl', 'https://xmpp.example.net/?a=b'],
    ['xmppHosts', 'example.net/room'],
    ['xmppHosts', [1]],
    ['defaultDelaySeconds', '0'],
    ['defaultDelaySeconds', '86401'],
    ['defaultDelaySeconds', '1.5'],
    ['defaultDelaySeconds', '60s'],
    ['defaultTimeoutSeconds', '301'],
    ['defaultPatienceSeconds', '-1'],
    ['alarmEmail', 'operator'],
    ['alarmTopicArns', ''],
    ['alarmTopicArns', 'arn:aws:sns:eu-central-1:123456789012:pager'],
    ['alarmTopicArns', 'medium=arn:aws:sns:eu-central-1:123456789012:pager'],
    ['alarmTopicArns', 'high=arn:aws:sqs:eu-central-1:123456789012:pager'],
    ['alarmTopicArns', { high: 'pager' }],
    ['alarmTopicArns', []],
    ['runbookUrl', 'docs/runbook.md'],
    ['runbookUrl', 'http://wiki.example.net/'],
    ['runbookUrl', 'https://wiki.example.net/#anchor'],
    ['runbookUrl', `https://wiki.example.net/${'a'.repeat(500)}`],
    ['logRetentionDays', '8'],
    ['removalPolicy', 'keep'],
    ['vpcId', 'vpc'],
    ['subnetIds', 'subnet-0123456789abcdef0,here'],
    ['webhookConcurrency', 'none'],
    ['checkConcurrency', '1001'],
    ['stackName', 'ping_muc'],
    ['tags', 'team'],
  ];

  it.each(WRONG)('%s: %j', (key, value) => {
    const context = { serverApiUrl: URL_OF_SERVER, [key]: value };
    expect(() => read(context)).toThrow(ConfigError);
    const line = messageOf(() => read(context));
    expect(line).not.toContain('\n');
    expect(line.startsWith(`${key} must be`)).toBe(true);
    expect(line).toContain(`; got ${value === undefined ? 'nothing' : JSON.stringify(value)}; for example "${key}": "`);
  });

  it.each([
    ['subnetIds', { vpcId: 'vpc-0123456789abcdef0' }],
    ['vpcId', { subnetIds: 'subnet-0123456789abcdef0' }],
  ])('%s is missed beside its other half', (key, half) => {
    expect(messageOf(() => read({ serverApiUrl: URL_OF_SERVER, ...half }))).toMatch(
      new RegExp(`^${key} must be set together with \\w+; got nothing; for example`),
    );
  });

  it('more hosts than a function can be given', () => {
    const hosts = (count: number, length: number): string[] =>
      Array.from({ length: count }, (_, n) => `${String(n).padStart(length - 8, 'h')}.example`);
    const serverApiUrl = 'https://{host}:5281/ping_muc';
    expect(read({ serverApiUrl, xmppHosts: hosts(1000, 60) }).xmppHosts).toHaveLength(1000);
    for (const xmppHosts of [hosts(1001, 20), hosts(1000, 70)])
      expect(messageOf(() => read({ serverApiUrl, xmppHosts }))).toMatch(
        /^xmppHosts must be at most 1000 host names, of 64000 characters together; got/,
      );
  });

  it('several hosts under one name of the server’s API, whose module would be that of one host alone', () => {
    const hosts = { xmppHosts: 'example.net,example.org' };
    expect(messageOf(() => read({ serverApiUrl: URL_OF_SERVER, ...hosts }))).toBe(
      `serverApiUrl must contain {host}, so that each of the 2 xmppHosts has its own host name; got "${URL_OF_SERVER}"; for example "serverApiUrl": "https://{host}:5281/ping_muc"`,
    );
    expect(read({ serverApiUrl: 'https://{host}:5281/ping_muc', ...hosts }).xmppHosts).toHaveLength(2);
    expect(
      read({ serverApiUrl: URL_OF_SERVER, xmppHosts: 'example.net,Example.net' }).serverApiUrl,
      'one host, named twice',
    ).toBe(URL_OF_SERVER);
  });

  it('a key of before says which ones to write', () => {
    expect(messageOf(() => read({ serverApiUrl: URL_OF_SERVER, reservedConcurrency: '0' }))).toBe(
      'reservedConcurrency was replaced by webhookConcurrency and checkConcurrency; got "0"; set both instead',
    );
  });

  it('a key that is none of ours is taken for a misspelled one', () => {
    expect(messageOf(() => read({ serverApiUrl: URL_OF_SERVER, alarmMail: 'a@b.example' }))).toMatch(
      /^alarmMail is not a setting; got "a@b.example"; the settings are .*alarmEmail/,
    );
  });

  it('the examples are right', () => {
    for (const [key] of WRONG) {
      const example = / for example "\w+": "(.*)"$/.exec(
        messageOf(() => read({ serverApiUrl: URL_OF_SERVER, [key]: {} })),
      )?.[1];
      const halves =
        key === 'vpcId'
          ? { subnetIds: 'subnet-0123456789abcdef0' }
          : key === 'subnetIds'
            ? { vpcId: 'vpc-0123456789abcdef0' }
            : {};
      expect(() => read({ serverApiUrl: 'https://{host}:5281/ping_muc', ...halves, [key]: example })).not.toThrow();
    }
  });
});

describe('where settings come from', () => {
  const from = (context: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> =>
    readSettings(new App({ context, outdir: outdir() }).node);
  const fromFile = (path: string): Readonly<Record<string, unknown>> => {
    vi.stubEnv('PING_MUC_CONFIG', path);
    return from({});
  };
  afterEach(() => vi.unstubAllEnvs());

  it('a file, or what a program passes', () => {
    const settings = { serverApiUrl: URL_OF_SERVER };
    expect(fromFile(file(JSON.stringify(settings)))).toEqual(settings);
    expect(from({ config: settings })).toEqual(settings);
  });

  it.each([
    [
      'is not there',
      'missing.json',
      'missing.json does not exist: run npm run configure, or write it: { "serverApiUrl"',
    ],
    ['is not JSON', file('{'), 'is not JSON'],
    ['is no object', file('[]'), 'must contain a JSON object; for example { "serverApiUrl": "https://'],
  ])('a file that %s is refused', (_what, path, problem) => {
    expect(messageOf(() => fromFile(path))).toContain(problem);
  });

  it('neither the command line nor cdk.json, whose settings the next deployment would lose', () => {
    const context = { config: { serverApiUrl: URL_OF_SERVER }, alarmEmail: 'operator@example.net' };
    expect(messageOf(() => from(context))).toBe(
      'alarmEmail is a setting, which the next deployment would lose if it came from the command line or cdk.json; ' +
        'put it into ping-muc.config.json: "alarmEmail": "operator@example.net"',
    );
  });

  it('the example is right', () => {
    const path = fileURLToPath(new URL('../../infra/config.example.json', import.meta.url));
    expect(readConfig(fromFile(path)).xmppHosts).toEqual(['example.net']);
  });
});

describe('with a wrong setting', () => {
  const wrong = 'serverApiUrl must be an https URL without a query (http only to loopback); got "ftp://example.net"';
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const cdk = (...args: readonly string[]): SpawnSyncReturns<string> => {
    const path = file(JSON.stringify({ serverApiUrl: 'ftp://example.net', stackName: 'Second' }));
    const env = { ...process.env, PING_MUC_CONFIG: path };
    const options = ['--no-notices', '--output', outdir()];
    return spawnSync('npx', ['cdk', ...args, ...options], { cwd: root, env, encoding: 'utf8', timeout: 50_000 });
  };

  it('cdk synth stops and says what is wrong', () => {
    const { status, stderr } = cdk('synth', '--quiet');
    expect(status).toBe(1);
    expect(stderr).toContain(wrong);
  });

  it('cdk list shows the stack, with its name', () => {
    const { status, stdout } = cdk('list', '--long');
    expect([status, stdout]).toEqual([0, expect.stringContaining('name: Second')]);
  });

  it('what stands for the stack can’t be deployed by force', () => {
    const path = outdir();
    expect(app({}, path).status).toBe(0);
    const template = JSON.parse(readFileSync(`${path}/PingMuc.template.json`, 'utf8')) as { Rules: object };
    expect(Object.values(template.Rules)).toContainEqual({
      Assertions: [expect.objectContaining({ Assert: { 'Fn::Equals': ['settings', 'none'] } })],
    });
  });

  it('a program gets status 1, that line, and nothing else', () => {
    const { status, stdout, stderr } = app({ config: { serverApiUrl: 'ftp://example.net' } });
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toBe(`${wrong}; for example "serverApiUrl": "${URL_OF_SERVER}"\n`);
  });

  const app = (context: object, path = outdir()): SpawnSyncReturns<string> =>
    spawnSync(process.execPath, [`${root}infra/app.ts`], {
      encoding: 'utf8',
      env: { ...process.env, PING_MUC_CONFIG: 'none', CDK_OUTDIR: path, CDK_CONTEXT_JSON: JSON.stringify(context) },
    });
});

describe('npm run configure', () => {
  const configure = (path: string, answers: readonly string[], ...args: readonly string[]): SpawnSyncReturns<string> =>
    spawnSync(process.execPath, [fileURLToPath(new URL('../../scripts/configure.ts', import.meta.url)), ...args], {
      encoding: 'utf8',
      input: answers.map((answer) => `${answer}\n`).join(''),
      env: { ...process.env, PING_MUC_CONFIG: path },
      timeout: 30_000,
    });
  const written = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'));

  it('asks again until an answer is right, and keeps what is not asked', () => {
    const path = file('{"tags":"team=xmpp","alarmEmail":"operator@example.net"}');
    const { status, stdout } = configure(path, ['xmpp.example.net', URL_OF_SERVER, 'example.net', '', '-']);
    expect([status, stdout]).toEqual([0, expect.stringContaining('serverApiUrl must be an https URL')]);
    expect(written(path)).toEqual({
      tags: 'team=xmpp',
      alarmEmail: 'operator@example.net',
      serverApiUrl: URL_OF_SERVER,
      xmppHosts: 'example.net',
    });
    expect(configure(path, ['', '', '-', '20']).status).toBe(0);
    expect(written(path)).toEqual({
      tags: 'team=xmpp',
      serverApiUrl: URL_OF_SERVER,
      xmppHosts: 'example.net',
      checkConcurrency: '20',
    });
  });

  it('asks for a setting that does not fit the others', () => {
    const path = `${outdir()}.json`;
    const answers = [URL_OF_SERVER, 'example.net,example.org', '', '', 'https://{host}:5281/ping_muc'];
    expect(configure(path, answers).status).toBe(0);
    expect(written(path)).toMatchObject({ serverApiUrl: 'https://{host}:5281/ping_muc' });
  });

  it('asks for every setting with --all', () => {
    const path = `${outdir()}.json`;
    const answers = Object.entries(SETTINGS).map(([setting, { example }]) =>
      setting === 'serverApiUrl' ? 'https://{host}:5281/ping_muc' : example,
    );
    expect(configure(path, answers, '--all').status).toBe(0);
    expect(Object.keys(written(path) as object)).toEqual(Object.keys(SETTINGS));
  });

  it('writes nothing if the input ends', () => {
    const path = `${outdir()}.json`;
    const { status, stderr } = configure(path, [URL_OF_SERVER]);
    expect([status, stderr]).toEqual([1, expect.stringContaining('Nothing was written')]);
    expect(existsSync(path)).toBe(false);
  });
});

function messageOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  return '';
}
