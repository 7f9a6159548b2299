import { fork } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { decodeSecret, sign, verify } from '../functions/core/signature.ts';
import { readWebhook } from '../functions/core/events.ts';
import { ENV } from '../functions/names.ts';
import { Lab } from '../lab/lab.ts';
import { post } from '../lab/requests.ts';
import { Runtime } from '../lab/runtime.ts';
import { Collection, type Findings, type Progress, REPETITIONS, type Sample, median, quantile } from './measure.ts';

/** The webhook function: by itself on one core, with a table in memory; and one request on the embedded database. */
const BATCHES = [1, 50, 1000];
/** Milliseconds of one repetition. */
const TURN_MS = 1000;
const REQUESTS = 500;

const events = (size: number): string => (size === 1 ? '1 event' : `${size.toLocaleString('en')} events`);
const alone = (size: number): string => `${events(size)} in a request, the function alone on one core`;
const REQUEST = 'a request, in all';

const SECRET = randomBytes(32);
const HOST = 'example.net';
let last = Date.now() * 1000;

function request(size: number): { headers: Record<string, string>; body: string } {
  const joined = Array.from({ length: size }, () => {
    const at = (last += 1);
    return {
      type: 'muc.joined',
      at,
      user: `user${at % 1_000_000}@${HOST}/phone`,
      room: `room${at % 1000}@muc.example.org`,
      nick: `nick ${at % 1000}`,
    };
  });
  const body = JSON.stringify({ host: HOST, events: joined });
  return {
    headers: {
      ...sign(
        [decodeSecret(SECRET.toString('base64'))],
        `msg_${randomUUID()}`,
        Math.floor(Date.now() / 1000),
        Buffer.from(body),
      ),
    },
    body,
  };
}

/** Units a second, over one turn. */
async function perSecond(units: number, act: () => unknown): Promise<number> {
  const began = performance.now();
  let done = 0;
  while (performance.now() - began < TURN_MS) {
    await act();
    done += units;
  }
  return done / ((performance.now() - began) / 1000);
}

/** Runs in a separate process, whose log lines are discarded. */
async function measureAlone(): Promise<readonly Sample[]> {
  Object.assign(process.env, {
    AWS_REGION: 'us-east-1',
    ...Object.fromEntries(Object.values(ENV).map((name) => [name, 'bench'])),
  });
  const { webhookHandler } = await import('../functions/webhook.ts');
  const keys = [decodeSecret(SECRET.toString('base64'))];
  const rows = new Map<string, number>();
  const handle = webhookHandler({
    table: {
      record: (event) => {
        rows.set(`${event.room}#${event.user}`, event.at);
        return Promise.resolve(true);
      },
      recordClose: () => Promise.resolve(),
    },
    watch: { hear: () => Promise.resolve() },
    workflow: { start: () => Promise.resolve(true) },
    secrets: { keys: () => Promise.resolve(keys), renewed: () => Promise.resolve(undefined) },
    hosts: new Set(),
  });
  const found = new Collection();
  for (const size of BATCHES) {
    const { headers, body } = request(size);
    const bytes = Buffer.from(body);
    const now = Date.now() / 1000;
    const of = async (act: () => unknown): Promise<readonly number[]> => {
      await perSecond(size, act); // warm-up
      const values: number[] = [];
      for (let turn = 0; turn < REPETITIONS; turn += 1) values.push(await perSecond(size, act));
      return values;
    };
    const microseconds = (rates: readonly number[]): readonly number[] => rates.map((rate) => (1e6 * size) / rate);
    const whole = await of(async () => {
      const { statusCode } = await handle(
        { headers, body, isBase64Encoded: false } as never,
        { awsRequestId: 'bench', getRemainingTimeInMillis: () => 25_000 } as never,
      );
      if (statusCode !== 200) throw new Error(`the webhook answered ${statusCode}`);
    });
    const all = microseconds(whole);
    const verifying = microseconds(await of(() => verify(keys, headers, bytes, now)));
    const parsing = microseconds(await of(() => readWebhook(body, now)));
    const rest = all.map((value) => value - median(verifying) - median(parsing));
    found.add(alone(size), 'events', '/s', ...whole);
    for (const [quantity, values] of [
      [REQUEST, all],
      ['to verify', verifying],
      ['to parse', parsing],
      ['to write, log and answer', rest],
    ] as const) {
      found.add(alone(size), quantity, 'µs', ...values);
    }
  }
  return found.all();
}

/** One request after the other, over HTTP, on the embedded database. */
async function measureOnOneMachine(found: Collection, progress: Progress): Promise<void> {
  const lab = await Lab.open();
  try {
    const runtime = await Runtime.start(lab);
    for (const [size, requests] of [
      [1, REQUESTS],
      [1000, REPETITIONS],
    ] as const) {
      const turns: number[][] = [];
      for (let turn = 1; turn <= REPETITIONS; turn += 1) {
        progress(`webhooks of ${size} on the embedded database, ${turn} of ${REPETITIONS}`);
        const times: number[] = [];
        for (let index = 0; index < requests; index += 1) {
          const { body } = request(size);
          const began = performance.now();
          const { status } = await post({ url: runtime.webhookUrl, secret: runtime.secret, body });
          times.push(performance.now() - began);
          if (status !== 200) throw new Error(`the webhook answered ${status}`);
        }
        turns.push(times);
      }
      const what = `${events(size)} in a request, over HTTP, on the embedded database`;
      found.add(
        what,
        'events',
        '/s',
        ...turns.map((times) => (size * requests) / (times.reduce((sum, time) => sum + time, 0) / 1000)),
      );
      found.add(what, 'p50 of a request', 'ms', ...turns.map((times) => quantile(times, 0.5)));
      if (size === 1) found.add(what, 'p99 of a request', 'ms', ...turns.map((times) => quantile(times, 0.99)));
    }
  } finally {
    await lab.close();
  }
}

export async function benchWebhook(progress: Progress): Promise<Findings> {
  progress('webhook function alone, on one core');
  const child = fork(fileURLToPath(import.meta.url), { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const [message] = (await Promise.race([
    once(child, 'message'),
    once(child, 'exit').then(([status]) => Promise.reject(new Error(`the measuring process ended: ${status}`))),
  ])) as [readonly Sample[]];
  await once(child, 'exit');
  const found = new Collection();
  for (const { what, quantity, unit, values } of message) found.add(what, quantity, unit, ...values);
  await measureOnOneMachine(found, progress);
  return {
    budgets: {},
    samples: found.all(),
    growth: [
      {
        title: 'A webhook',
        x: 'events in the request',
        y: 'microseconds',
        lines: [
          {
            name: 'on one core, table in memory',
            points: BATCHES.map((size) => [size, median(found.get(alone(size), REQUEST))] as const),
          },
        ],
      },
    ],
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const samples = await measureAlone();
  process.send?.(samples, () => process.disconnect());
}
