import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isNick, isXmlText, parseHost, parseJid } from '../../functions/core/jid.ts';

describe('parseJid', () => {
  it.each([
    [
      'a full JID',
      'user@example.net/phone',
      { local: 'user', domain: 'example.net', resource: 'phone', bare: 'user@example.net' },
    ],
    ['a bare JID', 'room@muc.host', { local: 'room', domain: 'muc.host', resource: '', bare: 'room@muc.host' }],
    ['a host', 'muc.host', { local: '', domain: 'muc.host', resource: '', bare: 'muc.host' }],
    ['a host with a resource', 'muc.host/x', { local: '', domain: 'muc.host', resource: 'x', bare: 'muc.host' }],
    [
      'a resource with @ and /',
      'user@example.net/at home @ 2/3',
      { local: 'user', domain: 'example.net', resource: 'at home @ 2/3', bare: 'user@example.net' },
    ],
    [
      'an IPv6 literal',
      'user@[2001:DB8::1]/x',
      { local: 'user', domain: '[2001:db8::1]', resource: 'x', bare: 'user@[2001:db8::1]' },
    ],
    [
      '# in a localpart',
      '#irc%chan@muc.host/a#b',
      { local: '#irc%chan', domain: 'muc.host', resource: 'a#b', bare: '#irc%chan@muc.host' },
    ],
    [
      'an escaped localpart, which stays as it is',
      'd\\27artagnan\\@muc.host',
      { local: 'd\\27artagnan\\', domain: 'muc.host', resource: '', bare: 'd\\27artagnan\\@muc.host' },
    ],
  ])('splits %s', (_what, text, parts) => {
    expect(parseJid(text)).toEqual({ ...parts, full: text.replace('DB8', 'db8') });
  });

  it('folds ASCII case of localpart and host, and nothing else', () => {
    expect(parseJid('USER@Example.NET/Phone')?.full).toBe('user@example.net/Phone');
    expect(parseJid('ÄÖ.İ@MÜC.host/Ünïx')?.full).toBe('ÄÖ.İ@mÜc.host/Ünïx');
  });

  it.each([
    ['nothing', ''],
    ['no host', 'user@'],
    ['no localpart before @', '@muc.host'],
    ['no resource after /', 'user@example.net/'],
    ['two @', 'user@example@net'],
    ['a space in the localpart', 'us er@example.net'],
    ['a space in the host', 'user@exam ple.net'],
    ['# in the host, which splits keys', 'user@exa#mple.net'],
    ['markup in the localpart', 'us<er@example.net'],
    ['a quote in the host', "user@exam'ple.net"],
    ['a control character in the resource', 'user@example.net/a\u0000b'],
    ['half a character', 'user@example.net/\ud83e'],
    ['a localpart of 1,024 bytes', `${'u'.repeat(1024)}@example.net`],
    ['a host of 1,024 bytes', 'h'.repeat(1024)],
    ['a resource of 1,024 bytes in 512 characters', `user@example.net/${'é'.repeat(512)}`],
  ])('takes no JID with %s', (_what, text) => {
    expect(parseJid(text)).toBeUndefined();
  });

  it('takes parts of 1,023 bytes', () => {
    const long = `${'u'.repeat(1023)}@${'h'.repeat(1023)}/${'é'.repeat(511)}r`;
    expect(parseJid(long)?.full).toBe(long);
  });

  const anything = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc
      .tuple(fc.string({ unit: 'grapheme' }), fc.string(), fc.string({ unit: 'grapheme' }))
      .map(([local, host, resource]) => `${local}@${host}/${resource}`),
    fc
      .tuple(fc.stringMatching(/^[A-Za-z#\\.]{1,8}$/), fc.domain(), fc.string({ unit: 'grapheme', minLength: 1 }))
      .map(([local, host, resource]) => `${local}@${host.toUpperCase()}/${resource}`),
  );

  it('comes to the same when it parses what it has made', () => {
    let parsed = 0;
    fc.assert(
      fc.property(anything, (text) => {
        const once = parseJid(text);
        if (once === undefined) return;
        parsed += 1;
        expect(parseJid(once.full)).toEqual(once);
        expect(parseJid(once.bare)?.full).toBe(once.bare);
      }),
      { numRuns: 1000 },
    );
    expect(parsed).toBeGreaterThan(100);
  });
});

describe('parseHost', () => {
  it.each(['example.net', 'localhost', '[::1]', 'xn--mnchen-3ya.example', '192.0.2.1'])('takes %s', (host) => {
    expect(parseHost(host)).toBe(host);
  });

  it.each(['', 'user@example.net', 'example.net/x', 'a b', 'a#b', 'a&b', 'a\tb'])('does not take %j', (host) => {
    expect(parseHost(host)).toBeUndefined();
  });
});

describe('isNick', () => {
  it.each(['nick', ' ', 'a/b@c#d', '<b>&"\'', '🦊'.repeat(255)])('takes %j', (nick) => {
    expect(isNick(nick)).toBe(true);
  });

  it.each(['', '🦊'.repeat(256), 'a\u0007', '\ud83e', '\uffff'])('does not take %j', (nick) => {
    expect(isNick(nick)).toBe(false);
  });
});

it('isXmlText knows what no XML 1.0 document can carry', () => {
  expect(['\t\n\r', 'Ω', '🦊'].map(isXmlText)).toEqual([true, true, true]);
  expect(['\u0000', '\u000b', '\u001f', '\ufffe', '\udc00'].map(isXmlText)).toEqual([
    false,
    false,
    false,
    false,
    false,
  ]);
});
