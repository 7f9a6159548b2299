import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { type Config, ConfigError, readConfig } from '../../infra/config.ts';
import { newApp, outdir } from './app.ts';

const URL_OF_SERVER = 'https://xmpp.example.net:5281/ping_muc';
const read = (context: Readonly<Record<string, unknown>>): Config => readConfig(newApp(context).node);

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
      webhookConcurrency: undefined,
      checkConcurrency: 100,
      stackName: 'PingMuc',
      tags: {},
    });
  });

  it('is the same as text on the command line and as JSON in cdk.json', () => {
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
    expect(read({ serverApiUrl, ...text })).toEqual(read({ serverApiUrl, ...json }));
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
    expect(line).toContain(`; got ${value === undefined ? 'nothing' : JSON.stringify(value)}; for example -c ${key}=`);
  });

  it.each([
    ['subnetIds', { vpcId: 'vpc-0123456789abcdef0' }],
    ['vpcId', { subnetIds: 'subnet-0123456789abcdef0' }],
  ])('%s is missed beside its other half', (key, half) => {
    expect(messageOf(() => read({ serverApiUrl: URL_OF_SERVER, ...half }))).toMatch(
      new RegExp(`^${key} must be set together with \\w+; got nothing; for example`),
    );
  });

  it('several hosts under one name of the server’s API, whose module would be that of one host alone', () => {
    const hosts = { xmppHosts: 'example.net,example.org' };
    expect(messageOf(() => read({ serverApiUrl: URL_OF_SERVER, ...hosts }))).toBe(
      `serverApiUrl must contain {host}, so that each of the 2 xmppHosts has its own host name; got "${URL_OF_SERVER}"; for example -c serverApiUrl=https://{host}:5281/ping_muc`,
    );
    expect(read({ serverApiUrl: 'https://{host}:5281/ping_muc', ...hosts }).xmppHosts).toHaveLength(2);
    expect(
      read({ serverApiUrl: URL_OF_SERVER, xmppHosts: 'example.net,Example.net' }).serverApiUrl,
      'one host, named twice',
    ).toBe(URL_OF_SERVER);
  });

  it('a key of before says which ones to write', () => {
    expect(messageOf(() => read({ serverApiUrl: URL_OF_SERVER, reservedConcurrency: '0' }))).toBe(
      'reservedConcurrency was replaced by a key for each function; got "0"; use -c webhookConcurrency=0 -c checkConcurrency=0',
    );
  });

  it('a key that is none of ours is taken for a misspelled one', () => {
    expect(messageOf(() => read({ serverApiUrl: URL_OF_SERVER, alarmMail: 'a@b.example' }))).toMatch(
      /^alarmMail is not a key of this stack; got "a@b.example"; the keys are .*alarmEmail/,
    );
  });

  it('the examples are right', () => {
    for (const [key] of WRONG) {
      const example = / for example -c \w+=(.*)$/.exec(
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

  it('synth ends with status 1, that line, and nothing else', () => {
    const root = fileURLToPath(new URL('../..', import.meta.url));
    const { context } = JSON.parse(readFileSync(`${root}cdk.json`, 'utf8')) as { context: object };
    const synth = spawnSync(process.execPath, [`${root}infra/app.ts`], {
      encoding: 'utf8',
      env: {
        ...process.env,
        CDK_OUTDIR: outdir(),
        CDK_CONTEXT_JSON: JSON.stringify({ ...context, serverApiUrl: 'ftp://example.net' }),
      },
    });
    expect(synth.status).toBe(1);
    expect(synth.stderr).toBe(
      'serverApiUrl must be an https URL without a query (http only to loopback); got "ftp://example.net"; for example -c serverApiUrl=https://xmpp.example.net:5281/ping_muc\n',
    );
    expect(synth.stdout).toBe('');
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
