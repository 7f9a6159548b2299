import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { DynamoDBClient, ScanCommand } from '@aws-sdk/client-dynamodb';
import xml from '@xmpp/xml';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { decodeSecret, verify } from '../../functions/core/signature.ts';
import { batch, notice, ping, readAnswers, stanzaId } from '../../functions/core/stanzas.ts';
import { startDynamoDB } from '../../local/dynamodb.ts';
import { readAssembly } from '../../local/assembly.ts';
import { Lab, sleep, until } from '../lab/lab.ts';
import { Prosody } from '../lab/prosody.ts';
import { type Reply, type SignedRequest, post } from '../lab/requests.ts';
import { Runtime } from '../lab/runtime.ts';
import { Tap } from '../lab/tap.ts';
import { User } from '../lab/user.ts';

/** The two doors: the webhook on our side, the stanza API on the server's. What does not belong in does not get in. */
const WRONG = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
let lab: Lab;
let runtime: Runtime;
let home: Prosody;
let tap: Tap;
let juliet: User;
let muc: string;

beforeAll(async () => {
  lab = await Lab.open();
  runtime = await Runtime.start(lab);
  tap = await Tap.start(lab, lab.address(1), 8788, runtime.webhookUrl);
  home = await Prosody.start(lab, {
    host: lab.address(2),
    users: ['juliet'],
    ...runtime.prosodySettings({ ping_muc_webhook_url: tap.url, ping_muc_delay: 1, ping_muc_timeout: 2 }),
  });
  muc = lab.address(4);
  await Prosody.start(lab, { host: lab.address(3), mucs: [muc] });
  juliet = await User.connect(lab, home, 'juliet', 'phone');
});
afterAll(() => lab.close());

async function rows(): Promise<number> {
  await runtime.end('SIGTERM');
  const { tables } = await readAssembly(process.env['PING_MUC_ASSEMBLY'] ?? '');
  const database = await startDynamoDB(join(runtime.data, 'dynamodb'), tables);
  const client = new DynamoDBClient({ endpoint: database.endpoint, region: 'us-east-1', credentials: { accessKeyId: 'x', secretAccessKey: 'x' } });
  const { Count } = await client.send(new ScanCommand({ TableName: tables[0]?.name ?? '' }));
  client.destroy();
  await database.close();
  await runtime.start();
  return Count ?? 0;
}

async function logs(): Promise<string> {
  return `${await readFile(`${runtime.data}.log`, 'utf8')}${await home.log()}`;
}

const detail = (reply: Reply): string => (JSON.parse(reply.body) as { detail: string }).detail;

const BAD_SIGNATURES: readonly [string, (secret: string) => Partial<SignedRequest>, RegExp][] = [
  ['unsigned', () => ({}), /webhook-signature are required/],
  ['wrongly signed', () => ({ secret: WRONG }), /secret/],
  ['301 seconds old', (secret) => ({ secret, off: -301 }), /clock/],
  ['from 302 seconds ahead', (secret) => ({ secret, off: 302 }), /clock/],
  ['with a timestamp that is no number', (secret) => ({ secret, headers: { 'webhook-timestamp': '12x' } }), /timestamp/],
  ['with a body that was changed', (secret) => ({ secret, headers: { 'webhook-signature': 'v1,AAAA' } }), /secret/],
];

describe('the webhook', () => {
  const joined = (host: string): object => ({
    host,
    events: [{ type: 'muc.joined', at: Date.now() * 1000, user: `eve@${host}/x`, room: 'room@elsewhere.example', nick: 'eve' }],
  });

  it.each(BAD_SIGNATURES)('refuses what is %s with 401', async (_what, request, says) => {
    const reply = await post({ url: runtime.webhookUrl, body: JSON.stringify(joined(home.host)), ...request(runtime.secret) });
    expect(reply.status).toBe(401);
    expect(reply.headers.get('content-type')).toBe('application/problem+json');
    expect(detail(reply)).toMatch(says);
  });

  it.each([
    ['not JSON', '{"host":', /JSON/],
    ['not an object', '[]', /object/],
    ['without a host', '{"events":[]}', /host/],
    ['without events', '{"host":"example.net"}', /events/],
    ['with more than 1,000 events', JSON.stringify({ host: 'example.net', events: Array(1001).fill(0) }), /1000/],
  ])('answers 400 to what is %s', async (_what, body, says) => {
    const reply = await post({ url: runtime.webhookUrl, secret: runtime.secret, body });
    expect(reply.status).toBe(400);
    expect(detail(reply)).toMatch(says);
  });

  it('answers 413 to what is too large', async () => {
    const reply = await post({ url: runtime.webhookUrl, secret: runtime.secret, body: Buffer.alloc(262_145, ' ') });
    expect(reply.status).toBe(413);
  });

  it('lets one bad event block none of the good ones, and says what is wrong with it', async () => {
    const body = { host: home.host, events: [{ type: 'muc.joined' }, { ...(joined(home.host) as { events: object[] }).events[0], room: 'room' }] };
    const reply = await post({ url: runtime.webhookUrl, secret: runtime.secret, body: JSON.stringify(body) });
    expect(reply.status).toBe(200);
    const answer = JSON.parse(reply.body) as { accepted: number; rejected: { index: number; error: string }[] };
    expect(answer.accepted).toBe(0);
    expect(answer.rejected.map(({ index, error }) => `${index} ${error.split(':')[0]}`)).toEqual(['0 at', '1 room']);
  });

  it('has stored nothing of all that, nor logged the secret', async () => {
    expect(await rows()).toBe(0);
    expect(await logs()).not.toContain(runtime.secret.slice('whsec_'.length));
  });
});

describe('the stanza API', () => {
  const send = (body: string, request: Partial<SignedRequest> = { secret: runtime.secret }): Promise<Reply> =>
    post({ url: `http://${home.host}:5280/ping_muc/stanzas`, type: 'application/xmpp+xml', body, ...request });
  const join = (at = 1): Parameters<typeof ping>[0] => ({ host: home.host, remote: muc, room: `door@${muc}`, user: juliet.jid, nick: 'Juliet', at });

  it.each(BAD_SIGNATURES)('refuses what is %s with 401', async (_what, request, says) => {
    const reply = await send(batch([notice(join(), undefined)], 1), request(runtime.secret));
    expect(reply.status).toBe(401);
    expect(detail(reply)).toMatch(says);
  });

  it.each([
    ['not XML', 'not XML'],
    ['cut short', '<xmpp timeout="1"><iq'],
    ['another root', '<stream/>'],
    ['a document type with entities', '<!DOCTYPE x [<!ENTITY e "e">]><xmpp timeout="1">&e;</xmpp>'],
  ])('answers 400 to %s', async (_what, body) => {
    expect((await send(body)).status).toBe(400);
  });

  it('answers 415 to another content type', async () => {
    expect((await send('<xmpp timeout="1"/>', { secret: runtime.secret, type: 'text/plain' })).status).toBe(415);
  });

  it.each([
    ['a message', '<message id="m" from="FROM" to="ROOM"><body>hello</body></message>'],
    ['an iq of type set', '<iq type="set" id="m" from="FROM" to="ROOM/Juliet"><ping xmlns="urn:xmpp:ping"/></iq>'],
    ['a ping to a local room', '<iq type="get" id="m" from="FROM" to="room@HOST/x"><ping xmlns="urn:xmpp:ping"/><join xmlns="urn:ping-muc:0" at="1"/></iq>'],
    ['a ping from a foreign session', '<iq type="get" id="m" from="a@b.example/c" to="ROOM/Juliet"><ping xmlns="urn:xmpp:ping"/><join xmlns="urn:ping-muc:0" at="1"/></iq>'],
    ['a version query', '<iq type="get" id="m" from="FROM" to="ROOM/Juliet"><query xmlns="jabber:iq:version"/></iq>'],
    ['an available presence', '<presence id="m" from="ROOM/Juliet" to="FROM"/>'],
    ['a presence without a notice', '<presence type="unavailable" id="m" from="ROOM/Juliet" to="FROM"/>'],
  ])('answers policy-violation to %s, and sends nothing', async (_what, stanza) => {
    const before = juliet.received.length;
    const xml = stanza.replaceAll('FROM', juliet.jid).replaceAll('ROOM', `door@${muc}`).replaceAll('HOST', home.host);
    const reply = await send(`<xmpp timeout="1">${xml}</xmpp>`);
    expect(reply.status).toBe(200);
    expect(readAnswers(reply.body).get('m')).toMatchObject({ condition: 'policy-violation', by: home.host });
    await sleep(200);
    expect(juliet.received.slice(before)).toEqual([]);
  });

  it('answers conflict to a notice for a room in which the session is not, and recipient-unavailable where there is no session', async () => {
    const here = notice(join(), undefined);
    const gone = notice({ ...join(2), user: `juliet@${home.host}/gone` }, undefined);
    const answers = readAnswers((await send(batch([here, gone], 1))).body);
    expect(answers.get(here.id)).toMatchObject({ condition: 'conflict', by: home.host });
    expect(answers.get(gone.id)).toMatchObject({ condition: 'recipient-unavailable', by: home.host });
    expect(juliet.notices()).toEqual([]);
  });

  it('takes a request once: its replay is refused', async () => {
    const request = { secret: runtime.secret, id: 'msg_replayed' };
    const body = batch([ping(join())], 1);
    const [first, second] = [await send(body, request), await send(body, request)];
    expect([first.status, second.status]).toEqual([200, 401]);
    expect(readAnswers(first.body).get(stanzaId(join()))).toMatchObject({ condition: 'conflict' });
  });

  it('has not logged the secret', async () => {
    expect(await logs()).not.toContain(runtime.secret.slice('whsec_'.length));
  });
});

describe('what the module really sends', () => {
  it('is signed, ordered, and valid by the schema of the contract', async () => {
    const room = `tapped@${muc}`;
    const nicks = (): (string | undefined)[] => events().filter((event) => event.room === room).map((event) => event.nick);
    await juliet.join(room, 'Juliet');
    await until('the join is sent', () => nicks().length === 1);
    await juliet.send(xml('presence', { to: `${room}/Juliet "&" <Romeo>` }));
    await until('the new nick is sent', () => nicks().length === 2);
    await juliet.leave(room, 'Juliet "&" <Romeo>');
    await until('the leave is sent', () => nicks().length === 3);
    await juliet.join(room, 'Juliet');
    await until('the rejoin is sent', () => nicks().length === 4);
    expect(nicks()).toEqual(['Juliet', 'Juliet "&" <Romeo>', undefined, 'Juliet']);
    await home.shell('s2s:closeall()');
    await until('the close is sent', () => events().some((event) => event.type === 's2s.closed'));

    const schema = JSON.parse(await readFile(new URL('../../protocol/webhook.schema.json', import.meta.url), 'utf8')) as object;
    const validate = new Ajv2020({ strict: false }).compile(schema);
    for (const { headers, body } of tap.requests) {
      expect(validate(JSON.parse(body.toString())), JSON.stringify(validate.errors)).toBe(true);
      expect(() => verify([decodeSecret(runtime.secret)], headers as Record<string, string>, body, Date.now() / 1000)).not.toThrow();
    }
    const moments = events().map((event) => event.at);
    expect(moments).toEqual([...moments].sort((a, b) => a - b));
  });

  interface Sent {
    readonly type: string;
    readonly at: number;
    readonly room?: string;
    readonly nick?: string;
  }
  const events = (): Sent[] => tap.requests.flatMap(({ body }) => (JSON.parse(body.toString()) as { events: Sent[] }).events);
});

it('leaves no file behind but its own', async () => {
  expect((await readdir(runtime.data)).sort()).toEqual(['dynamodb', 'executions', 'secret']);
});
