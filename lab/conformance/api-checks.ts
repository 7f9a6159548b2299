import { readFileSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { Parser, type Element } from '@xmpp/xml';
import { decodeSecret, sign } from '../../functions/core/signature.ts';
import { readAnswers } from '../../functions/core/stanzas.ts';
import type { SignedRequest } from '../requests.ts';
import { type Check, check, expectEqual, expectFields } from './check.ts';
import type { Subject } from './subject.ts';

/** The stanza API, without a join: who is let in, and what is refused. */

const schema = JSON.parse(
  readFileSync(new URL('../../protocol/problem.schema.json', import.meta.url), 'utf8'),
) as object;
const isProblem = new Ajv2020({ strict: false }).compile(schema);
const EMPTY = '<xmpp timeout="1"/>';
const OTHER_SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
const MAX_BYTES = 1_048_576;
const MAX_STANZAS = 1000;
const MAX_MARKS = 30_000;

/** A check that a request is refused with a status, and with a problem document. */
function refusal(
  paragraph: string,
  status: number,
  what: string,
  request: (subject: Subject) => readonly [body: string, request?: Partial<SignedRequest>],
): Check {
  return check(paragraph, `${what}: ${status}`, async (subject) => {
    const reply = await subject.send(...request(subject));
    expectEqual(reply.status, status, 'the status');
    expectEqual(reply.headers.get('content-type')?.split(';')[0], 'application/problem+json', 'the content type');
    if (!isProblem(JSON.parse(reply.body)))
      throw new Error(`the body is no problem document: ${JSON.stringify(isProblem.errors)}`);
  });
}

/** Headers with several signatures, of which one or none is right. */
const signed = (secrets: readonly string[], id = `msg_${randomUUID()}`): Partial<SignedRequest> => ({
  headers: { ...sign(secrets.map(decodeSecret), id, Math.floor(Date.now() / 1000), Buffer.from(EMPTY)) },
});

const SIGNATURES: readonly Check[] = [
  check('Signatures', 'a signed request without stanzas: 200', async (subject) => {
    expectEqual((await subject.send(EMPTY)).status, 200, 'the status');
  }),
  check('Signatures', 'two signatures, of which one matches: 200', async (subject) => {
    expectEqual((await subject.send(EMPTY, signed([OTHER_SECRET, subject.options.secret]))).status, 200, 'the status');
  }),
  refusal('Signatures', 401, 'no signature', () => [EMPTY, {}]),
  refusal('Signatures', 401, 'a signature with another secret', () => [EMPTY, { secret: OTHER_SECRET }]),
  refusal('Signatures', 401, 'a signature of another body', ({ options: { secret } }) => [
    EMPTY,
    { ...signed([secret]), body: '<xmpp timeout="2"/>' },
  ]),
  refusal('Signatures', 401, 'a signature of a version other than v1', ({ options: { secret } }) => {
    const { headers = {} } = signed([secret]);
    return [EMPTY, { headers: { ...headers, 'webhook-signature': `v2${headers['webhook-signature']?.slice(2)}` } }];
  }),
  refusal('Signatures', 401, 'a timestamp 301 seconds behind', ({ options: { secret } }) => [
    EMPTY,
    { secret, off: -301 },
  ]),
  refusal('Signatures', 401, 'a timestamp 302 seconds ahead', ({ options: { secret } }) => [
    EMPTY,
    { secret, off: 302 },
  ]),
  refusal('Signatures', 401, 'a timestamp with something beside digits', ({ options: { secret } }) => {
    const { headers = {} } = signed([secret]);
    return [EMPTY, { headers: { ...headers, 'webhook-timestamp': `${headers['webhook-timestamp']}x` } }];
  }),
];

const REPLAYS: readonly Check[] = [
  check('Replays', 'the same request once more: 401', async (subject) => {
    const request = signed([subject.options.secret]);
    const statuses = [(await subject.send(EMPTY, request)).status, (await subject.send(EMPTY, request)).status];
    expectEqual(statuses, [200, 401], 'the two statuses');
  }),
  check('Replays', 'a retry, with the same id and a newer timestamp: 200', async (subject) => {
    const { secret } = subject.options;
    const id = `msg_${randomUUID()}`;
    const statuses = [
      (await subject.send(EMPTY, { secret, id, off: -2 })).status,
      (await subject.send(EMPTY, { secret, id })).status,
    ];
    expectEqual(statuses, [200, 200], 'the two statuses');
  }),
];

const body = (stanzas: string): string => `<xmpp timeout="1">${stanzas}</xmpp>`;
const padded = (bytes: number): string => body(' '.repeat(bytes - body('').length));

const LIMITS: readonly Check[] = [
  check('Send stanzas', 'a body of 1,048,576 bytes: 200', async (subject) => {
    expectEqual((await subject.send(padded(MAX_BYTES))).status, 200, 'the status');
  }),
  refusal('Send stanzas', 413, 'a body of 1,048,577 bytes', () => [padded(MAX_BYTES + 1)]),
  refusal('Send stanzas', 415, 'another content type', ({ options: { secret } }) => [
    EMPTY,
    { secret, type: 'text/plain' },
  ]),
  ...(
    [
      ['a body that is not XML', 'stanzas'],
      ['a body that is cut short', '<xmpp timeout="1"><iq'],
      ['another root', '<stream timeout="1"/>'],
      ['a document type', `<!DOCTYPE x [<!ENTITY e "e">]>${body('&e;')}`],
      ['a comment', body('<!-- -->')],
      ['no timeout', '<xmpp/>'],
      ['a timeout of 301 seconds', '<xmpp timeout="301"/>'],
      ['a timeout of 0 seconds', '<xmpp timeout="0"/>'],
      ['more than 1,000 stanzas', body('<iq/>'.repeat(MAX_STANZAS + 1))],
      ['more than 30,000 characters of markup', body('<a/>'.repeat(MAX_MARKS))],
      ['a stanza without an id', body('<iq type="get"/>')],
      ['an id of 129 bytes', body(`<iq id="${'x'.repeat(129)}"/>`)],
      ['an id that is used twice', body('<iq id="x"/><iq id="x"/>')],
    ] as const
  ).map(([what, text]) => refusal('Send stanzas', 400, what, () => [text])),
];

const JOIN = '<join xmlns="urn:ping-muc:0" at="1"/>';
const PING = '<ping xmlns="urn:xmpp:ping"/>';
const DISCO = '<query xmlns="http://jabber.org/protocol/disco#info"/>';
const STATUSES = '<status code="110"/><status code="330"/><status code="333"/>';
const notice = (to: string, x = STATUSES, from = 'ROOM/n'): string =>
  `<presence type="unavailable" id="m" from="${from}" to="${to}"><x xmlns="http://jabber.org/protocol/muc#user">` +
  `<item affiliation="none" role="none"/>${x}</x>${JOIN}</presence>`;
const iq = (to: string, payload: string, { from = 'ME', type = 'get' } = {}): string =>
  `<iq type="${type}" id="m" from="${from}" to="${to}">${payload}</iq>`;

/** ME: the session's full JID, ROOM: the room, HOST: the server's own domain. */
const POLICY: readonly (readonly [what: string, stanza: string])[] = [
  ['a message', '<message id="m" from="ME" to="ROOM" type="groupchat"><body>words</body></message>'],
  ['a ping of type set', iq('ROOM/n', PING + JOIN, { type: 'set' })],
  ['a ping without a join', iq('ROOM/n', PING)],
  ['a ping to a room of the own host', iq('room@HOST/n', PING + JOIN)],
  ['a ping to a room without a nick', iq('ROOM', PING + JOIN)],
  ['a ping on behalf of a user of another host', iq('ROOM/n', PING + JOIN, { from: 'a@b.example/c' })],
  ['a ping on behalf of a bare JID', iq('ROOM/n', PING + JOIN, { from: 'u@HOST' })],
  ['an iq with another payload', iq('ROOM/n', '<query xmlns="jabber:iq:version"/>')],
  ['disco#info of an occupant', iq('ROOM/n', DISCO)],
  ['disco#info of a host', iq('elsewhere.example', DISCO)],
  ['an occupant of 3,072 bytes', iq(`ROOM/${'x'.repeat(3072)}`, PING + JOIN)],
  ['a notice to a user of another host', notice('a@b.example/c')],
  ['a notice to a bare JID', notice('u@HOST')],
  ['a notice from a room of the own host', notice('ME', STATUSES, 'room@HOST/n')],
  ['a notice with another status', notice('ME', `${STATUSES}<status code="307"/>`)],
  ['a notice without status 330', notice('ME', '<status code="110"/><status code="333"/>')],
  ['a presence that is not a notice', '<presence type="unavailable" id="m" from="ROOM/n" to="ME"/>'],
  ['an available presence to the session', '<presence id="m" from="ROOM/n" to="ME"/>'],
  ['a presence of type probe', `<presence type="probe" id="m" from="ME" to="ROOM/n">${JOIN}</presence>`],
  [
    'a re-entry with a password',
    `<presence id="m" from="ME" to="ROOM/n"><x xmlns="http://jabber.org/protocol/muc"><password>p</password></x>${JOIN}</presence>`,
  ],
];

const KINDS: readonly Check[] = POLICY.map(([what, stanza]) =>
  check('Four kinds of stanza', `${what}: policy-violation, and the client receives nothing`, async (subject) => {
    const xml = stanza
      .replaceAll('ME', subject.client.jid)
      .replaceAll('ROOM', subject.options.room)
      .replaceAll('HOST', subject.host);
    const received = await subject.receivedDuring(async () => {
      const reply = await subject.send(body(xml));
      expectEqual(reply.status, 200, 'the status');
      const answer = readAnswers(reply.body).get('m');
      expectFields(answer, { kind: 'error', type: 'modify', condition: 'policy-violation', by: subject.host });
    });
    expectEqual(received.map(String), [], 'what the client received');
  }),
);

const ABOUT: readonly Check[] = [
  check('About the server', 'the root of the answer is <xmpp>, and its attributes are right', async (subject) => {
    const reply = await subject.send(EMPTY);
    const { name, attrs } = root(reply.body);
    expectEqual(name, 'xmpp', 'the root');
    const { host, dry_run: dryRun, webhooks } = attrs as Record<string, string | undefined>;
    expectEqual(host ?? subject.host, subject.host, 'host');
    expectEqual(['true', 'false', undefined].includes(dryRun), true, 'that dry_run is true or false');
    expectEqual(['accepted', 'failing', 'none', undefined].includes(webhooks), true, 'that webhooks is known');
    return [host, dryRun, webhooks].includes(undefined)
      ? 'not offered; npm run doctor needs the attributes'
      : undefined;
  }),
];

export const API_CHECKS: readonly Check[] = [...SIGNATURES, ...REPLAYS, ...LIMITS, ...KINDS, ...ABOUT];

function root(xml: string): Pick<Element, 'name' | 'attrs'> {
  let found: Element | undefined;
  const parser = new Parser();
  parser.on('start', (element: Element) => (found = element));
  parser.write(xml);
  if (found === undefined) throw new Error(`the answer is not XML: ${xml}`);
  return found;
}
