import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { Agent, type IncomingHttpHeaders, request as httpRequest } from 'node:http';
import { fileURLToPath } from 'node:url';
import { Parser, escapeXML } from '@xmpp/xml';
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { requestBody, notice, ping, readAnswers } from '../functions/core/stanzas.ts';
import {
  type FuzzOptions,
  SECRET,
  type Signing,
  Tally,
  type Violation,
  fuzz,
  mangled,
  signedHeaders,
  signing,
  strangeText,
} from './fuzz.ts';
import { Lab, sleep, until } from './lab.ts';
import { Prosody } from './prosody.ts';
import { ScriptedMuc } from './scripted-muc.ts';
import { startSink } from './sink.ts';
import { User } from './user.ts';

/**
 * Fuzzes the stanza API of a running Prosody: a session that is really in a room, requests that are nearly right about
 * it, and a chat service that receives whatever gets through.
 */
export interface StanzaResult {
  readonly inputs: number;
  readonly answers: Readonly<Record<string, number>>;
  /** The answers to single stanzas, by condition. */
  readonly stanzas: Readonly<Record<string, number>>;
  /**
   * The longest wait of another request, in milliseconds: when the server is idle (`baseline`), and during a seed. The
   * machine may be busy with other things; `own` is the processor time of the server during that wait.
   */
  readonly stall: { readonly baseline: number; readonly wait: number; readonly own: number; readonly worst: string };
  readonly luaKb: { readonly before: number; readonly after: number };
  readonly rssMb: { readonly before: number; readonly after: number };
  readonly violations: readonly Violation[];
}

const AT_ONCE = 8;
/** No bad input may block the server's event loop for longer. */
const MAX_STALL_MS = 100;
/** Each seed is sent up to this often, and its shortest stall counts: other load can only make a stall longer. */
const TURNS = 5;
/** The allowed growth of the server's memory, in kB of Lua and in MB of the process. */
const MAX_GROWTH = { luaKb: 8192, rssMb: 64 } as const;
/** The server remembers accepted requests for ten minutes, against replays. With more than this, it answers 503. */
const MAX_ACCEPTED = 9500;

const NS_PING = 'urn:xmpp:ping';
const NS_DISCO = 'http://jabber.org/protocol/disco#info';
const NS_MUC_USER = 'http://jabber.org/protocol/muc#user';
const NS_JOIN = 'urn:ping-muc:0';

/** The addresses that the requests use. */
interface World {
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

function write(element: Node | string): string {
  if (typeof element === 'string') return element;
  const attributes = element.attributes.map(([name, written]) => ` ${name}="${written}"`).join('');
  return `<${element.name}${attributes}>${element.children.map(write).join('')}</${element.name}>`;
}

/** The three kinds of stanzas. Each would be accepted if its join, or its room, were the real one. */
function good({ user, room, nick, at, other }: World): readonly Node[] {
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

interface Input {
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
        ([name, value]) => [name, name === 'id' && /^[abc]$/.test(value) ? `${value}${index}` : value] as const,
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

function inputs(world: World): fc.Arbitrary<Input> {
  const whole = good(world).map((it) => write(node('xmpp', { timeout: '2' }, it)));
  const samples = [...whole, write(node('xmpp', { timeout: '2' }, ...good(world)))];
  return fc.record({
    body: fc.oneof({ weight: 1, arbitrary: structuredBody(world) }, { weight: 1, arbitrary: mangled(samples, TOKENS) }),
    signing,
    strange: fc.tuple(strangeText, strangeText, strangeText),
    type: contentType,
  });
}

const open = '<xmpp timeout="2">';
const close = '</xmpp>';
const entities = (levels: number): string =>
  Array.from({ length: levels }, (_, n) => `<!ENTITY e${n + 1} "${`&e${n};`.repeat(10)}">`).join('');
const many = (times: number, of: (n: number) => string): string =>
  Array.from({ length: times }, (_, n) => of(n)).join('');

/** Bodies that are meant to do harm. */
// eslint-disable-next-line max-lines-per-function -- a table
function seeds(world: World): Readonly<Record<string, string | Buffer>> {
  const [pingXml, queryXml, noticeXml] = good(world).map(write) as [string, string, string];
  const pingAndJoin = `<ping xmlns="${NS_PING}"/><join xmlns="${NS_JOIN}" at="1"/>`;
  const to = (address: string, n: number): string =>
    `<iq type="get" id="${n}" from="${world.user}" to="${address}">${pingAndJoin}</iq>`;
  const inPing = (content: string): string =>
    `${open}<iq type="get" id="a" from="${world.user}" to="${world.room}/x">${content}</iq>${close}`;
  const [longEntity, uses] = [`<!ENTITY e "${'x'.repeat(50_000)}">`, '&e;'.repeat(50_000)];
  const marks = '\u0301\u0323'.repeat(250);
  return {
    'nothing at all': '',
    NUL: '\u0000',
    'NUL within': `${open}${pingXml}\u0000${close}`,
    'entities that grow (billion laughs)': `<!DOCTYPE a [<!ENTITY e0 "lol">${entities(9)}]>${open}&e9;${close}`,
    'an entity without end (quadratic blow-up)': `<!DOCTYPE a [${longEntity}]>${open}${uses}${close}`,
    'an external entity': `<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>${open}<iq id="&e;"/>${close}`,
    'an external document type': `<!DOCTYPE a SYSTEM "http://${world.host}:5280/x.dtd">${open}${pingXml}${close}`,
    'a parameter entity': `<!DOCTYPE a [<!ENTITY % p SYSTEM "http://${world.host}:5280/x.dtd"> %p;]>${open}${close}`,
    'default attributes': `<!DOCTYPE xmpp [<!ATTLIST iq from CDATA "${world.user}">]>${open}${pingXml}${close}`,
    'a document type alone': `<!DOCTYPE xmpp>${open}${pingXml}${close}`,
    'an undefined entity': `${open}&nbsp;${pingXml}${close}`,
    comments: `<!-- before -->${open}<!-- within -->${pingXml}${close}<!-- after -->`,
    'a comment within a stanza': inPing(`<!-- c --><ping xmlns="${NS_PING}"/>`),
    'a comment without end': `${open}<!--${'-x'.repeat(300_000)}`,
    'processing instructions': `<?xml-stylesheet href="x"?>${open}<?php echo 1 ?>${pingXml}${close}`,
    'an XML declaration': `<?xml version="1.0"?>${open}${pingXml}${close}`,
    'an XML declaration in the middle': `${open}<?xml version="1.0"?>${pingXml}${close}`,
    'XML 1.1': `<?xml version="1.1"?>${open}${pingXml}${close}`,
    'UTF-16, little endian': Buffer.from(`\ufeff${open}${pingXml}${close}`, 'utf16le'),
    'UTF-16, big endian': Buffer.from(`\ufeff${open}${pingXml}${close}`, 'utf16le').swap16(),
    'declared as UTF-16': `<?xml version="1.0" encoding="utf-16"?>${open}${pingXml}${close}`,
    'declared as UTF-7': `<?xml version="1.0" encoding="utf-7"?>${open}+ADw-iq+AD4-${close}`,
    'declared as ISO 8859-1': `<?xml version="1.0" encoding="ISO-8859-1"?>${open}${to('ré@b.example/é', 1)}${close}`,
    'declared as nothing known': `<?xml version="1.0" encoding="EBCDIC"?>${open}${close}`,
    'a byte order mark': `\ufeff${open}${pingXml}${close}`,
    'ISO 8859-1 bytes': Buffer.from(`${open}${to('r\u00e9@b.example/x', 1)}${close}`, 'latin1'),
    'overlong UTF-8': Buffer.concat([Buffer.from(open), Buffer.from('c0bc', 'hex'), Buffer.from(close)]),
    'half a surrogate in UTF-8': Buffer.concat([Buffer.from(open), Buffer.from('eda080', 'hex'), Buffer.from(close)]),
    'mixed encodings': Buffer.concat([
      Buffer.from(`${open}${pingXml}`),
      Buffer.from(pingXml, 'utf16le'),
      Buffer.from(close),
    ]),
    'references to what is no character': `${open}&#0;&#xD800;&#xFFFF;&#x110000;${close}`,
    'nested 14,000 deep': open + '<a>'.repeat(14_000) + '</a>'.repeat(14_000) + close,
    'nested 14,000 deep in a stanza': inPing('<a>'.repeat(14_000) + '</a>'.repeat(14_000)),
    'nested 250,000 deep': open + '<a>'.repeat(250_000),
    'elements in rows': open + '<a/>'.repeat(29_900) + close,
    'an attribute without end': `${open}<iq type="get" id="a" from="${'x'.repeat(1_000_000)}" to="b"/>${close}`,
    'an id without end': `${open}<iq id="${'x'.repeat(1_000_000)}"/>${close}`,
    'a name without end': `${open}<${'x'.repeat(1_000_000)}/>${close}`,
    'a text without end': open + 'x'.repeat(1_040_000) + close,
    'a namespace without end': `${open}<iq id="a" xmlns="urn:${'x'.repeat(1_000_000)}"/>${close}`,
    'a reason without end': `${open}${noticeXml.replace('Connection lost', 'x'.repeat(1_000_000))}${close}`,
    'a reason of references': `${open}${noticeXml.replace('Connection lost', '&#120;'.repeat(29_000))}${close}`,
    'a reason of CDATA': `${open}${noticeXml.replace('Connection lost', '<![CDATA[<b>]]>'.repeat(10_000))}${close}`,
    'line ends without end': open + '\r\n'.repeat(14_900) + close,
    'attributes in plenty': `${open}<iq id="a" ${many(29_900, (n) => `a${n}="" `)}/>${close}`,
    'attributes in plenty, of stanzas in plenty':
      open + many(900, (n) => `<iq id="${n}" ${many(30, (m) => `a${m}="" `)}/>`) + close,
    'attributes twice': `${open}<iq id="a" id="b"/>${close}`,
    'attributes twice by their namespaces':
      open + `<iq id="a" xmlns:p="urn:p" xmlns:q="urn:p" p:a="1" q:a="2"/>` + close,
    'namespaces in plenty': `${open}<iq id="a" ${many(29_900, (n) => `xmlns:a${n}="urn:${n}" `)}/>${close}`,
    'namespaces in plenty, over elements in plenty':
      `<xmpp timeout="2" ${many(14_900, (n) => `xmlns:a${n}="urn:${n}" `)}>` +
      many(14_900, (n) => `<a${n}:b/>`) +
      close,
    'default namespaces in plenty': open + many(9000, (n) => `<a xmlns="urn:${n}">`) + '</a>'.repeat(9000) + close,
    'wrong namespaces': `<xmpp xmlns="urn:x" timeout="2">${pingXml}${close}`,
    'the namespace of servers': `${open}${pingXml.replace('<iq', '<iq xmlns="jabber:server"')}${close}`,
    'a prefix that is not bound': `${open}<x:iq id="a"/>${close}`,
    'the prefix xml bound again': `${open}<iq xmlns:xml="urn:x" id="a"/>${close}`,
    'a stanza by a prefix': `<c:xmpp xmlns:c="jabber:client" timeout="2">${pingXml.replaceAll('iq', 'c:iq')}</c:xmpp>`,
    'two roots': `${open}${close}${open}${close}`,
    'text around the root': `x${open}${close}y`,
    'cut short': `${open}${pingXml}`,
    'one stanza too many': open + many(1001, (n) => to('a@b.example/c', n)) + close,
    'a thousand stanzas': open + many(1000, (n) => pingXml.replace('id="a"', `id="${n}"`)) + close,
    'a thousand notices': open + many(1000, (n) => noticeXml.replace('id="c"', `id="${n}"`)) + close,
    'a thousand notices for nobody':
      open +
      many(1000, (n) =>
        noticeXml.replace('id="c"', `id="${n}"`).replace(`to="${world.user}`, `to="${world.user}-${n}`),
      ) +
      close,
    'a thousand questions': open + many(1000, (n) => queryXml.replace('id="b"', `id="${n}"`)) + close,
    'a thousand messages':
      open +
      many(1000, (n) => `<message id="${n}" from="${world.user}" to="${world.room}"><body>b</body></message>`) +
      close,
    'a thousand ids, all one': open + many(1000, () => pingXml) + close,
    'long names to prepare': open + many(950, (n) => to(`${'a'.repeat(880)}@b.example/c`, n)) + close,
    'names that take long to prepare': open + many(850, (n) => to(`a${marks.slice(0, 480)}@b.example/c`, n)) + close,
    'names that take long to prepare, thrice': open + many(320, (n) => to(`a${marks}@a${marks}/a${marks}`, n)) + close,
    'names that grow when prepared': open + many(850, (n) => to(`b@b.example/${'ﷺ'.repeat(300)}`, n)) + close,
    'addresses of slashes and ats': open + many(900, (n) => to('@/'.repeat(450), n)) + close,
    'one byte too many': open + ' '.repeat(1_048_576 + 1 - open.length - close.length) + close,
    'as many bytes as are taken': open + ' '.repeat(1_048_576 - open.length - close.length) + close,
    'eight megabytes': Buffer.alloc(8_000_000, '<'),
  };
}

interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** Header values as an HTTP client can send them. */
const inHeader = (text: string): string =>
  text
    .replace(/[^\t\x20-\x7e\x80-\xff]/g, '?')
    .trim()
    .slice(0, 2000);

const BAD_REQUESTS = [
  'the body is not (?:UTF-8|XML as XMPP has it)',
  'the body has too much markup',
  'the root must be <xmpp>',
  'timeout must be',
  'more than 1000 stanzas',
  'child \\d+ is not a stanza',
  'stanza \\d+ (?:needs an id|has the id)',
];
const DETAILS: Readonly<Record<number, RegExp>> = {
  400: new RegExp(`^(?:${BAD_REQUESTS.join('|')})`),
  401: /webhook-(?:id|timestamp|signature)/,
  413: /^the body has more than 1048576 bytes$/,
  415: /^the content type must be application\/xmpp\+xml$/,
};

/** The number of stanzas in a body, counted with another parser than the server's. */
function stanzasIn(body: Buffer): number {
  let found = 0;
  const parser = new Parser();
  parser.on('element', () => {
    found += 1;
  });
  parser.on('error', () => undefined);
  parser.write(body.toString().replace(/^(?:\ufeff)?<\?xml [^>]*>/, ''));
  return found;
}

/** How long another request had to wait, and the server's processor time during that, in milliseconds. */
interface Cost {
  readonly wait: number;
  readonly own: number;
}

/** The memory of the server, in kB of Lua and in MB of its process. */
interface Memory {
  readonly luaKb: number;
  readonly rssMb: number;
}

/** A server, a session in a room of another server, and a client of the API. */
class StanzaTestBed {
  readonly lab: Lab;
  readonly home: Prosody;
  readonly juliet: User;
  readonly muc: ScriptedMuc;
  readonly world: World;
  /** The real join. */
  readonly join: Parameters<typeof ping>[0];
  readonly #agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE });
  #pid: string | undefined;
  readonly #prober = new Agent({ keepAlive: true, maxSockets: 1 });

  private constructor(lab: Lab, home: Prosody, juliet: User, muc: ScriptedMuc, join: Parameters<typeof ping>[0]) {
    [this.lab, this.home, this.juliet, this.muc, this.join] = [lab, home, juliet, muc, join];
    const digits = Array.from(String(join.at), (digit, index) =>
      index % 5 === 2 ? String((Number(digit) + 5) % 10) : digit,
    );
    this.world = {
      host: home.host,
      user: juliet.jid,
      room: join.room,
      nick: join.nick,
      at: digits.join(''),
      other: muc.room('elsewhere'),
    };
  }

  static async open(): Promise<StanzaTestBed> {
    const lab = await Lab.open();
    try {
      const { url, events } = await startSink(lab);
      const host = lab.address(2);
      const home = await Prosody.start(lab, {
        host,
        users: ['juliet'],
        global: `plugin_paths = { ${JSON.stringify(fileURLToPath(new URL('../prosody', import.meta.url)))} }`,
        forHost: `modules_enabled = { "ping_muc_webhook" }
ping_muc_webhook_url = "${url}"
ping_muc_secret = "whsec_${SECRET.toString('base64')}"`,
      });
      const domain = lab.address(4);
      const away = await Prosody.start(lab, { host: lab.address(3), components: [domain] });
      const muc = await ScriptedMuc.open(lab, away, domain);
      const juliet = await User.connect(lab, home, 'juliet', 'phone');
      const room = muc.room('fuzzed');
      await juliet.join(room, 'Juliet');
      const joined = await until('the join is reported', () => events.find(({ type }) => type === 'muc.joined'));
      return new StanzaTestBed(lab, home, juliet, muc, {
        host,
        remote: domain,
        room,
        user: juliet.jid,
        nick: 'Juliet',
        at: joined.at,
      });
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  post(path: string, headers: Record<string, string>, body: Buffer, agent = this.#agent): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const options = {
        host: this.home.host,
        port: 5280,
        path,
        method: 'POST',
        agent,
        timeout: 30_000,
        headers: { ...headers, 'content-length': body.length },
      };
      const request = httpRequest(options, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks).toString(),
          }),
        );
        response.on('error', reject);
      });
      request.on('timeout', () => request.destroy(new Error('no answer within 30 seconds')));
      request.on('error', reject);
      request.end(body);
    });
  }

  send(given: Input): Promise<Reply> {
    return this.post(
      '/ping_muc/stanzas',
      {
        ...signedHeaders({ ...given, strange: given.strange.map(inHeader) }, `msg_${crypto.randomUUID()}`),
        'content-type': inHeader(given.type),
      },
      given.body,
    );
  }

  /**
   * Requests a page that does not exist, repeatedly, while something else runs. Returns the longest time to the answer,
   * and the server's processor time during it, in milliseconds.
   */
  async longestWait(meanwhile: () => Promise<unknown>): Promise<Cost> {
    const file = `/proc/${await this.#process()}/schedstat`;
    const worked = (): number => Number(readFileSync(file, 'utf8').split(' ')[0]) / 1e6;
    const nothing = Buffer.alloc(0);
    const longest = { wait: 0, own: 0 };
    let over = false as boolean;
    const end = (): void => {
      over = true;
    };
    meanwhile().then(end, end);
    do {
      const [began, before] = [performance.now(), worked()];
      await this.post('/', {}, nothing, this.#prober);
      const wait = performance.now() - began;
      longest.wait = Math.max(longest.wait, wait);
      longest.own = Math.max(longest.own, Math.min(wait, worked() - before));
    } while (!over);
    return longest;
  }

  /** The result of a Lua expression in the admin shell. */
  async lua(expression: string): Promise<string> {
    const output = await this.home.shell(`>return ${expression}`);
    const value = /Result: (.*)/.exec(output)?.[1];
    if (value === undefined) throw new Error(`the shell did not evaluate ${expression}: ${output}`);
    return value.trim();
  }

  async memory(): Promise<Memory> {
    const luaKb = Number(
      await this.lua('(collectgarbage() == 0 and collectgarbage() == 0) and collectgarbage("count")'),
    );
    const rss = /VmRSS:\s+(\d+) kB/.exec(await readFile(`/proc/${await this.#process()}/status`, 'utf8'))?.[1];
    return { luaKb, rssMb: Number(rss) / 1024 };
  }

  async #process(): Promise<string> {
    this.#pid ??= await this.lua('require"util.pposix".getpid()');
    return this.#pid;
  }

  async close(): Promise<void> {
    this.#agent.destroy();
    this.#prober.destroy();
    await this.lab.close();
  }
}

const problemSchema = (): ((value: unknown) => boolean) =>
  new Ajv2020().compile(
    JSON.parse(readFileSync(new URL('../protocol/problem.schema.json', import.meta.url), 'utf8')) as object,
  );

const rightInput = (body: string | Buffer): Input => ({
  body: Buffer.from(body),
  signing: 'right',
  strange: ['', '', ''],
  type: 'application/xmpp+xml',
});
/** For violations that belong to no single input. */
const NO_INPUT = Buffer.alloc(0);

/** Sends inputs, and checks each answer against the contract. */
class StanzaFuzzer {
  readonly tally = new Tally();
  /** The answers to single stanzas, by condition. */
  readonly conditions: Record<string, number> = {};
  /** Requests that were accepted. */
  accepted = 0;
  readonly #testBed: StanzaTestBed;
  readonly #isProblem = problemSchema();

  constructor(testBed: StanzaTestBed) {
    this.#testBed = testBed;
  }

  async send(given: Input, name: string): Promise<void> {
    try {
      let reply = await this.#testBed.send(given);
      for (
        let turn = 0;
        turn < 20 && (reply.status === 503 || reply.status === 429) && reply.headers['retry-after'] !== undefined;
        turn += 1
      ) {
        this.tally.count(`${reply.status}, tried again`);
        await sleep(Number(reply.headers['retry-after']) * 1000);
        reply = await this.#testBed.send(given);
      }
      this.tally.count(String(reply.status));
      const wrong = this.#judge(given, reply);
      if (wrong !== undefined) this.tally.violate(name, wrong.slice(0, 500), given.body);
    } catch (error) {
      this.tally.count('no answer');
      this.tally.violate(name, String(error), given.body);
    }
  }

  /** Sends each seed until its stall is small, and returns the longest stalls. */
  async measureSeeds(progress: FuzzOptions['progress']): Promise<StanzaResult['stall']> {
    const stall = { baseline: (await this.#testBed.longestWait(() => sleep(5000))).wait, wait: 0, own: 0, worst: '' };
    for (const [name, body] of Object.entries(seeds(this.#testBed.world))) {
      progress?.(name);
      const given = rightInput(body);
      let [wait, own] = [Infinity, Infinity];
      for (let turn = 0; turn < TURNS && own > MAX_STALL_MS / 4; turn += 1) {
        const cost = await this.#testBed.longestWait(() => this.send(given, name));
        [wait, own] = [Math.min(wait, cost.wait), Math.min(own, cost.own)];
      }
      progress?.(`${name}: ${wait.toFixed(0)} ms, ${own.toFixed(0)} ms its own`);
      stall.wait = Math.max(stall.wait, wait);
      if (own > stall.own) Object.assign(stall, { own, worst: name });
      if (own > MAX_STALL_MS)
        this.tally.violate(name, `held up the server for ${own.toFixed(0)} ms, ${TURNS} times`, given.body);
    }
    return stall;
  }

  /** Sends each seed once. */
  async sendSeeds(progress: FuzzOptions['progress']): Promise<StanzaResult['stall']> {
    for (const [name, body] of Object.entries(seeds(this.#testBed.world))) {
      progress?.(name);
      await this.send(rightInput(body), name);
    }
    return { baseline: 0, wait: 0, own: 0, worst: '' };
  }

  /** The memory of the server may not have grown. */
  checkMemory(before: Memory, after: Memory): void {
    if (after.luaKb - before.luaKb > MAX_GROWTH.luaKb)
      this.tally.violate('all', `Lua's memory grew from ${before.luaKb} to ${after.luaKb} kB`, NO_INPUT);
    if (after.rssMb - before.rssMb > MAX_GROWTH.rssMb)
      this.tally.violate('all', `the process grew from ${before.rssMb} to ${after.rssMb} MB`, NO_INPUT);
  }

  /** No stanza may have left the server since then. */
  checkTraffic(before: { readonly asked: number; readonly received: number }): void {
    const { muc, juliet } = this.#testBed;
    for (const { kind, to, user } of muc.asked.slice(before.asked))
      this.tally.violate('all', `the chat service was asked: ${kind} ${to} by ${user}`, NO_INPUT);
    for (const { stanza } of juliet.received.slice(before.received))
      this.tally.violate('all', `the client received ${stanza.toString()}`, NO_INPUT);
  }

  /** The server may have logged neither an error nor the secret. */
  async checkLog(): Promise<void> {
    const log = await this.#testBed.home.log();
    const errors = log
      .split('\n')
      .filter((line) => /\terror\t|[Tt]raceback/.test(line) && !line.includes('certmanager\t')); // no certificate
    if (errors.length > 0) this.tally.violate('all', `the server logged ${errors.slice(0, 3).join(' ')}`, NO_INPUT);
    if (log.includes(SECRET.toString('base64'))) this.tally.violate('all', 'the secret is in the log', NO_INPUT);
  }

  /** The same stanzas are accepted for the real join: the API was open, and the inputs were nearly right. */
  async checkRightStanzas(): Promise<void> {
    const { join } = this.#testBed;
    const pingReply = await this.#testBed.send(rightInput(requestBody([ping(join)], 5)));
    const noticeReply = await this.#testBed.send(rightInput(requestBody([notice(join, undefined)], 5)));
    if (readAnswers(pingReply.body).values().next().value?.kind !== 'result' || readAnswers(noticeReply.body).size > 0)
      this.tally.violate('all', `the right ones were refused: ${pingReply.body} ${noticeReply.body}`, NO_INPUT);
  }

  /** Returns what is wrong with an answer, or undefined. */
  #judge(given: Input, { status, headers, body }: Reply): string | undefined {
    const type = headers['content-type'];
    if (given.signing !== 'right' && status !== 401 && given.body.length <= 1_048_576)
      return `answered ${status} to what is not signed`;
    if (status !== 200) {
      const details = DETAILS[status];
      if (details === undefined) return `answered ${status}: ${body}`;
      const problem = JSON.parse(body) as { status: number; detail: string };
      if (type !== 'application/problem+json' || !this.#isProblem(problem) || problem.status !== status)
        return `not a problem document: ${body}`;
      return details.test(problem.detail) ? undefined : `the problem names no field: ${body}`;
    }
    this.accepted += 1;
    return type === 'application/xmpp+xml' ? this.#judgeAnswers(given, body) : `answered 200 with ${type}`;
  }

  #judgeAnswers(given: Input, body: string): string | undefined {
    const answers = [...readAnswers(body).values()];
    const sent = stanzasIn(given.body);
    if (answers.length !== sent) return `${sent} stanzas, ${answers.length} answers: ${body}`;
    for (const answer of answers) {
      if (answer.kind !== 'error') return `a stanza got through: ${body}`;
      if (answer.by !== this.#testBed.home.host) return `an error that the server did not make: ${body}`;
      if (!['policy-violation', 'conflict', 'recipient-unavailable'].includes(answer.condition))
        return `${answer.condition}: ${body}`;
      if (answer.condition === 'policy-violation' && (answer.text ?? '') === '') return `no reason is given: ${body}`;
      this.conditions[answer.condition] = (this.conditions[answer.condition] ?? 0) + 1;
    }
    return undefined;
  }
}

/** @param measured whether each seed's stall is measured, which takes a minute */
export async function fuzzStanzas(options: FuzzOptions & { readonly measured: boolean }): Promise<StanzaResult> {
  const testBed = await StanzaTestBed.open();
  const { juliet, muc, world } = testBed;
  const fuzzer = new StanzaFuzzer(testBed);
  try {
    await sleep(500); // what the login causes has arrived
    const traffic = { asked: muc.asked.length, received: juliet.received.length };
    const stall = await (options.measured ? fuzzer.measureSeeds(options.progress) : fuzzer.sendSeeds(options.progress));

    const before = await testBed.memory();
    await fuzz(inputs(world), options, fuzzer.tally, AT_ONCE, async (given, name) => {
      await fuzzer.send(fuzzer.accepted < MAX_ACCEPTED ? given : { ...given, signing: 'other body' }, name);
    });
    const after = await testBed.memory();

    await sleep(500); // what got through has arrived
    fuzzer.checkTraffic(traffic);
    fuzzer.checkMemory(before, after);
    await fuzzer.checkLog();
    await fuzzer.checkRightStanzas();
    const { counts, violations } = fuzzer.tally;
    return {
      inputs: Object.entries(counts).reduce((sum, [name, count]) => sum + (name.includes('again') ? 0 : count), 0),
      answers: counts,
      stanzas: fuzzer.conditions,
      stall,
      luaKb: { before: before.luaKb, after: after.luaKb },
      rssMb: { before: before.rssMb, after: after.rssMb },
      violations,
    };
  } finally {
    await testBed.close();
  }
}
