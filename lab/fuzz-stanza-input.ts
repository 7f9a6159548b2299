import { escapeXML } from '@xmpp/xml';
import fc from 'fast-check';
import { type Signing, mangled, signing, strangeText } from './fuzz.ts';

/** Random requests to the stanza API: right ones with faults in them, and damaged bytes. */

export const NS_PING = 'urn:xmpp:ping';
const NS_DISCO = 'http://jabber.org/protocol/disco#info';
const NS_MUC = 'http://jabber.org/protocol/muc';
const NS_MUC_USER = 'http://jabber.org/protocol/muc#user';
export const NS_JOIN = 'urn:ping-muc:0';

/** The addresses that the requests use. */
export interface World {
  readonly host: string;
  /** A session that is in a room. */
  readonly user: string;
  readonly room: string;
  readonly nick: string;
  /** The time of the join with three digits changed: a request with another `at` must change nothing. */
  readonly at: string;
  /** A room on the same service, in which it is not. */
  readonly other: string;
}

interface Node {
  readonly name: string;
  /** Values as they are written. */
  readonly attributes: readonly (readonly [name: string, written: string])[];
  /** Text as it is written. */
  readonly children: readonly (Node | string)[];
}

const node = (name: string, attributes: Record<string, string>, ...children: readonly (Node | string)[]): Node => ({
  name,
  attributes: Object.entries(attributes).map(([key, value]) => [key, escapeXML(value)]),
  children,
});

export function write(element: Node | string): string {
  if (typeof element === 'string') return element;
  const attributes = element.attributes.map(([name, written]) => ` ${name}="${written}"`).join('');
  return `<${element.name}${attributes}>${element.children.map(write).join('')}</${element.name}>`;
}

/** The four kinds of stanzas. Each would be accepted if its join, or its room, were the real one. */
export function good({ user, room, nick, at, other }: World): readonly Node[] {
  const named = node('join', { xmlns: NS_JOIN, at });
  const statuses = ['110', '330', '333'].map((code) => node('status', { code }));
  return [
    node('iq', { type: 'get', id: 'a', from: user, to: `${room}/${nick}` }, node('ping', { xmlns: NS_PING }), named),
    node('iq', { type: 'get', id: 'b', from: user, to: other }, node('query', { xmlns: NS_DISCO })),
    node(
      'presence',
      { type: 'unavailable', id: 'c', from: `${room}/${nick}`, to: user },
      node(
        'x',
        { xmlns: NS_MUC_USER },
        node('item', { affiliation: 'none', role: 'none' }, node('reason', {}, 'Connection lost')),
        ...statuses,
      ),
      named,
    ),
    node('presence', { id: 'd', from: user, to: `${room}/${nick}` }, node('x', { xmlns: NS_MUC }), named),
  ];
}

const JUNK = [
  '<!-- c -->',
  '<?a b?>',
  '<![CDATA[x]]>',
  '<!DOCTYPE a>',
  '<!ENTITY a "b">',
  '&amp;',
  '&lt;',
  '&lol;',
  '&#0;',
  '&#1;',
  '&#10;',
  '&#xD800;',
  '&#xFFFF;',
  '&#x1F600;',
  '&#1114112;',
  '&',
  '<',
  '>',
  ']]>',
  '"',
  "'",
  '<a/>',
  '<x:a/>',
  '<x:a xmlns:x="urn:x"/>',
  '<a xmlns=""/>',
  '<xml:a/>',
  '<a xml:lang="en"/>',
  '<message id="m"/>',
  '<iq/>',
  '<xmpp/>',
  '</iq>',
  '</xmpp>',
  'text',
  ' ',
  '\n',
  '\u0000',
  '\u0001',
  '\ufffe',
  '\r',
  `<ping xmlns="${NS_PING}"/>`,
  `<query xmlns="${NS_DISCO}"/>`,
  '<query xmlns="jabber:iq:roster"/>',
  `<x xmlns="${NS_MUC}"/>`,
  `<x xmlns="${NS_MUC}"><history seconds="1"/></x>`,
  `<x xmlns="${NS_MUC_USER}"/>`,
  `<x xmlns="${NS_MUC_USER}"><invite/></x>`,
  '<status code="110"/>',
  '<status code="307"/>',
  '<item affiliation="none" role="none"/>',
  '<item affiliation="owner" role="none" jid="a@b"/>',
  '<reason>r</reason>',
  `<join xmlns="${NS_JOIN}" at="1"/>`,
  '<body>b</body>',
  '<error type="cancel"/>',
];
const ATTRIBUTES = [
  'id',
  'type',
  'from',
  'to',
  'by',
  'at',
  'code',
  'role',
  'affiliation',
  'jid',
  'nick',
  'node',
  'timeout',
  'xmlns',
  'xml:lang',
  'xmlns:x',
  'x:id',
  'xmlns:xml',
  'xml:id',
  '__index',
  '1',
];
const ELEMENTS = [
  'iq',
  'presence',
  'message',
  'xmpp',
  'ping',
  'query',
  'join',
  'x',
  'item',
  'status',
  'reason',
  'a',
  'x:iq',
  'stream:stream',
  'root',
  'IQ',
];
const values = ({ host, user, room, nick, at }: World): readonly string[] => [
  user,
  host,
  `${room}/${nick}`,
  `${room}/other`,
  `nobody@${host}/x`,
  user.split('/')[0] ?? '',
  `a@${host}`,
  `conference.${host}`,
  'a@b.example/c',
  'a@b.example',
  at,
  `0${at}`,
  `${at}.0`,
  `-${at}`,
  '1e9',
  '0x1',
  `${at} `,
  'get',
  'set',
  'result',
  'error',
  'unavailable',
  'subscribe',
  'probe',
  'none',
  'owner',
  '110',
  '330',
  '333',
  '307',
  '60',
  '0',
  '301',
  '1.5',
  ' 60',
  NS_PING,
  NS_DISCO,
  NS_MUC,
  NS_MUC_USER,
  NS_JOIN,
  'jabber:client',
  'jabber:server',
  'urn:x',
];

type Fault = (stanza: Node) => Node;

/** Changes the n-th node among an element and its descendants. */
function changed(element: Node, n: number, change: Fault): Node {
  let left = n % count(element);
  const walk = (here: Node): Node => {
    if (left-- === 0) return change(here);
    return {
      ...here,
      children: here.children.map((child) => (typeof child === 'string' || left < 0 ? child : walk(child))),
    };
  };
  return walk(element);
}

const count = (element: Node): number =>
  element.children.reduce((sum, child) => sum + (typeof child === 'string' ? 0 : count(child)), 1);

/** One fault at any place in a stanza. */
function faults(world: World): fc.Arbitrary<Fault> {
  const value = fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(...values(world)).map(escapeXML) },
    { weight: 3, arbitrary: strangeText.map((text) => escapeXML(text)) },
    { weight: 1, arbitrary: strangeText },
  );
  const junk = fc.oneof(
    { weight: 4, arbitrary: fc.constantFrom(...JUNK) },
    { weight: 1, arbitrary: strangeText.map((text) => escapeXML(text)) },
  );
  const n = fc.nat({ max: 50 });
  const at = (list: readonly unknown[], index: number): number => (list.length === 0 ? 0 : index % list.length);
  const local = fc.oneof<fc.Arbitrary<Fault>[]>(
    fc.tuple(n, value).map(([index, written]) => (it) => ({
      ...it,
      attributes: it.attributes.map(
        ([name, old], i) => [name, i === at(it.attributes, index) ? written : old] as const,
      ),
    })),
    n.map((index) => (it) => ({ ...it, attributes: it.attributes.filter((_, i) => i !== at(it.attributes, index)) })),
    fc.tuple(fc.constantFrom(...ATTRIBUTES), value).map(([name, written]) => (it) => ({
      ...it,
      attributes: [...it.attributes.filter(([old]) => old !== name), [name, written] as const],
    })),
    fc
      .tuple(fc.constantFrom(...ATTRIBUTES), value)
      .map(([name, written]) => (it) => ({ ...it, attributes: [...it.attributes, [name, written] as const] })),
    fc.constantFrom(...ELEMENTS).map((name) => (it) => ({ ...it, name })),
    fc.tuple(n, junk).map(([index, text]) => (it) => ({
      ...it,
      children: it.children.toSpliced(at([...it.children, ''], index), 0, text),
    })),
    n.map((index) => (it) => ({ ...it, children: it.children.toSpliced(at(it.children, index), 1) })),
    n.map((index) => (it) => ({
      ...it,
      children: [...it.children, ...it.children.slice(at(it.children, index), at(it.children, index) + 1)],
    })),
    fc.tuple(fc.constantFrom(...ELEMENTS), fc.constantFrom(1, 1, 2, 500)).map(
      ([name, depth]) =>
        (it) =>
          Array.from({ length: depth }).reduce<Node>((inner) => node(name, {}, inner), it),
    ),
  );
  return fc.tuple(n, local).map(
    ([index, change]) =>
      (stanza) =>
        changed(stanza, index, change),
  );
}

export interface Input {
  readonly body: Buffer;
  readonly signing: Signing;
  readonly strange: readonly [id: string, timestamp: string, signature: string];
  readonly type: string;
}

/** Usually no fault, or else one of the root alone. */
const rootFaults = (world: World): fc.Arbitrary<Fault> =>
  fc.oneof(
    { weight: 12, arbitrary: fc.constant<Fault>((it) => it) },
    {
      weight: 1,
      arbitrary: faults(world).map(
        (wrong): Fault =>
          (it) =>
            wrong({ ...it, children: [] }).name === it.name
              ? { ...wrong({ ...it, children: [] }), children: it.children }
              : wrong(it),
      ),
    },
  );

const prolog = fc.oneof(
  { weight: 20, arbitrary: fc.constant('') },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      '<?xml version="1.0"?>',
      '<?xml version="1.0" encoding="ISO-8859-1"?>',
      '<?xml version="1.1"?>',
      '\ufeff',
      ' ',
      '<!DOCTYPE xmpp>',
      '<!-- -->',
    ),
  },
);

const contentType = fc.oneof(
  { weight: 20, arbitrary: fc.constant('application/xmpp+xml') },
  {
    weight: 1,
    arbitrary: fc.oneof(
      fc.constantFrom(
        'Application/XMPP+XML; charset=utf-8',
        'application/xmpp+xmlx',
        'text/xml',
        'caf\u00e9', // sent as ISO 8859-1
        'application/xmpp+xml;',
      ),
      strangeText,
    ),
  },
);

const TOKENS = [
  ...JUNK,
  '="',
  '"/>',
  ' xmlns="',
  ' xmlns:x="urn:x"',
  '<?xml version="1.0" encoding="utf-16"?>',
  '<iq ',
  '<xmpp timeout="1">',
];

/** Bodies with up to four stanzas, each of which has up to three faults. */
function structuredBody(world: World): fc.Arbitrary<Buffer> {
  const stanza = fc
    .tuple(fc.constantFrom(...good(world)), fc.array(faults(world), { minLength: 0, maxLength: 3 }))
    .map(([right, wrongs]) => wrongs.reduce((bad, wrong) => wrong(bad), right));
  /** Makes most ids different: with equal ids, the first fault would hide all others. */
  const renamed = (all: readonly Node[]): Node[] =>
    all.map((it, index) => ({
      ...it,
      attributes: it.attributes.map(
        ([name, value]) => [name, name === 'id' && /^[abcd]$/.test(value) ? `${value}${index}` : value] as const,
      ),
    }));
  return fc
    .tuple(fc.array(stanza, { minLength: 1, maxLength: 4 }), rootFaults(world), prolog, fc.boolean())
    .map(([stanzas, wrong, before, unique]) =>
      Buffer.from(
        before + write(wrong(node('xmpp', { timeout: '2' }, ...(unique ? renamed(stanzas) : stanzas.slice(0, 1))))),
      ),
    );
}

export function inputs(world: World): fc.Arbitrary<Input> {
  const whole = good(world).map((it) => write(node('xmpp', { timeout: '2' }, it)));
  const samples = [...whole, write(node('xmpp', { timeout: '2' }, ...good(world)))];
  return fc.record({
    body: fc.oneof({ weight: 1, arbitrary: structuredBody(world) }, { weight: 1, arbitrary: mangled(samples, TOKENS) }),
    signing,
    strange: fc.tuple(strangeText, strangeText, strangeText),
    type: contentType,
  });
}
