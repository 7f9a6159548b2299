import { describe, expect, it } from 'vitest';
import { nodeVersion } from '../../scripts/doctor/node-version.ts';
import { clockProblem, describeUnanswered } from '../../scripts/doctor/answers.ts';

describe('the doctor judges the version of Node', () => {
  it.each([
    ['20.20.0', 'bad'],
    ['22.17.1', 'bad'],
    ['22.18.0', 'ok'],
    ['24.0.0', 'ok'],
  ])('%s: %s', (version, mark) => {
    const finding = nodeVersion(version);
    expect(finding.mark).toBe(mark);
    if (mark === 'bad')
      expect(finding.text).toBe(
        `Node: ${version} is too old. Install Node 22.18 or newer, or run npm ci, which brings one`,
      );
  });
});

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
