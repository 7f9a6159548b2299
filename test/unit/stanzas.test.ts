import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Join } from '../../functions/core/events.ts';
import { isNick, isXmlText } from '../../functions/core/jid.ts';
import {
  type Answer,
  AnswerError,
  DEFAULT_REASON,
  MAX_STANZAS,
  type Stanza,
  requestBody,
  notice,
  ping,
  readAnswers,
  reentry,
  requests,
  roomQuery,
  stanzaId,
} from '../../functions/core/stanzas.ts';
import { elements } from './world.ts';

const sample = (name: string): string =>
  readFileSync(new URL(`../../protocol/samples/${name}`, import.meta.url), 'utf8');
const join = (fields: Partial<Join> = {}): Join => ({
  host: 'example.net',
  remote: 'muc.host',
  room: 'room@muc.host',
  user: 'user@example.net/phone',
  nick: 'nickname',
  at: 1795355000123456,
  ...fields,
});
const hostile = join({
  room: 'd\\27artagnan@muc.host',
  user: 'zoë@example.net/Gajim at home/2',
  nick: 'L\'ami "Tom" & <Jerry> / 🦊',
  at: 1795355000123457,
});

/** A stanza as its receiver reads it. */
function reread(stanza: { xml: string }): ReturnType<typeof elements>[number] {
  const [element, ...more] = elements(`<xmpp>${stanza.xml}</xmpp>`);
  expect(more).toEqual([]);
  if (element === undefined) throw new Error('no stanza');
  return element;
}

const reasonOf = (stanza: { xml: string }): string | null | undefined =>
  reread(stanza).getChild('x')?.getChild('item')?.getChildText('reason');

describe('requests', () => {
  it('are what the sample of the contract shows, but for the ids', () => {
    const shown = elements(sample('stanzas-request.xml').replaceAll(/>\s+</g, '><'));
    const made = elements(
      requestBody(
        [ping(join(), 1_795_355_002_123_456), roomQuery(join()), notice(hostile, undefined), reentry(join())],
        60,
      ),
    );
    expect(made.map((stanza) => ({ ...stanza.attrs, id: '' }))).toEqual(
      shown.map((stanza) => ({ ...stanza.attrs, id: '' })),
    );
    expect(made.map((stanza) => stanza.children.join(''))).toEqual(shown.map((stanza) => stanza.children.join('')));
  });

  it('carry the time-out in their root', () => {
    expect(requestBody([], 45)).toBe('<xmpp timeout="45"></xmpp>');
  });

  it('give each stanza the id of its join, so that an answer finds it', () => {
    for (const stanza of [ping(join()), roomQuery(join()), reentry(join()), notice(join(), 'x')]) {
      expect(stanza.id).toBe(stanzaId(join()));
      expect(reread(stanza).attrs['id']).toBe(stanza.id);
    }
    expect(stanzaId(join())).not.toBe(stanzaId(hostile));
  });

  it('the room is asked without a nick and without the join, which only the server may read', () => {
    const query = reread(roomQuery(join()));
    expect(query.attrs['to']).toBe('room@muc.host');
    expect(query.children).toHaveLength(1);
  });

  it('hold at most 1,000 stanzas', () => {
    expect(MAX_STANZAS).toBe(1000);
  });

  it('bring every nick and every resource through, and let none of them out of its attribute', () => {
    const part = fc.oneof(
      fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }),
      fc.string({ unit: 'binary', minLength: 1 }),
      fc.constantFrom('"/><message/>', "'", '&amp;', '&#0;', ']]>', '<!--'),
    );
    fc.assert(
      fc.property(part.filter(isNick), part.filter(isNick), (nick, resource) => {
        const one = join({ nick, user: `user@example.net/${resource}` });
        for (const asked of [ping(one), reentry(one)])
          expect(reread(asked).attrs).toMatchObject({ from: one.user, to: `${one.room}/${nick}` });
        expect(reread(notice(one, nick)).attrs).toMatchObject({ to: one.user, from: `${one.room}/${nick}` });
      }),
      { numRuns: 200 },
    );
  });
});

describe('the reason of a notice', () => {
  it.each([
    ['nothing', undefined],
    ['an empty text', ''],
    ['white space', ' \n\t '],
    ['what no XML can carry', 'bye\u0000'],
    ['half a character', 'bye\ud83e'],
  ])('is our own where the room gave %s', (_what, text) => {
    expect(reasonOf(notice(join(), text))).toBe(DEFAULT_REASON);
  });

  it("is the room's own text, with its markup as text", () => {
    expect(reasonOf(notice(join(), ' </reason><status code="301"/> & "so" '))).toBe(
      '</reason><status code="301"/> & "so"',
    );
    expect(reread(notice(join(), '</reason></item></x><x/>')).getChild('x')?.getChildren('status')).toHaveLength(3);
  });

  it('is cut where it is enormous, between characters', () => {
    const cut = reasonOf(notice(join(), '🦊'.repeat(1_000_000)));
    expect(cut).toBe(`${'🦊'.repeat(255)}…`);
    expect(reasonOf(notice(join(), 'x'.repeat(256)))).toBe('x'.repeat(256));
  });

  it('never takes more than the 1,024 bytes of the contract, and never breaks', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 600 }), (text) => {
        const reason = reasonOf(notice(join(), text)) ?? '';
        expect(Buffer.byteLength(reason)).toBeLessThanOrEqual(1024);
        expect(reason).not.toBe('');
        expect(isXmlText(reason)).toBe(true);
      }),
    );
  });
});

describe('answers', () => {
  it('of the sample are read, each under its id', () => {
    const answers = readAnswers(sample('stanzas-answer.xml'));
    const error = (type: string, condition: string, more: object = {}): object => ({
      kind: 'error',
      type,
      condition,
      ...more,
    });
    const own = { by: 'example.net' };
    expect(Object.fromEntries(answers)).toEqual({
      'ping-result': { kind: 'result' },
      'ping-proof': { kind: 'result', isProof: true },
      'disco-result': { kind: 'result' },
      'ping-not-acceptable': error('cancel', 'not-acceptable', { text: 'You are not in this room' }),
      'ping-item-not-found': error('cancel', 'item-not-found'),
      'ping-remote-server-not-found': error('cancel', 'remote-server-not-found', {
        text: 'Server-to-server connection failed: connection refused',
      }),
      'ping-remote-server-timeout': error('wait', 'remote-server-timeout', { ...own, closed: 1_795_355_002_123_456 }),
      'ping-no-answer': error('wait', 'remote-server-timeout', {
        ...own,
        silence: 'room',
        closed: 1_795_355_002_123_456,
      }),
      'ping-recipient-unavailable': error('cancel', 'recipient-unavailable', own),
      'ping-conflict': error('cancel', 'conflict', own),
      'ping-policy-violation': error('modify', 'policy-violation', { ...own, text: 'A ping must name a join' }),
      'notice-recipient-unavailable': error('cancel', 'recipient-unavailable', own),
      'notice-conflict': error('cancel', 'conflict', own),
      'notice-rejoining': error('cancel', 'conflict', { ...own, isRejoining: true }),
      'reentry-success': { kind: 'result' },
      'reentry-missed': { kind: 'result', hasGap: true },
      'reentry-registration-required': error('auth', 'registration-required', {
        text: 'This room is for members only',
      }),
      'reentry-recipient-unavailable': error('cancel', 'recipient-unavailable', own),
      'reentry-conflict': error('cancel', 'conflict', own),
      'reentry-rejoining': error('cancel', 'conflict', { ...own, isRejoining: true }),
      'reentry-no-answer': error('wait', 'remote-server-timeout', {
        ...own,
        silence: 'room',
        closed: 1_795_355_002_123_456,
      }),
      'reentry-remote-server-not-found': error('cancel', 'remote-server-not-found', {
        ...own,
        closed: 1_795_355_002_123_456,
      }),
      'reentry-resource-constraint': error('wait', 'resource-constraint', own),
      'reentry-feature-not-implemented': error('cancel', 'feature-not-implemented', own),
      'reentry-unexpected-request': error('wait', 'unexpected-request', own),
      'reentry-item-not-found': error('cancel', 'item-not-found', own),
    });
  });

  it('may be none', () => {
    expect(readAnswers('<xmpp/>').size).toBe(0);
    expect(readAnswers('<?xml version="1.0"?>\n<xmpp></xmpp>').size).toBe(0);
  });

  it('without an id are passed over', () => {
    expect(readAnswers('<xmpp><iq type="result"/><iq type="result" id="a"/></xmpp>').size).toBe(1);
  });

  it.each([
    ['an error without a condition', '<error type="cancel"/>', { type: 'cancel', condition: 'undefined-condition' }],
    ['an error stanza without an error', '', { type: 'cancel', condition: 'undefined-condition' }],
    [
      'a text before the condition',
      '<error type="wait"><text xmlns="urn:ietf:params:xml:ns:xmpp-stanzas">x</text><conflict xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error>',
      { type: 'wait', condition: 'conflict', text: 'x' },
    ],
    [
      'a condition in a namespace of its own',
      '<error type="cancel"><not-acceptable xmlns="urn:x"/></error>',
      { condition: 'undefined-condition' },
    ],
    [
      'a text with markup',
      '<error type="cancel"><text xmlns="urn:ietf:params:xml:ns:xmpp-stanzas">&lt;b&gt; &amp; more</text></error>',
      { text: '<b> & more' },
    ],
  ])('may be %s', (_what, error, expected) => {
    expect(readAnswers(`<xmpp><iq type="error" id="a">${error}</iq></xmpp>`).get('a')).toMatchObject({
      kind: 'error',
      ...expected,
    });
  });

  const errorHolding = (xml: string): Answer | undefined =>
    readAnswers(`<xmpp><iq type="error" id="a"><error type="wait">${xml}</error></iq></xmpp>`).get('a');

  it.each([
    ['nothing that says so', '<no-answer xmlns="urn:x"/>', undefined],
    ['what the release before says', '<no-answer xmlns="urn:ping-muc:0"/>', 'room'],
    [
      'streams that stood, while others were heard',
      '<no-answer xmlns="urn:ping-muc:0" streams="kept" heard="true"/>',
      'room',
    ],
    [
      'streams that stood, and nothing came',
      '<no-answer xmlns="urn:ping-muc:0" streams="kept" heard="false"/>',
      'host',
    ],
    [
      'a stream that broke, while others were heard',
      '<no-answer xmlns="urn:ping-muc:0" streams="broken" heard="true"/>',
      'broken',
    ],
    [
      'a stream that broke, and nothing came',
      '<no-answer xmlns="urn:ping-muc:0" streams="broken" heard="false"/>',
      'broken',
    ],
  ])('silence: %s', (_what, xml, silence) => {
    expect(Object.entries(errorHolding(xml) ?? {}).find(([name]) => name === 'silence')?.[1]).toBe(silence);
  });

  it('name the newest close that the server knows, and a session that is just now joining again', () => {
    expect(errorHolding('<closed xmlns="urn:ping-muc:0" at="1795355000123456"/>')).toMatchObject({
      closed: 1_795_355_000_123_456,
    });
    for (const at of ['', 'soon', '1e999', '0.5']) {
      expect(errorHolding(`<closed xmlns="urn:ping-muc:0" at="${at}"/>`)).toEqual(
        errorHolding(at === '' ? '<closed xmlns="urn:ping-muc:0" at="0"/>' : ''),
      );
    }
    expect(errorHolding('<rejoining xmlns="urn:ping-muc:0"/>')).toMatchObject({ isRejoining: true });
    expect(errorHolding('<rejoining/>')).not.toHaveProperty('isRejoining');
  });

  it('to a re-entry say where lines are missing, in the words of the contract alone', () => {
    const back = (xml: string): Answer | undefined =>
      readAnswers(`<xmpp><presence id="a">${xml}</presence></xmpp>`).get('a');
    expect(back('<reentry xmlns="urn:ping-muc:0" missed="yes"/>')).toEqual({ kind: 'result', hasGap: true });
    for (const other of [
      '',
      '<reentry missed="yes"/>',
      '<reentry xmlns="urn:ping-muc:0"/>',
      '<reentry xmlns="urn:ping-muc:0" missed="no"/>',
    ])
      expect(back(other)).toEqual({ kind: 'result' });
    expect(readAnswers('<xmpp><presence id="a" type="unavailable"/><iq id="b"/></xmpp>')).toEqual(
      new Map(['a', 'b'].map((id) => [id, { kind: 'error', type: 'cancel', condition: 'undefined-condition' }])),
    );
  });

  it('that are a proof say so', () => {
    const result = (xml: string): Answer | undefined =>
      readAnswers(`<xmpp><iq type="result" id="a">${xml}</iq></xmpp>`).get('a');
    expect(result('<proof xmlns="urn:ping-muc:0"/>')).toEqual({ kind: 'result', isProof: true });
    expect(result('<proof/>')).toEqual({ kind: 'result' });
  });

  const whole =
    '<xmpp><iq type="result" id="a"/><iq type="error" id="b"><error type="cancel"><conflict xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq></xmpp>';

  it.each([
    ['nothing', ''],
    ['a page of a proxy', '<!DOCTYPE html><html><body>502 Bad Gateway</body></html>'],
    ['JSON', '{"answers":[]}'],
    ['another root', '<stream><iq type="result" id="a"/></stream>'],
    ['an end tag first', '</xmpp>'],
    ['tags that cross', '<xmpp><iq id="a" type="result"></xmpp></iq>'],
    ['an entity that nobody declared', '<xmpp><iq id="a" type="error"><error>&bomb;</error></iq></xmpp>'],
    ['bytes', '\u0000\u0001\u0002'],
  ])('are refused where they are %s', (_what, body) => {
    expect(() => readAnswers(body)).toThrow(AnswerError);
  });

  it('are refused where they are cut short, wherever that is', () => {
    expect(readAnswers(whole).size).toBe(2);
    for (let length = 0; length < whole.length; length += 1)
      expect(() => readAnswers(whole.slice(0, length)), whole.slice(0, length)).toThrow(AnswerError);
  });

  it('whatever comes, are answers or an AnswerError', () => {
    const pieces = fc.constantFrom(
      '<xmpp>',
      '</xmpp>',
      '<xmpp/>',
      '<iq id="a" type="result"/>',
      '<iq id="b">',
      '</iq>',
      '<error/>',
      'text',
      '<',
      '>',
      '&',
      '&amp;',
      '<![CDATA[',
      ']]>',
      '<!--',
      '-->',
      '"',
      '<?',
      '?>',
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string({ unit: 'binary' }),
          fc.array(pieces, { maxLength: 12 }).map((some) => some.join('')),
        ),
        (body) => {
          try {
            readAnswers(body);
          } catch (error) {
            expect(error).toBeInstanceOf(AnswerError);
          }
        },
      ),
      { numRuns: 1000 },
    );
  });
});

describe('stanzas are parted into requests', () => {
  const bytes = (part: readonly Stanza[]): number => Buffer.byteLength(requestBody(part, 300));
  const marks = (part: readonly Stanza[]): number => requestBody(part, 300).match(/[<&=\r\n]/g)?.length ?? 0;
  const joinWith = (nick: string, at: number): Join => ({
    host: 'example.net',
    remote: 'muc.host',
    room: 'room@muc.host',
    user: 'user@example.net/phone',
    nick,
    at,
  });

  it.each([
    ['ordinary nicks', 'nickname', 1],
    ['nicks of 240 ampersands', '&'.repeat(240), 2],
    ['nicks of 1,023 quotes', '"'.repeat(1023), 5],
  ])('250 pings with %s keep to the bounds', (_what, nick, least) => {
    const stanzas = Array.from({ length: 250 }, (_, index) => ping(joinWith(nick, index)));
    const parts = requests(stanzas);
    expect(parts.length).toBeGreaterThanOrEqual(least);
    expect(parts.flat()).toEqual(stanzas);
    for (const part of parts) {
      expect(bytes(part)).toBeLessThanOrEqual(1024 * 1024);
      expect(marks(part)).toBeLessThanOrEqual(30_000);
    }
  });

  it('as 1,000 at the most, whatever they hold', () => {
    fc.assert(
      fc.property(fc.array(fc.string({ maxLength: 300 }), { maxLength: 60 }), fc.nat(1500), (reasons, more) => {
        const texts = [...reasons, ...Array.from({ length: more }, () => 'gone')];
        const stanzas = texts.map((reason, index) =>
          notice(joinWith('<&="\'>'.repeat(1 + (index % 30)), index), reason),
        );
        const parts = requests(stanzas);
        expect(parts.flat()).toEqual(stanzas);
        expect(parts.every((part) => part.length <= 1000 && bytes(part) <= 1024 * 1024 && marks(part) <= 30_000)).toBe(
          true,
        );
      }),
      { numRuns: 30 },
    );
  });
});
