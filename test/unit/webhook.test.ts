import { randomUUID } from 'node:crypto';
import type { APIGatewayProxyStructuredResultV2 } from 'aws-lambda';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { RowRefusedError } from '../../functions/adapters/items.ts';
import { decodeSecret, sign } from '../../functions/core/signature.ts';
import { CONTRACT_VERSION, ENV, WEBHOOK_TIME } from '../../functions/names.ts';
import type { WebhookPorts, webhookHandler } from '../../functions/webhook.ts';

/** The webhook function with a scripted table and workflow. */
const KEYS = [decodeSecret(Buffer.alloc(32, 1).toString('base64'))];
const HOST = 'example.net';
const AT = Date.now() * 1000;
const SPARE_MS = (WEBHOOK_TIME.functionTimeoutSeconds - WEBHOOK_TIME.answerWithinSeconds) * 1000;

const joined = (n: number): object => ({
  type: 'muc.joined',
  at: AT + n,
  user: `user@${HOST}/${n}`,
  room: 'room@muc.host',
  nick: 'nick',
});
const closed = (n: number): object => ({
  type: 's2s.closed',
  at: AT + n,
  remote: `muc${n}.host`,
  direction: 'outgoing',
  delay: 60,
  timeout: 60,
  patience: 0,
  dry_run: false,
});

let makeHandler: typeof webhookHandler;
let lines: string[];
beforeAll(async () => {
  for (const name of [...Object.values(ENV), 'AWS_REGION']) vi.stubEnv(name, 'test');
  ({ webhookHandler: makeHandler } = await import('../../functions/webhook.ts'));
});
afterAll(() => vi.unstubAllEnvs());
afterEach(() => vi.restoreAllMocks());

interface World {
  readonly record?: WebhookPorts['table']['record'];
  readonly recordClose?: WebhookPorts['table']['recordClose'];
  readonly hear?: WebhookPorts['watch']['hear'];
  readonly keys?: WebhookPorts['secrets']['keys'];
  readonly queue?: unknown;
  /** Milliseconds until the function must answer. */
  readonly milliseconds?: number;
}

/** Sends events, and returns the answer and the names of the checks that were started. */
async function send(
  events: readonly unknown[],
  { record, recordClose, hear, keys, queue, milliseconds = 20_000 }: World = {},
): Promise<{ answer: APIGatewayProxyStructuredResultV2; body: unknown; started: string[] }> {
  lines = [];
  vi.spyOn(process.stdout, 'write').mockImplementation((line) => lines.push(String(line)) > 0);
  const started: string[] = [];
  const handle = makeHandler({
    table: { record: record ?? (() => Promise.resolve(true)), recordClose: recordClose ?? (() => Promise.resolve()) },
    watch: { hear: hear ?? (() => Promise.resolve()) },
    workflow: { start: ({ remote }) => Promise.resolve(started.push(remote) > 0) },
    secrets: { keys: keys ?? (() => Promise.resolve(KEYS)), renewed: () => Promise.resolve(undefined) },
    hosts: new Set(),
  });
  const text = JSON.stringify({ host: HOST, queue, events });
  const headers = { ...sign(KEYS, `msg_${randomUUID()}`, Math.floor(Date.now() / 1000), Buffer.from(text)) };
  const ends = Date.now() + milliseconds + SPARE_MS;
  const context = { awsRequestId: 'request', getRemainingTimeInMillis: () => ends - Date.now() };
  const answer = await handle({ headers, body: text, isBase64Encoded: false } as never, context as never);
  return { answer, body: JSON.parse(answer.body ?? ''), started };
}

const line = (message: string): Record<string, unknown> | undefined =>
  lines.map((text) => JSON.parse(text) as Record<string, unknown>).find((one) => one['message'] === message);

it('stores what it can, and lists the events that the table does not accept, with place and reason', async () => {
  const { answer, body, started } = await send([joined(0), 'nonsense', joined(2), closed(3), joined(4), closed(5)], {
    record: ({ user }) =>
      /[24]$/.test(user) ? Promise.reject(new RowRefusedError(`no ${user}`)) : Promise.resolve(true),
    recordClose: ({ remote }) =>
      remote === 'muc3.host' ? Promise.reject(new RowRefusedError('too long')) : Promise.resolve(),
  });
  expect(answer.statusCode).toBe(200);
  expect(body).toEqual({
    accepted: 2,
    version: CONTRACT_VERSION,
    rejected: [
      { index: 1, error: 'must be an object with type, at and what the type asks for' },
      { index: 2, error: `the table does not take it: no user@${HOST}/2` },
      { index: 3, error: 'the table does not take it: too long' },
      { index: 4, error: `the table does not take it: no user@${HOST}/4` },
    ],
  });
  expect(started, 'of the close whose row was not taken, nothing is started').toEqual(['muc5.host']);
  expect(line('webhook stored')).toMatchObject({ EventsRejected: 4, JoinsRecorded: 1, ChecksStarted: 1, events: 2 });
});

it('counts the checks that it starts, in all and by cause, and says of which rooms', async () => {
  const requested = (n: number, cause: string): object => ({
    ...closed(n),
    type: 'check.requested',
    remote: 'muc.host',
    room: `room${n}@muc.host`,
    cause,
    delay: 0,
  });
  await send([
    joined(0),
    closed(1),
    closed(2),
    requested(3, 'room-error'),
    requested(4, 'silence'),
    requested(5, 'silence'),
  ]);
  const stored = line('webhook stored');
  expect(stored).toMatchObject({
    ChecksStarted: 5,
    ChecksByClose: 2,
    ChecksByRoomError: 1,
    ChecksBySilence: 2,
    closed: ['muc1.host', 'muc2.host'],
  });
  expect(stored).not.toHaveProperty('ChecksByOperator');
  expect(stored?.['requested']).toEqual(
    [
      [3, 'room-error'],
      [4, 'silence'],
      [5, 'silence'],
    ].map(([n, cause]) => ({ remote: 'muc.host', room: `room${n}@muc.host`, cause })),
  );
  await send([requested(6, 'operator')]);
  expect(line('webhook stored')).toMatchObject({ ChecksStarted: 1, ChecksByOperator: 1 });
  expect(line('webhook stored')).not.toHaveProperty('closed');
  await send([joined(0)]);
  expect(Object.keys(line('webhook stored') ?? {}).filter((name) => name.startsWith('Checks'))).toEqual([
    'ChecksStarted',
  ]);
});

it('asks for the whole request again where the table fails in any other way', async () => {
  const { answer } = await send([joined(0), joined(1)], {
    record: ({ user }) =>
      user.endsWith('1') ? Promise.reject(new Error('down')) : Promise.reject(new RowRefusedError('no')),
  });
  expect(answer).toMatchObject({ statusCode: 503, headers: { 'retry-after': '5' } });
});

it.each<[string, World]>([
  ['the table', { record: ({ user }) => (user.endsWith('/0') ? Promise.resolve(true) : new Promise(() => undefined)) }],
  ['the secret', { keys: () => new Promise(() => undefined) }],
])('answers in time, and asks for the request again, while %s does not answer', async (_what, world) => {
  const began = Date.now();
  const { answer, body } = await send([joined(0), joined(1)], { ...world, milliseconds: 100 });
  expect(Date.now() - began).toBeLessThan(2000);
  expect(answer).toMatchObject({
    statusCode: 503,
    headers: { 'retry-after': '5', 'content-type': 'application/problem+json' },
  });
  expect(body).toMatchObject({ status: 503, detail: 'the events could not be stored; send them again' });
  expect(line('webhook not stored; the sender is asked to send it again')).toMatchObject({ error: 'OutOfTimeError' });
});

it('keeps what was stored when its time is over, and begins nothing more', async () => {
  const stored: string[] = [];
  const events = Array.from({ length: 200 }, (_, n) => joined(n));
  const { answer, started } = await send([...events, closed(200)], {
    record: async ({ user }) => {
      await new Promise((resolve) => setTimeout(resolve, 40));
      return stored.push(user) > 0;
    },
    milliseconds: 100,
  });
  expect(answer.statusCode).toBe(503);
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(stored.length).toBeGreaterThan(31);
  expect(stored.length).toBeLessThan(200);
  expect(started).toEqual([]);
  expect(line('webhook stored')).toBeUndefined();
});

describe('how long a report waited', () => {
  const late = (seconds: number, changes: object = {}): object => ({
    ...closed(seconds),
    at: (Math.floor(Date.now() / 1000) - seconds) * 1_000_000,
    ...changes,
  });

  it('is measured for the oldest accepted close, by the sender’s own clock', async () => {
    await send([late(20), late(3600), late(60)]);
    expect(Number(line('webhook stored')?.['ReportDelay'])).toBeGreaterThanOrEqual(3_600_000);
    expect(Number(line('webhook stored')?.['ReportDelay'])).toBeLessThan(3_610_000);
  });

  it('leaves out a close that is not accepted, and what is no close', async () => {
    const request = { type: 'check.requested', remote: 'muc.host', room: 'room@muc.host', cause: 'silence' };
    await send([late(7200, { delay: 'soon' }), late(3600), late(20), late(1800, request)], {
      recordClose: ({ remote }) =>
        remote === 'muc3600.host' ? Promise.reject(new RowRefusedError('no')) : Promise.resolve(),
    });
    expect(Number(line('webhook stored')?.['ReportDelay'])).toBeGreaterThanOrEqual(20_000);
    expect(Number(line('webhook stored')?.['ReportDelay'])).toBeLessThan(30_000);
    await send([joined(0), late(1800, request)]);
    expect(line('webhook stored')).not.toHaveProperty('ReportDelay');
  });

  it('is never below 0, although the sender’s timestamp is in whole seconds', async () => {
    await send([{ ...closed(0), at: Date.now() * 1000 + 900_000 }]);
    expect(line('webhook stored')).toMatchObject({ ReportDelay: 0 });
  });
});

describe('a heartbeat', () => {
  it('is heard once the events are stored, with the sender’s own timestamp', async () => {
    const heard: unknown[] = [];
    const hear: WebhookPorts['watch']['hear'] = ({ host, queue }, sent) => {
      heard.push([host, queue, Math.abs(sent - Date.now() / 1000) < 5, line('webhook stored')?.['events']]);
      return Promise.resolve();
    };
    const { body } = await send([joined(0)], { hear, queue: { length: 3, oldest: 60 } });
    expect(body).toEqual({ accepted: 1, rejected: [], version: CONTRACT_VERSION });
    expect(heard).toEqual([[HOST, { length: 3, oldest: 60 }, true, 1]]);
  });

  it('may have no events, and is asked for again if the table does not take it', async () => {
    expect((await send([], { queue: { length: 0, oldest: 0 } })).body).toMatchObject({ accepted: 0, rejected: [] });
    const hear = (): Promise<void> => Promise.reject(new Error('down'));
    expect((await send([], { hear, queue: { length: 0, oldest: 0 } })).answer.statusCode).toBe(503);
  });
});

it('refuses a body that is too large before it reads the secret', async () => {
  const keys = vi.fn(() => Promise.resolve(KEYS));
  const { answer } = await send([{ text: 'a'.repeat(262_144) }], { keys });
  expect(answer.statusCode).toBe(413);
  expect(keys).not.toHaveBeenCalled();
  expect(line('webhook refused')).toMatchObject({ status: 413, WebhooksMalformed: 1 });
});
