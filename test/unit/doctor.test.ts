import { describe, expect, it } from 'vitest';
import type { Reply } from '../../functions/adapters/probe.ts';
import { CONTRACT_VERSION } from '../../functions/names.ts';
import { listen } from '../../lab/endpoint.ts';
import type { StackTable } from '../../scripts/controls.ts';
import { serverFindings } from '../../scripts/doctor/server-api.ts';
import { tableFindings } from '../../scripts/doctor/table.ts';
import { webhookFinding } from '../../scripts/doctor/webhook.ts';
import { clockProblem, describeUnanswered } from '../../scripts/doctor/answers.ts';
import type { Finding } from '../../scripts/doctor/finding.ts';

describe('the doctor says what to do about a server that does not answer', () => {
  it.each([
    ['ENOTFOUND', 'the name xmpp.example.net cannot be resolved: check DNS'],
    ['TimeoutError', 'https://xmpp.example.net:5281 does not answer within 10 s: check firewall and routing'],
    ['CERT_NOT_YET_VALID', 'the certificate of xmpp.example.net is not valid yet: check both clocks'],
    ['EPROTO', 'https://xmpp.example.net:5281 cannot be reached: wrong version number'],
  ])('%s', (code, text) => {
    const url = 'https://xmpp.example.net:5281/ping_muc/stanzas';
    expect(describeUnanswered(url, { code, message: 'wrong version number' })).toBe(text);
  });
});

describe('the doctor finds that a signature is refused because of a clock', () => {
  const refusal = (detail: string, ahead?: number): Parameters<typeof clockProblem>[0] => ({
    status: 401,
    body: JSON.stringify({ detail }),
    ahead,
    expires: undefined,
  });

  it('and by how much, if the other side says what time it is', () => {
    const detail = 'webhook-timestamp is 400 s behind this clock, more than 300 s: check the clocks of both sides';
    expect(clockProblem(refusal(detail, 400), 'this machine')).toMatch(
      /^its clock is 400 s ahead of the clock of this machine/,
    );
    expect(clockProblem(refusal(detail), 'this machine')).toMatch(/^its clock differs from the clock of this machine/);
  });

  it('and not for another reason', () => {
    expect(
      clockProblem(refusal('webhook-signature matches none of the live secrets', 400), 'this machine'),
    ).toBeUndefined();
    expect(clockProblem({ ...refusal('check both clocks', 400), status: 200 }, 'this machine')).toBeUndefined();
  });
});

describe('the doctor judges what the server answers:', () => {
  const DAY_MS = 86_400_000;
  const HOST = 'example.net';
  const UNSIGNED: Reply = { status: 401, body: '', ahead: 0, expires: undefined };
  const root = (version = CONTRACT_VERSION): string =>
    `<xmpp host="${HOST}" version="${version}" dry_run="false" webhooks="accepted" delay="5"/>`;
  /** What it finds, except for what is well. */
  function find(signed: Partial<Reply>, unsigned: Partial<Reply> = {}, printed?: string): readonly string[] {
    const answers = {
      url: 'https://xmpp.example.net/ping_muc/stanzas',
      unsigned: { ...UNSIGNED, ...unsigned },
      signed: { ...UNSIGNED, status: 200, body: root(), ...signed },
    };
    return [...serverFindings(answers, HOST, printed)]
      .filter(({ mark }) => mark !== 'ok')
      .map(({ mark, text }) => `${mark}: ${text}`);
  }

  it('all is well', () => {
    expect(find({ expires: Date.now() + 60 * DAY_MS, ahead: -30 })).toEqual([]);
  });

  it.each([
    [
      'another version',
      { body: root('0.2.0') },
      /^note: Contract: .* has version 0\.2\.0, these functions have .*Upgrade/,
    ],
    ['a clock that is 40 s slow', { ahead: -40 }, /^note: Clock of example\.net: 40 s behind .*timedatectl/],
    ['a certificate for 13 days', { expires: Date.now() + 13.5 * DAY_MS }, /^note: Certificate .* 13 days are left/],
    ['another page', { body: '<html></html>' }, /^bad: .* does not answer with <xmpp>/],
    ['no XML', { body: 'Hello' }, /^bad: .* does not answer with <xmpp>/],
    ['an error', { status: 503, body: '{"detail":"too busy"}' }, /^bad: .* answers 503 to a signed request: too busy/],
    [
      'a failing webhook',
      { body: root().replace('accepted', 'failing') },
      /^bad: Webhooks of example\.net: the newest/,
    ],
  ])('%s', (_what, signed, expected) => {
    expect(find(signed)).toEqual([expect.stringMatching(expected)]);
  });

  it.each([
    ['Prosody', 'ping_muc_delay = 60\nping_muc_timeout = 60\n'],
    ['YAML', '    delay: 60\n    timeout: 60\n'],
  ])('a setting that is not the printed one, in the form of %s', (_form, printed) => {
    const expected = 'note: Settings of example.net: delay 5 s. Those that were printed have delay 60 s';
    expect(find({}, {}, printed)).toEqual([expected]);
    expect(find({}, {}, printed.replace('60', '5'))).toEqual([]);
  });

  it('an answer to what is not signed', () => {
    expect(find({}, { status: 200 })).toEqual([expect.stringMatching(/^bad: .* answers 200 .* and not 401/)]);
  });
});

describe('the doctor reads the table:', () => {
  const now = Math.floor(Date.now() / 1000);
  async function find(oldest: number, held: number): Promise<readonly Finding[]> {
    const heartbeats = [{ host: 'example.net', last: now - 5, length: 2, oldest }];
    const table = {
      controls: { readPause: () => Promise.resolve(undefined), held: () => Promise.resolve(Array(held).fill({})) },
      hosts: { read: () => Promise.resolve({ heartbeats, isComplete: true }) },
    } as unknown as StackTable;
    const findings: Finding[] = [];
    for await (const finding of tableFindings(table, ['example.net'])) findings.push(finding);
    return findings;
  }

  it('events that wait for long, and held checks, are mentioned', async () => {
    expect((await find(3, 0)).map(({ mark }) => mark)).toEqual(['ok', 'ok']);
    const troubled = await find(180, 2);
    expect(troubled.map(({ mark }) => mark)).toEqual(['ok', 'note', 'note']);
    expect(troubled[1]?.text).toBe('Checks: 2 held, whose users wait for you. Run npm run control -- held');
    expect(troubled[2]?.text).toMatch(/with 2 events in the queue, the oldest of which had waited for 3 min$/);
  });
});

it('the doctor asks the webhook for each host, and names the one that the stack does not serve', async () => {
  const endpoint = await listen(({ headers, body }, response) => {
    const isServed = body.toString().includes('"example.net"');
    if (!('webhook-signature' in headers)) response.writeHead(401).end();
    else if (isServed) response.writeHead(200).end('{"accepted":0,"rejected":[]}');
    else response.writeHead(400).end('{"detail":"host: other.example is none of the hosts that this stack serves"}');
  });
  const of = { url: endpoint.url, keys: [Buffer.alloc(32)], secretSource: 'the stack', start: 'Start it' };
  expect((await webhookFinding(of, ['example.net'])).mark).toBe('ok');
  expect(await webhookFinding(of, ['example.net', 'other.example'])).toEqual({
    mark: 'bad',
    text: 'Webhooks: the stack does not serve other.example: add it to xmppHosts, and deploy',
  });
  await endpoint.close();
});
