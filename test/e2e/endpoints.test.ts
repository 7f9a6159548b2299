import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { DynamoDBClient, ScanCommand } from '@aws-sdk/client-dynamodb';
import xml from '@xmpp/xml';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { decodeSecret, sign, verify } from '../../functions/core/signature.ts';
import { requestBody, notice, ping, readAnswers, reentry, roomQuery, stanzaId } from '../../functions/core/stanzas.ts';
import { startDynamoDB } from '../../local/dynamodb.ts';
import { readAssembly } from '../../local/assembly.ts';
import { Lab, sleep, until } from '../../lab/lab.ts';
import { type Reply, type SignedRequest, post } from '../../lab/requests.ts';
import { Runtime } from '../../lab/runtime.ts';
import { startAway, startHome } from '../../lab/servers.ts';
import { ScriptedMuc, silence } from '../../lab/scripted-muc.ts';
import { RecordingProxy } from '../../lab/recording-proxy.ts';
import { User } from '../../lab/user.ts';
import type { XmppServer } from '../../lab/xmpp-server.ts';

/** The two HTTP endpoints, the functions' webhook and the server's stanza API: they refuse what is not allowed. */
const WRONG = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
const FRESH = `whsec_${Buffer.alloc(32, 8).toString('base64')}`;
let lab: Lab;
let runtime: Runtime;
let home: XmppServer;
let proxy: RecordingProxy;
let juliet: User;
let muc: string;
/** A scripted chat service, which can be silent. */
let quiet: ScriptedMuc;

beforeAll(async () => {
  lab = await Lab.open();
  runtime = await Runtime.start(lab);
  proxy = await RecordingProxy.start(lab, lab.address(1), 8788, runtime.webhookUrl);
  const changes = { ping_muc_webhook_url: proxy.url, ping_muc_delay: 1, ping_muc_timeout: 2 };
  home = await startHome(lab, {
    host: lab.address(2),
    users: ['juliet', 'romeo'],
    module: { runtime, changes },
  });
  muc = lab.address(4);
  const away = await startAway(lab, { host: lab.address(3), mucs: [muc], components: [lab.address(5)] });
  quiet = await ScriptedMuc.open(lab, away, lab.address(5));
  juliet = await User.connect(lab, home, 'juliet', 'phone');
});
afterAll(() => lab.close());

/** The rows of the table, as text, without their expiry, and without heartbeats, which arrive by themselves. */
async function rows(): Promise<readonly string[]> {
  await runtime.end('SIGTERM');
  const { tables } = await readAssembly(process.env['PING_MUC_ASSEMBLY'] ?? '');
  const database = await startDynamoDB(join(runtime.data, 'dynamodb'), tables);
  const client = new DynamoDBClient({
    endpoint: database.endpoint,
    region: 'us-east-1',
    credentials: { accessKeyId: 'x', secretAccessKey: 'x' },
  });
  const { Items = [] } = await client.send(new ScanCommand({ TableName: tables[0]?.name ?? '' }));
  client.destroy();
  await database.close();
  await runtime.start();
  return Items.filter(({ pk }) => pk?.S !== 'HOST')
    .map(({ expires: _expires, ...row }) => JSON.stringify(row, Object.keys(row).concat('S', 'N').sort()))
    .sort();
}

async function logs(): Promise<string> {
  return `${await readFile(`${runtime.data}.log`, 'utf8')}${await home.log()}`;
}

interface Sent {
  readonly type: string;
  readonly at: number;
  readonly room?: string;
  readonly nick?: string;
}

/** The events that the module has sent. */
const events = (): Sent[] =>
  proxy.requests.flatMap(({ body }) => (JSON.parse(body.toString()) as { events: Sent[] }).events);

const JOIN = '<join xmlns="urn:ping-muc:0" at="1"/>';
const PING = '<ping xmlns="urn:xmpp:ping"/>';
const DISCO_INFO = '<query xmlns="http://jabber.org/protocol/disco#info"/>';

/** A complete notice, with additions that it must not have. */
function noticeXml(from: string, to: string, { reason = 'gone', item = '', more = '', beside = '' } = {}): string {
  const statuses = '<status code="110"/><status code="330"/><status code="333"/>';
  const content = `<item affiliation="none" role="none" ${item}><reason>${reason}</reason></item>${statuses}${more}`;
  const x = `<x xmlns="http://jabber.org/protocol/muc#user">${content}</x>`;
  return `<presence type="unavailable" id="m" from="${from}" to="${to}">${x}${JOIN}${beside}</presence>`;
}

/** A complete re-entry, with additions that it must not have. */
function reentryXml(from: string, to: string, within = '', beside = ''): string {
  const x = `<x xmlns="http://jabber.org/protocol/muc">${within}</x>`;
  return `<presence id="m" from="${from}" to="${to}">${x}${JOIN}${beside}</presence>`;
}

const detail = (reply: Reply): string => (JSON.parse(reply.body) as { detail: string }).detail;

/** A request that is signed once under `id`, so that it stays the same when it is sent again. */
const exactly = (id: string, body: string): Partial<SignedRequest> => ({
  headers: { ...sign([decodeSecret(runtime.secret)], id, Math.floor(Date.now() / 1000), Buffer.from(body)) },
});

const BAD_SIGNATURES: readonly [string, (secret: string) => Partial<SignedRequest>, RegExp][] = [
  ['without a signature', () => ({}), /webhook-signature are required/],
  ['signed with a wrong secret', () => ({ secret: WRONG }), /secret/],
  ['that is 301 seconds old', (secret) => ({ secret, off: -301 }), /clock/],
  ['with a timestamp 302 seconds ahead', (secret) => ({ secret, off: 302 }), /clock/],
  [
    'with a timestamp that is not a number',
    (secret) => ({ secret, headers: { 'webhook-timestamp': '12x' } }),
    /timestamp/,
  ],
  ['with a changed body', (secret) => ({ secret, headers: { 'webhook-signature': 'v1,AAAA' } }), /secret/],
];

describe('the webhook', () => {
  const joined = (host: string): object => ({
    host,
    events: [
      { type: 'muc.joined', at: Date.now() * 1000, user: `eve@${host}/x`, room: 'room@elsewhere.example', nick: 'eve' },
    ],
  });

  it.each(BAD_SIGNATURES)('refuses a request %s with 401', async (_what, request, message) => {
    const reply = await post({
      url: runtime.webhookUrl,
      body: JSON.stringify(joined(home.host)),
      ...request(runtime.secret),
    });
    expect(reply.status).toBe(401);
    expect(reply.headers.get('content-type')).toBe('application/problem+json');
    expect(detail(reply)).toMatch(message);
  });

  it.each([
    ['that is not JSON', '{"host":', /JSON/],
    ['that is not an object', '[]', /object/],
    ['without a host', '{"events":[]}', /host/],
    ['without events', '{"host":"example.net"}', /events/],
    ['with more than 1,000 events', JSON.stringify({ host: 'example.net', events: Array(1001).fill(0) }), /1000/],
  ])('answers 400 to a body %s', async (_what, body, message) => {
    const reply = await post({ url: runtime.webhookUrl, secret: runtime.secret, body });
    expect(reply.status).toBe(400);
    expect(detail(reply)).toMatch(message);
  });

  it('answers 413 to a body that is too large', async () => {
    const reply = await post({ url: runtime.webhookUrl, secret: runtime.secret, body: Buffer.alloc(262_145, ' ') });
    expect(reply.status).toBe(413);
  });

  it('rejects bad events one by one, with a reason for each', async () => {
    const body = {
      host: home.host,
      events: [{ type: 'muc.joined' }, { ...(joined(home.host) as { events: object[] }).events[0], room: 'room' }],
    };
    const reply = await post({ url: runtime.webhookUrl, secret: runtime.secret, body: JSON.stringify(body) });
    expect(reply.status).toBe(200);
    const answer = JSON.parse(reply.body) as { accepted: number; rejected: { index: number; error: string }[] };
    expect(answer.accepted).toBe(0);
    expect(answer.rejected.map(({ index, error }) => `${index} ${error.split(':')[0]}`)).toEqual(['0 at', '1 room']);
  });

  it('has stored none of these events, and has not logged the secret', async () => {
    expect(await rows()).toEqual([]);
    expect(await logs()).not.toContain(runtime.secret.slice('whsec_'.length));
  });

  it('ignores replays: repeated requests, in any order, change no row and start no check', async () => {
    const now = Math.floor(Date.now() / 1000);
    const at = now * 1_000_000;
    const known = { user: `eve@${home.host}/x`, room: 'room@elsewhere.example' };
    const events = [
      { type: 'muc.joined', at, ...known, nick: 'eve' },
      { type: 'muc.joined', at: at + 1, ...known, room: 'other@elsewhere.example', nick: 'eve' },
      {
        type: 's2s.closed',
        at: at + 2,
        remote: 'elsewhere.example',
        direction: 'outgoing',
        delay: 86_400,
        timeout: 60,
        patience: 0,
        dry_run: false,
      },
      { type: 'muc.left', at: at + 3, ...known },
    ];
    const requests = events.map((event, index) => {
      const body = JSON.stringify({ host: home.host, events: [event] });
      return {
        url: runtime.webhookUrl,
        body,
        headers: { ...sign([decodeSecret(runtime.secret)], `msg_replayed_${index}`, now, Buffer.from(body)) },
      };
    });
    const started = (): number => runtime.lines.reduce((sum, line) => sum + Number(line['ChecksStarted'] ?? 0), 0);
    for (const request of requests) expect((await post(request)).status).toBe(200);
    const before = { rows: await rows(), started: started() };
    expect(before.rows).toHaveLength(3);
    expect(before.started).toBe(1);
    for (const request of [...requests, ...requests.toReversed()]) expect((await post(request)).status).toBe(200);
    expect({ rows: await rows(), started: started() }).toEqual(before);
  });

  it('accepts both secrets during a rotation, and only the new one after it', async () => {
    const old = runtime.secret;
    const statuses = async (): Promise<number[]> => {
      const body = JSON.stringify({ host: home.host, events: [] });
      const both = {
        ...sign([WRONG, FRESH].map(decodeSecret), 'msg_both', Math.floor(Date.now() / 1000), Buffer.from(body)),
      };
      const replies = [
        await post({ url: runtime.webhookUrl, body, secret: old }),
        await post({ url: runtime.webhookUrl, body, secret: FRESH }),
        await post({ url: runtime.webhookUrl, body, headers: both }),
      ];
      return replies.map(({ status }) => status);
    };
    expect(await statuses()).toEqual([200, 401, 401]);
    await runtime.restart({ PING_MUC_SECRET: `${FRESH},${old}` });
    expect(await statuses()).toEqual([200, 200, 200]);
    await runtime.restart({ PING_MUC_SECRET: FRESH });
    expect(await statuses()).toEqual([401, 200, 200]);
    await runtime.restart({ PING_MUC_SECRET: undefined });
  });
});

describe('the stanza API', () => {
  const send = (body: string, request: Partial<SignedRequest> = { secret: runtime.secret }): Promise<Reply> =>
    post({ url: `http://${home.host}:5280/ping_muc/stanzas`, type: 'application/xmpp+xml', body, ...request });
  const join = (at = 1): Parameters<typeof ping>[0] => ({
    host: home.host,
    remote: muc,
    room: `endpoint@${muc}`,
    user: juliet.jid,
    nick: 'Juliet',
    at,
  });

  it.each(BAD_SIGNATURES)('refuses a request %s with 401', async (_what, request, message) => {
    const reply = await send(requestBody([notice(join(), undefined)], 1), request(runtime.secret));
    expect(reply.status).toBe(401);
    expect(detail(reply)).toMatch(message);
  });

  it.each([
    ['not XML', 'not XML'],
    ['cut short', '<xmpp timeout="1"><iq'],
    ['another root', '<stream/>'],
    ['a document type with entities', '<!DOCTYPE x [<!ENTITY e "e">]><xmpp timeout="1">&e;</xmpp>'],
    ['too much markup', `<xmpp timeout="1">${'<a/>'.repeat(30_000)}</xmpp>`, /markup/],
    ['more than 1,000 stanzas', `<xmpp timeout="1">${'<iq/>'.repeat(1001)}</xmpp>`, /1000 stanzas/],
    ['an id of 129 bytes', `<xmpp timeout="1"><iq id="${'x'.repeat(129)}"/></xmpp>`, /stanza 1 needs an id/],
    ['a repeated id', '<xmpp timeout="1"><iq id="x"/><iq id="x"/></xmpp>', /stanza 2 has the id/],
    ['a time-out of 301 seconds', '<xmpp timeout="301"/>', /timeout/],
  ])('answers 400 to %s', async (_what, body, message = /XML|root/) => {
    const reply = await send(body);
    expect(reply.status).toBe(400);
    expect(detail(reply)).toMatch(message);
  });

  it('accepts a body of 1 MiB, and answers 413 to one byte more', async () => {
    const body = (bytes: number): string => `<xmpp timeout="1">${' '.repeat(bytes - 25)}</xmpp>`;
    expect((await send(body(1_048_576))).status).toBe(200);
    expect((await send(body(1_048_577))).status).toBe(413);
  });

  it('answers 415 to another content type', async () => {
    expect((await send('<xmpp timeout="1"/>', { secret: runtime.secret, type: 'text/plain' })).status).toBe(415);
  });

  it.each([
    ['a message', '<message id="m" from="FROM" to="ROOM"><body>hello</body></message>'],
    ['an iq of type set', '<iq type="set" id="m" from="FROM" to="ROOM/Juliet"><ping xmlns="urn:xmpp:ping"/></iq>'],
    ['a ping to a local room', `<iq type="get" id="m" from="FROM" to="room@HOST/x">${PING}${JOIN}</iq>`],
    [
      'a ping from a foreign session',
      `<iq type="get" id="m" from="a@b.example/c" to="ROOM/Juliet">${PING}${JOIN}</iq>`,
    ],
    ['a version query', '<iq type="get" id="m" from="FROM" to="ROOM/Juliet"><query xmlns="jabber:iq:version"/></iq>'],
    ['an available presence', '<presence id="m" from="ROOM/Juliet" to="FROM"/>'],
    ['a presence without a notice', '<presence type="unavailable" id="m" from="ROOM/Juliet" to="FROM"/>'],
    ['a disco query to a local room', `<iq type="get" id="m" from="FROM" to="room@HOST">${DISCO_INFO}</iq>`],
    ['a disco query to an occupant', `<iq type="get" id="m" from="FROM" to="ROOM/Juliet">${DISCO_INFO}</iq>`],
    ['a disco query to a host', `<iq type="get" id="m" from="FROM" to="elsewhere.example">${DISCO_INFO}</iq>`],
    [
      'a ping with content',
      `<iq type="get" id="m" from="FROM" to="ROOM/Juliet"><ping xmlns="urn:xmpp:ping"><a/></ping>${JOIN}</iq>`,
    ],
    ['a ping without a join', '<iq type="get" id="m" from="FROM" to="ROOM/Juliet"><ping xmlns="urn:xmpp:ping"/></iq>'],
    [
      'an occupant of 3,072 bytes',
      `<iq type="get" id="m" from="FROM" to="ROOM/${'x'.repeat(3072)}">${PING}${JOIN}</iq>`,
    ],
    ['a notice from a local room', noticeXml('room@HOST/Juliet', 'FROM')],
    ['a notice to a foreign session', noticeXml('ROOM/Juliet', 'a@b.example/c')],
    ['a notice to a bare JID', noticeXml('ROOM/Juliet', 'juliet@HOST')],
    ['a notice with a reason of 1,025 bytes', noticeXml('ROOM/Juliet', 'FROM', { reason: 'x'.repeat(1025) })],
    ['a notice with another status', noticeXml('ROOM/Juliet', 'FROM', { more: '<status code="307"/>' })],
    ['a notice with an address', noticeXml('ROOM/Juliet', 'FROM', { item: 'jid="eve@b.example"' })],
    ['a re-entry into a local room', reentryXml('FROM', 'room@HOST/Juliet')],
    ['a re-entry of a foreign session', reentryXml('a@b.example/c', 'ROOM/Juliet')],
    ['a re-entry of a bare JID', reentryXml('juliet@HOST', 'ROOM/Juliet')],
    ['a re-entry into a room without a nick', reentryXml('FROM', 'ROOM')],
    ['a re-entry with a status', reentryXml('FROM', 'ROOM/Juliet', '', '<status>words</status>')],
    ['a re-entry with <show/>', reentryXml('FROM', 'ROOM/Juliet', '', '<show>away</show>')],
    ['a re-entry with a password', reentryXml('FROM', 'ROOM/Juliet', '<password>swordfish</password>')],
    ['a re-entry with its own history request', reentryXml('FROM', 'ROOM/Juliet', '<history maxstanzas="0"/>')],
    ['a re-entry with text', reentryXml('FROM', 'ROOM/Juliet', 'words')],
    [
      'a re-entry without a join',
      '<presence id="m" from="FROM" to="ROOM/Juliet"><x xmlns="http://jabber.org/protocol/muc"/></presence>',
    ],
    ['a presence probe', reentryXml('FROM', 'ROOM/Juliet').replace('<presence', '<presence type="probe"')],
    ['a notice with another child', noticeXml('ROOM/Juliet', 'FROM', { beside: '<status>hello</status>' })],
  ])('answers policy-violation to %s, and sends nothing', async (_what, stanza) => {
    const before = juliet.received.length;
    const xml = stanza
      .replaceAll('FROM', juliet.jid)
      .replaceAll('ROOM', `endpoint@${muc}`)
      .replaceAll('HOST', home.host);
    const reply = await send(`<xmpp timeout="1">${xml}</xmpp>`);
    expect(reply.status).toBe(200);
    expect(readAnswers(reply.body).get('m')).toMatchObject({ condition: 'policy-violation', by: home.host });
    await sleep(200);
    expect(juliet.received.slice(before)).toEqual([]);
  });

  it('answers conflict to a notice for another room, and recipient-unavailable for an unknown session', async () => {
    const here = notice(join(), undefined);
    const gone = notice({ ...join(2), user: `juliet@${home.host}/gone` }, undefined);
    const answers = readAnswers((await send(requestBody([here, gone], 1))).body);
    expect(answers.get(here.id)).toMatchObject({ condition: 'conflict', by: home.host });
    expect(answers.get(gone.id)).toMatchObject({ condition: 'recipient-unavailable', by: home.host });
    expect(juliet.notices()).toEqual([]);
  });

  it('accepts a request once, and refuses its replay', async () => {
    const body = requestBody([ping(join())], 1);
    const request = exactly('msg_replayed', body);
    const [first, second] = [await send(body, request), await send(body, request)];
    expect([first.status, second.status]).toEqual([200, 401]);
    expect(readAnswers(first.body).get(stanzaId(join()))).toMatchObject({ condition: 'conflict' });
  });

  describe('for a session that is in a room', () => {
    /** Enters a room under a nick, and returns the join as it was reported. */
    const enter = async (room: string, nick: string): Promise<Parameters<typeof ping>[0]> => {
      await juliet.join(room, nick);
      const { at } = await until('the join is sent', () =>
        events().findLast((event) => event.room === room && event.type === 'muc.joined'),
      );
      return { host: home.host, remote: room.split('@')[1] ?? '', room, user: juliet.jid, nick, at };
    };
    const noticeCount = (room: string): number =>
      juliet.notices().filter(({ stanza }) => String(stanza.attrs['from']).startsWith(`${room}/`)).length;
    const answer = async (stanza: { id: string; xml: string }): Promise<unknown> =>
      readAnswers((await send(requestBody([stanza], 5))).body).get(stanza.id);

    it('sends nothing if the time, nick, room or session differs', async () => {
      const room = quiet.room('recorded');
      const here = await enter(room, 'Juliet');
      const romeo = await User.connect(lab, home, 'romeo', 'phone');
      const asked = quiet.asked.length;
      for (const wrong of [
        { at: here.at + 1 },
        { at: here.at - 1 },
        { nick: 'juliet' },
        { room: quiet.room('other') },
        { user: romeo.jid },
      ]) {
        for (const kind of [notice, ping, reentry])
          expect(await answer(kind({ ...here, ...wrong }, undefined)), JSON.stringify(wrong)).toMatchObject({
            condition: 'conflict',
            by: home.host,
          });
      }
      expect(await answer(roomQuery({ ...here, room: quiet.room('other') }))).toMatchObject({ condition: 'conflict' });
      expect(noticeCount(room) + romeo.notices().length).toBe(0);
      expect(quiet.asked.length).toBe(asked);
      expect(await answer(ping(here))).toEqual({ kind: 'result' });
      await romeo.leaveServer();
    });

    it('sends nothing twice: it refuses a replay, and answers conflict to a repeated notice', async () => {
      const room = quiet.room('replayed');
      const here = await enter(room, 'Juliet');
      const pingBatch = requestBody([ping(here)], 5);
      const asked = exactly('msg_twice', pingBatch);
      expect([await send(pingBatch, asked), await send(pingBatch, asked)].map(({ status }) => status)).toEqual([
        200, 401,
      ]);
      expect(quiet.count('ping', room)).toBe(1);
      const noticeBatch = requestBody([notice(here, undefined)], 5);
      await sleep(1100); // the same id in the same second would be a replay already
      const noticeRequest = exactly('msg_twice', noticeBatch);
      expect(
        [await send(noticeBatch, noticeRequest), await send(noticeBatch, noticeRequest)].map(({ status }) => status),
      ).toEqual([200, 401]);
      await sleep(1100);
      expect(
        readAnswers((await send(noticeBatch, exactly('msg_twice', noticeBatch))).body).get(stanzaId(here)),
      ).toMatchObject({
        condition: 'conflict',
      });
      expect(noticeCount(room)).toBe(1);
    });

    it('enters no room again without ping_muc_reenter', async () => {
      const here = await enter(quiet.room('entered'), 'Juliet');
      const entries = quiet.count('enter');
      expect(await answer(reentry(here))).toMatchObject({ condition: 'feature-not-implemented', by: home.host });
      expect(quiet.count('enter')).toBe(entries);
    });

    it('accepts a nick that looks like markup', async () => {
      const here = await enter(quiet.room('markup'), ' xmlns:a=<&'.repeat(90));
      expect(await answer(ping(here))).toEqual({ kind: 'result' });
    });

    it('holds up to 6 requests for one room and 8 for one remote host, and answers 429 to the next ones', async () => {
      const [room, second, elsewhere] = [quiet.room('silent'), quiet.room('silent-too'), `silent@${muc}`];
      const here = await enter(room, 'Juliet');
      const hereToo = await enter(second, 'Juliet');
      const there = await enter(elsewhere, 'Juliet');
      for (const silent of [room, second]) quiet.script('ping', silent, silence);
      const before = quiet.count('ping', room);
      const held = Array.from({ length: 6 }, () => send(requestBody([ping(here)], 4)));
      await until('all are held', () => quiet.count('ping', room) - before === 6);
      const refused = async (body: string): Promise<void> => {
        const late = await send(body);
        expect([late.status, Number(late.headers.get('retry-after'))]).toEqual([429, 1]);
      };
      await refused(requestBody([ping(here)], 4));
      held.push(...Array.from({ length: 2 }, () => send(requestBody([ping(here), ping(hereToo)], 4))));
      await until('all are held', () => quiet.count('ping', room) - before === 8);
      await refused(requestBody([ping(here), ping(hereToo)], 4));
      expect(await answer(ping(there))).toEqual({ kind: 'result' });
      for (const reply of await Promise.all(held)) {
        expect(readAnswers(reply.body).get(stanzaId(here))).toMatchObject({
          condition: 'remote-server-timeout',
          silence: 'host',
          by: home.host,
        });
      }
      expect((await send(requestBody([], 2))).status).toBe(200);
    });

    it('has at most 1,000 pings in flight to one host, and answers 429 beyond that', async () => {
      const [room, elsewhere] = [quiet.room('crowded'), `crowded@${muc}`];
      const here = await enter(room, 'Juliet');
      const there = await enter(elsewhere, 'Juliet');
      quiet.script('ping', room, silence);
      const pings = (count: number): string =>
        requestBody(
          Array.from({ length: count }, (_, n) => ({ id: '', xml: ping(here).xml.replace(stanzaId(here), `p${n}`) })),
          4,
        );
      const atOnce = [send(pings(600)), send(pings(600))]; // the second arrives while the first is still being sent
      const refused = await Promise.race(atOnce);
      expect([refused.status, Number(refused.headers.get('retry-after'))]).toEqual([429, 1]);
      const rest = send(pings(400));
      await until('1,000 pings have arrived', () => quiet.count('ping', room) === 1000);
      expect((await send(pings(1))).status).toBe(429);
      expect(await answer(ping(there))).toEqual({ kind: 'result' });
      const replies = [...(await Promise.all(atOnce)).filter(({ status }) => status === 200), await rest];
      expect(replies.map(({ body }) => readAnswers(body).size).sort()).toEqual([400, 600]);
      expect((await send(pings(1))).status).toBe(200);
    });
  });

  it('accepts both secrets during a rotation, and only the new one after it', async () => {
    const old = runtime.secret;
    const statuses = async (): Promise<number[]> => [
      (await send('<xmpp timeout="1"/>', { secret: old })).status,
      (await send('<xmpp timeout="1"/>', { secret: FRESH })).status,
    ];
    expect(await statuses()).toEqual([200, 401]);
    await home.set({ ping_muc_secret: [FRESH, old] });
    expect(await statuses()).toEqual([200, 200]);
    await juliet.join(`rotating@${muc}`, 'Juliet');
    const sent = await until('it is reported', () =>
      proxy.requests.find(({ body }) => body.includes(`rotating@${muc}`)),
    );
    for (const secret of [FRESH, old])
      expect(() =>
        verify([decodeSecret(secret)], sent.headers as Record<string, string>, sent.body, Date.now() / 1000),
      ).not.toThrow();
    await home.set({ ping_muc_secret: FRESH });
    expect(await statuses()).toEqual([401, 200]);
    await home.set();
  });

  it('has not logged the secret', async () => {
    expect(await logs()).not.toContain(runtime.secret.slice('whsec_'.length));
  });
});

describe('a webhook of the module', () => {
  it('is signed, ordered, and valid by the schema of the contract', async () => {
    const room = `schema@${muc}`;
    const nicks = (): (string | undefined)[] =>
      events()
        .filter((event) => event.room === room)
        .map((event) => event.nick);
    await juliet.join(room, 'Juliet');
    await until('the join is sent', () => nicks().length === 1);
    await juliet.send(xml('presence', { to: `${room}/Juliet "&" <Romeo>` }));
    await until('the new nick is sent', () => nicks().length === 2);
    await juliet.leave(room, 'Juliet "&" <Romeo>');
    await until('the leave is sent', () => nicks().length === 3);
    await juliet.join(room, 'Juliet');
    await until('the rejoin is sent', () => nicks().length === 4);
    expect(nicks()).toEqual(['Juliet', 'Juliet "&" <Romeo>', undefined, 'Juliet']);
    await home.closeStreams(muc);
    await until('the close is sent', () => events().some((event) => event.type === 's2s.closed'));

    const schema = JSON.parse(
      await readFile(new URL('../../protocol/webhook.schema.json', import.meta.url), 'utf8'),
    ) as object;
    const validate = new Ajv2020({ strict: false }).compile(schema);
    for (const { headers, body } of proxy.requests) {
      expect(validate(JSON.parse(body.toString())), JSON.stringify(validate.errors)).toBe(true);
      expect(() =>
        verify([decodeSecret(runtime.secret)], headers as Record<string, string>, body, Date.now() / 1000),
      ).not.toThrow();
    }
    const moments = events().map((event) => event.at);
    expect(moments).toEqual([...moments].sort((a, b) => a - b));
  });
});

it('the runtime leaves only its own files', async () => {
  expect((await readdir(runtime.data)).sort()).toEqual([
    'address.json',
    'dynamodb',
    'ejabberd-settings.yml',
    'executions',
    'metrics.sqlite',
    'metrics.sqlite-shm',
    'metrics.sqlite-wal',
    'prosody-settings.lua',
    'secret',
  ]);
});
