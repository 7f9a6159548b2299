import type { Request } from './fuzz-stanza-bed.ts';
import { NS_JOIN, NS_PING, type World, good, write } from './fuzz-stanza-input.ts';

const open = '<xmpp timeout="2">';
const close = '</xmpp>';
const entities = (levels: number): string =>
  Array.from({ length: levels }, (_, n) => `<!ENTITY e${n + 1} "${`&e${n};`.repeat(10)}">`).join('');
const many = (times: number, of: (n: number) => string): string =>
  Array.from({ length: times }, (_, n) => of(n)).join('');

/** Bodies that are meant to do harm. */
// eslint-disable-next-line max-lines-per-function -- a table
export function seeds(world: World): Readonly<Record<string, string | Buffer>> {
  const [pingXml, queryXml, noticeXml, entryXml] = good(world).map(write) as [string, string, string, string];
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
    'a thousand re-entries': open + many(1000, (n) => entryXml.replace('id="d"', `id="${n}"`)) + close,
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
    'a form with a million fields': '&'.repeat(1_000_000),
    'a form of escapes': '%41'.repeat(340_000),
    'eight megabytes': Buffer.alloc(8_000_000, '<'),
  };
}

/** Requests that are not as the contract has them. None of them is signed. */
export function strangeRequests({ host }: World): Readonly<Record<string, Request>> {
  const body = Buffer.from(`${open}${close}`);
  const path = '/ping_muc/stanzas';
  const at = (where: string): Request => ({ path: where, body });
  const under = (name: string): Request => ({ path, body, headers: { host: name } });
  return {
    ...Object.fromEntries(
      ['GET', 'HEAD', 'PUT', 'DELETE', 'PATCH'].map((method) => [`the method ${method}`, { method, path, body }]),
    ),
    'a path that goes on': at(`${path}/${'x/'.repeat(1000)}`),
    'a path without end': at(`/ping_muc/${'x'.repeat(10_000)}/stanzas`),
    'a path that goes up': at('/ping_muc/../../stanzas'),
    'a path for another host': at('/ping_muc/elsewhere.example/stanzas'),
    'a path for no host': at('/ping_muc//stanzas'),
    'a path for a name that cannot be prepared': at(`/ping_muc/${encodeURIComponent('\u00ad\u0340@ ')}/stanzas`),
    'a path that is not UTF-8': at('/ping_muc/%ff%fe/stanzas'),
    'a path with a NUL': at(`/ping_muc/${host}%00/stanzas`),
    'a path with half an escape': at('/ping_muc/%4/stanzas'),
    'a query': at(`${path}?${'a=b&'.repeat(2000)}`),
    'another HTTP host': under('elsewhere.example'),
    'an HTTP host without end': under('x'.repeat(5000)),
    'an HTTP host that is none': under('[:::]:99999'),
    'an HTTP host that is not UTF-8': under('\u00ff\u00fe'),
    'a signature without end': { path, body, headers: { 'webhook-signature': 'v1,'.repeat(1500) } },
    'many headers': { path, body, headers: Object.fromEntries(Array.from({ length: 90 }, (_, n) => [`x-${n}`, 'x'])) },
  };
}
