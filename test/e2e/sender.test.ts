import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import { Prosody } from '../../lab/prosody.ts';
import { ScriptedRooms } from '../../lab/scripted-rooms.ts';
import { StubAnswer } from '../../lab/recording-proxy.ts';
import type { User } from '../../lab/user.ts';

/** What an operator sees of the module's sender: Prosody's metrics, the module's status, the log. */
let testBed: ScriptedRooms;
let juliet: User;
let rooms = 0;

beforeAll(async () => {
  testBed = await ScriptedRooms.open({}, 1, { global: 'statistics = "internal"\nstatistics_interval = "manual"' });
  await Prosody.of(testBed.home).shell(`module:load("http_openmetrics", "${testBed.home.host}")`);
  juliet = await testBed.user('juliet');
});
afterEach(async () => {
  testBed.webhooks.interceptor = {};
  await testBed.webhooks.up();
  await until('the queue is empty', async () => (await metrics())['queue_length'] === 0, 20_000);
});
afterAll(() => testBed.close());

/** The module's metrics, by the last part of their names. */
async function metrics(): Promise<Readonly<Record<string, number>>> {
  const response = await fetch(`http://${testBed.home.host}:5280/metrics`);
  expect(response.status).toBe(200);
  const lines = (await response.text()).matchAll(
    /^prosody_mod_ping_muc_webhook__([a-z_]+?)(?:_total)?(?:\{[^}]*\})? ([0-9.e+-]+)$/gm,
  );
  return Object.fromEntries([...lines].map(([, name, value]) => [String(name), Number(value)]));
}

/** The number of answered webhooks, by status. */
async function answersByStatus(): Promise<Readonly<Record<string, number>>> {
  const text = await (await fetch(`http://${testBed.home.host}:5280/metrics`)).text();
  const lines = text.matchAll(/^prosody_mod_ping_muc_webhook__webhooks_total\{([^}]*)\} ([0-9.e+-]+)$/gm);
  return Object.fromEntries(
    [...lines].map(([, labels, value]) => [/status="(\d+)"/.exec(String(labels))?.[1] ?? '', Number(value)]),
  );
}

const status = async (): Promise<string> =>
  /status: (.*)/.exec(
    await Prosody.of(testBed.home).shell(`module:info("ping_muc_webhook", "${testBed.home.host}")`),
  )?.[1] ?? '';

/** Enters more rooms: each is an event. */
async function enter(count: number): Promise<void> {
  for (let index = 0; index < count; index += 1)
    await juliet.join(testBed.muc().room(`room-${(rooms += 1)}`), 'Juliet');
}

it('metrics: queue, age and last answer are right while the endpoint is down, and when it is up again', async () => {
  await enter(2);
  await testBed.waitForHistory(testBed.muc().room('room-2'), ['joined Juliet']);
  await until('the last answer is 200', async () => (await metrics())['last_answer'] === 200);
  expect(await metrics()).toMatchObject({ queue_length: 0, joins: 2, events_sent: 2 });

  await testBed.webhooks.down();
  const first = Date.now();
  await enter(3);
  await until('there is no answer', async () => (await metrics())['last_answer'] === 0);
  expect(await metrics()).toMatchObject({ queue_length: 3, joins: 5, events_sent: 2 });
  await sleep(1500);
  await enter(2);
  await until('all wait', async () => (await metrics())['queue_length'] === 5);
  const { oldest_event_age_seconds: age } = await metrics();
  const most = (Date.now() - first) / 1000;
  expect(age).toBeGreaterThan(1.5);
  expect(age).toBeLessThanOrEqual(most);

  await testBed.webhooks.up();
  await until('the queue is empty', async () => (await metrics())['queue_length'] === 0, 20_000);
  expect(await metrics()).toMatchObject({ last_answer: 200, oldest_event_age_seconds: 0, joins: 7, events_sent: 7 });
  const answers = await answersByStatus();
  expect(answers['200']).toBe(testBed.webhooks.requests.filter(({ status: code }) => code === 200).length);
  expect(answers['0']).toBeGreaterThanOrEqual(2);
  expect(await status()).toMatch(/^\[core\] Webhooks are accepted/);
});

it('a queue that is never emptied does not grow: newer events replace older ones of the same join', async () => {
  await testBed.webhooks.down();
  const room = testBed.muc().room('in-and-out');
  for (let turn = 0; turn < 20; turn += 1) {
    await juliet.join(room, `turn-${turn}`);
    await juliet.leave(room, `turn-${turn}`);
  }
  await sleep(300);
  expect((await metrics())['queue_length']).toBeLessThanOrEqual(2); // the event that is being sent, and the newest one
});

it('a join that fails alone stays before the close that came meanwhile', async () => {
  const { webhooks } = testBed;
  const reply = Promise.withResolvers<StubAnswer>();
  const accepted: string[] = [];
  let isSent = false;
  webhooks.interceptor = {
    before: (body) => {
      if (isSent || !body.includes('muc.joined')) return undefined;
      isSent = true;
      return reply.promise;
    },
    after: (body) => {
      for (const [, type = ''] of body.matchAll(/"type":"([^"]+)"/g)) accepted.push(type);
    },
  };
  await enter(1);
  await until('the join is sent', () => isSent);
  testBed.dropStreams();
  await until('the close waits behind it', async () => (await metrics())['queue_length'] === 2);
  reply.resolve(new StubAnswer(503));
  await until('both are accepted', () => accepted.length === 2, 20_000);
  expect(accepted).toEqual(['muc.joined', 's2s.closed']);
});

it('the log says once that the functions have another version of the contract', async () => {
  const warnings = async (): Promise<readonly string[]> =>
    (await testBed.home.log()).split('\n').filter((line) => line.includes('version 9.8.7 of the contract'));
  let answered = 0;
  testBed.webhooks.interceptor = {
    before: () => {
      answered += 1;
      return new StubAnswer(200, {}, '{"accepted":1,"rejected":[],"version":"9.8.7"}');
    },
  };
  for (const expected of [1, 2]) {
    await enter(1);
    await until(`${expected} webhooks are answered`, () => answered >= expected);
  }
  await until('a warning is logged', async () => (await warnings()).length > 0);
  expect(await warnings()).toEqual([expect.stringMatching(/warn.*this module has \d.*Upgrade the older of the two/)]);
});

describe('status and log say what to do', () => {
  it.each([
    [
      401,
      { detail: 'webhook-signature matches none' },
      /^\[error\] .*refuses our signature.*matches none.*Check that it knows the ping_muc_secret, and that the clocks/,
    ],
    [
      410,
      {},
      /^\[error\] .*removed \(410\).*Unload mod_ping_muc_webhook, or set a new ping_muc_webhook_url and reload it/,
    ],
    [500, {}, /^\[warn\] .*answers 500/],
  ])('at %d', async (code, problem, message) => {
    testBed.webhooks.interceptor.before = () =>
      new StubAnswer(code, { 'content-type': 'application/problem+json' }, JSON.stringify(problem));
    await enter(1);
    await until(`the last answer is ${code}`, async () => (await metrics())['last_answer'] === code);
    expect((await answersByStatus())[code]).toBeGreaterThan(0);
    expect(await status()).toMatch(message);
    const line = (await testBed.home.log()).split('\n').findLast((text) => /\t(error|warn)\t/.test(text)) ?? '';
    expect(`[${/\t(error|warn)\t/.exec(line)?.[1]}] ${line.split('\t').at(-1)}`).toMatch(message);
    testBed.webhooks.interceptor = {};
    await until('it is accepted again', async () => /accepted/.test(await status()), 20_000);
  });
});
