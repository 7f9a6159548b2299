import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DynamoDBClient, paginateScan } from '@aws-sdk/client-dynamodb';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import type { APIGatewayProxyStructuredResultV2 } from 'aws-lambda';
import fc from 'fast-check';
import { ENV } from '../functions/names.ts';
import { REGION, readAssembly } from '../local/assembly.ts';
import { startDynamoDB } from '../local/dynamodb.ts';
import { LocalFunction } from '../local/functions.ts';
import { type Endpoint, listen } from './endpoint.ts';
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

/**
 * Fuzzes the webhook: the bundle that a deployment uploads, invoked with API Gateway's events, over an embedded table
 * and a count of the executions that it starts. The expected answers are read from the contract's schemas.
 */
export interface WebhookResult {
  readonly inputs: number;
  readonly answers: Readonly<Record<string, number>>;
  readonly events: { readonly accepted: number; readonly rejected: number };
  /** Rows and executions in the end. All belong to events that are valid by the contract's schema. */
  readonly rows: number;
  readonly executions: number;
  readonly slowest: { readonly name: string; readonly milliseconds: number };
  /** Its heap after a full garbage collection, in megabytes: after a quarter of the inputs, and after all. */
  readonly heldMb: { readonly early: number; readonly end: number };
  readonly violations: readonly Violation[];
}

const HOST = 'example.net';
const AT_ONCE = 16;
/** No bad input may keep the function busy for longer. */
const MAX_MS = 100;

const FIELDS = [
  'type',
  'at',
  'user',
  'room',
  'nick',
  'remote',
  'direction',
  'reason',
  'delay',
  'timeout',
  'patience',
  'dry_run',
  'notice_limit',
  'notice_share',
];
const REJECTED = new RegExp(`^(?:must be an object with type|(?:${FIELDS.join('|')}): )`);
const DETAILS: Readonly<Record<number, RegExp>> = {
  400: /^(?:the body must be|host: |events: )/,
  401: /webhook-(?:id|timestamp|signature)/,
  413: /^the body may take 262144 bytes, got \d+$/,
};

interface Input {
  readonly body: Buffer;
  readonly signing: Signing;
  readonly strange: readonly [id: string, timestamp: string, signature: string];
  /** API Gateway passes binary bodies in base64. */
  readonly base64: boolean;
}

const now = Date.now();
const AT = Math.floor(now / 1000) * 1_000_000;

/** A field as text, so that a name may occur twice, and a value may be invalid JSON. */
type Field = readonly [name: string, json: string];

const fields = (event: object): readonly Field[] =>
  Object.entries(event).map(([name, value]) => [name, JSON.stringify(value)]);
const user = `user@${HOST}/phone`;
const EVENTS: readonly (readonly Field[])[] = [
  fields({ type: 'muc.joined', at: AT, user, room: 'room@muc.host', nick: 'nickname' }),
  fields({ type: 'muc.left', at: AT + 1, user, room: 'room@muc.host' }),
  fields({
    type: 's2s.closed',
    at: AT + 2,
    remote: 'muc.host',
    direction: 'outgoing',
    reason: 'gone',
    delay: 60,
    timeout: 60,
    patience: 0,
    dry_run: false,
    notice_limit: 100,
    notice_share: 0.5,
  }),
];

const nested = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth);
const NAMED_JSON = [
  'null',
  'true',
  'false',
  '0',
  '-0',
  '-1',
  '1',
  '0.5',
  '1e400',
  '-1e400',
  '1e-400',
  '1e15',
  '86400',
  '86401',
  '301',
  String(AT),
  `${AT}.5`,
  String(AT + 400_000_000),
  '9007199254740991',
  '9007199254740993',
  '1'.repeat(400),
  '{}',
  '[]',
  '[[]]',
  '{"__proto__":{"type":"muc.joined"}}',
  '{"length":3}',
  '{"toString":1}',
  '["muc.joined"]',
  nested(50),
  nested(5000),
  '{"a":'.repeat(500) + '1' + '}'.repeat(500),
  '',
  'undefined',
  'NaN',
  'Infinity',
  '0x10',
  '010',
  '+1',
  "'a'",
  '"\\u12"',
  '"\\x41"',
  '"a\nb"',
  '"a',
  '{"a":1,}',
  '[1,]',
  '/*a*/1',
  '"\\ud800"',
  '"\\u0000"',
  '"muc.joined"',
  '"muc.left"',
  '"s2s.closed"',
  '"MUC.joined"',
  '"incoming"',
  '"User@EXAMPLE.net/Phone"',
  '"room@muc.host/x"',
  '"Room@MUC.host"',
  `"room@${HOST}"`,
  `"${HOST}"`,
  '"MUC.HOST"',
  '"a@b/c"',
];
const json: fc.Arbitrary<string> = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...NAMED_JSON) },
  { weight: 4, arbitrary: strangeText.map((text) => JSON.stringify(text)) },
  { weight: 1, arbitrary: fc.json({ maxDepth: 3 }) },
);
const fieldName: fc.Arbitrary<string> = fc.oneof(
  fc.constantFrom(...FIELDS, 'host', 'events', '__proto__'),
  strangeText,
);

/** One fault in an event: a wrong value or name, or a field that is missing, unknown, or repeated. */
const fault: fc.Arbitrary<(event: readonly Field[]) => readonly Field[]> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.tuple(fc.nat({ max: 20 }), json).map(
      ([at, value]) =>
        (event: readonly Field[]) =>
          event.map(([name, old], index): Field => [name, index === at % event.length ? value : old]),
    ),
  },
  {
    weight: 1,
    arbitrary: fc
      .nat({ max: 20 })
      .map((at) => (event: readonly Field[]) => event.filter((_, index) => index !== at % event.length)),
  },
  {
    weight: 1,
    arbitrary: fc.tuple(fc.nat({ max: 20 }), fieldName).map(
      ([at, renamed]) =>
        (event: readonly Field[]) =>
          event.map(([name, value], index): Field => [index === at % event.length ? renamed : name, value]),
    ),
  },
  {
    weight: 2,
    arbitrary: fc
      .tuple(fieldName, json)
      .map(([name, value]) => (event: readonly Field[]): readonly Field[] => [...event, [name, value]]),
  },
);

const object = (event: readonly Field[]): string =>
  `{${event.map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(',')}}`;
const event: fc.Arbitrary<string> = fc.oneof(
  {
    weight: 9,
    arbitrary: fc
      .tuple(fc.constantFrom(...EVENTS), fc.array(fault, { minLength: 1, maxLength: 3 }))
      .map(([good, faults]) => object(faults.reduce((bad, wrong) => wrong(bad), good))),
  },
  { weight: 1, arbitrary: json },
);
const list: fc.Arbitrary<string> = fc.oneof(
  { weight: 30, arbitrary: fc.array(event, { maxLength: 4 }).map((events) => `[${events.join(',')}]`) },
  { weight: 3, arbitrary: json },
  {
    weight: 1,
    arbitrary: fc
      .tuple(event, fc.constantFrom(999, 1000, 1001))
      .map(([one, times]) => `[${Array(times).fill(one).join(',')}]`),
  },
);
const request: fc.Arbitrary<string> = fc
  .tuple(
    fc.oneof({ weight: 9, arbitrary: fc.constant(JSON.stringify(HOST)) }, { weight: 1, arbitrary: json }),
    list,
    fc.array(fc.tuple(fc.oneof(fieldName, fc.constant('queue')), json), { maxLength: 1 }),
  )
  .map(([host, events, more]) => object([['host', host], ['events', events], ...more]));

const SAMPLES = ['joined', 'left', 'closed', 'heartbeat', 'batch'].map((name) =>
  readFileSync(new URL(`../protocol/samples/webhook-${name}.json`, import.meta.url), 'utf8').replaceAll(
    /1795355\d{9}/g,
    (at) => String(AT + Number(at.slice(-3))),
  ),
);
const TOKENS = [
  '{',
  '}',
  '[',
  ']',
  ':',
  ',',
  '"',
  '\\',
  '\\u0000',
  '\\ud800',
  'null',
  '0',
  '-',
  'e9',
  '.',
  '"__proto__":',
  '"host":',
  '"events":',
  '\u0000',
  '\n',
  '/*',
  '\ufeff',
];

const input: fc.Arbitrary<Input> = fc.record({
  body: fc.oneof(
    { weight: 3, arbitrary: request.map((text) => Buffer.from(text)) },
    { weight: 2, arbitrary: mangled(SAMPLES, TOKENS) },
  ),
  signing,
  strange: fc.tuple(strangeText, strangeText, strangeText),
  base64: fc.boolean(),
});

const whole = (events: string): string => `{"host":"${HOST}","events":${events}}`;
/** Bodies that are meant to do harm. */
const SEEDS: Readonly<Record<string, string | Buffer>> = {
  'nothing at all': '',
  NUL: '\u0000',
  'white space without end': ' '.repeat(262_144),
  'one byte too many': ' '.repeat(262_145),
  'ten megabytes': Buffer.alloc(10_000_000, '['),
  'lists in lists': whole(nested(130_000)),
  'lists in lists that never end': '['.repeat(262_144),
  'objects in objects': whole(`[${'{"a":'.repeat(40_000)}1${'}'.repeat(40_000)}]`),
  'a number without end': whole(`[{"at":${'9'.repeat(260_000)}}]`),
  'a text without end': whole(`[{"type":"${'x'.repeat(260_000)}"}]`),
  'a nick without end': whole(`[${object([...(EVENTS[0] ?? []), ['nick', `"${'x'.repeat(260_000)}"`]])}]`),
  'a user of slashes and ats': whole(`[${object([...(EVENTS[0] ?? []), ['user', `"${'@/'.repeat(1500)}"`]])}]`),
  'a million nothings': `{"host":"${HOST}","events":[${'0,'.repeat(130_000)}0]}`,
  'a thousand nothings': whole(`[${Array(1000).fill('{}').join(',')}]`),
  'a thousand rooms that are none': whole(
    `[${Array(1000)
      .fill(object([...(EVENTS[1] ?? []), ['room', '"@@"']]))
      .join(',')}]`,
  ),
  'fields without end': whole(`[{${Array.from({ length: 20_000 }, (_, n) => `"f${n}":0`).join(',')}}]`),
  'one field for ever': whole(`[{${Array(20_000).fill('"type":0').join(',')}}]`),
  'a prototype': '{"__proto__":{"host":"example.net","events":[]}}',
  'a prototype of an event': whole('[{"__proto__":{"type":"muc.joined"}},{"constructor":{"prototype":{}}}]'),
  'UTF-16': Buffer.from(`\ufeff${whole('[]')}`, 'utf16le'),
  'a byte order mark': `\ufeff${whole('[]')}`,
  'bytes that are no UTF-8': Buffer.concat([
    Buffer.from(
      `{"host":"${HOST}","events":[{"type":"muc.joined","at":${AT},"user":"${user}","room":"room@muc.host","nick":"`,
    ),
    Buffer.from('c328', 'hex'),
    Buffer.from('"}]}'),
  ]),
  'half a surrogate in UTF-8': Buffer.concat([
    Buffer.from(
      `{"host":"${HOST}","events":[{"type":"muc.joined","at":${AT},"user":"${user}","room":"room@muc.host","nick":"`,
    ),
    Buffer.from('eda080', 'hex'),
    Buffer.from('"}]}'),
  ]),
};

const lower = (address: string): string => {
  const [bare = '', ...resource] = address.split('/');
  return [bare.replace(/[A-Z]/g, (letter) => letter.toLowerCase()), ...resource].join('/');
};

/** Checks answers by the contract's schemas, and keeps which rows and executions are expected. */
class Oracle {
  readonly rows = new Set<string>();
  readonly executions = new Set<string>();
  readonly events = { accepted: 0, rejected: 0 };
  readonly #request: ValidateFunction;
  readonly #answer: ValidateFunction;
  readonly #problem: ValidateFunction;

  constructor() {
    const ajv = new Ajv2020();
    const schema = (name: string): ValidateFunction =>
      ajv.compile(
        JSON.parse(readFileSync(new URL(`../protocol/${name}.schema.json`, import.meta.url), 'utf8')) as object,
      );
    [this.#request, this.#answer, this.#problem] = [schema('webhook'), schema('webhook-answer'), schema('problem')];
  }

  /** Returns what is wrong with an answer, or undefined. */
  judge(
    given: Input,
    { statusCode = 0, headers = {}, body = '' }: APIGatewayProxyStructuredResultV2,
  ): string | undefined {
    const answer: unknown = JSON.parse(body);
    const details = DETAILS[statusCode];
    if (given.signing !== 'right' && statusCode !== 401 && given.body.length <= 262_144)
      return `answered ${statusCode} to what is not signed`;
    if (details !== undefined) {
      if (!this.#problem(answer) || headers['content-type'] !== 'application/problem+json')
        return `not a problem document: ${body}`;
      const { detail, status } = answer as { detail: string; status: number };
      return details.test(detail) && status === statusCode ? undefined : `the problem names no field: ${body}`;
    }
    if (statusCode !== 200) return `answered ${statusCode}: ${body}`;
    return this.#answer(answer)
      ? this.#judgeEvents(given.body, answer as { accepted: number; rejected: { index: number; error: string }[] })
      : `not an answer by the schema: ${body}`;
  }

  #judgeEvents(
    body: Buffer,
    { accepted, rejected }: { accepted: number; rejected: { index: number; error: string }[] },
  ): string | undefined {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(body); // other encodings must have been refused
    const { host, events } = JSON.parse(text) as { host: string; events: Record<string, unknown>[] };
    this.events.accepted += accepted;
    this.events.rejected += rejected.length;
    if (accepted + rejected.length !== events.length)
      return `${events.length} events, but ${accepted} accepted and ${rejected.length} rejected`;
    const vague = rejected.find(({ error }) => !REJECTED.test(error));
    if (vague !== undefined) return `the error names no field: ${vague.error}`;
    const refused = new Set(rejected.map(({ index }) => index));
    const closes = new Map<string, number>();
    for (const [index, taken] of events.entries()) {
      if (refused.has(index)) continue;
      const { reason: _reason, ...rest } = taken; // longer reasons than in the schema are accepted
      if (!this.#request({ host, events: [rest] }))
        return `event ${index} is accepted, but: ${JSON.stringify(this.#request.errors?.at(-1))}`;
      const {
        type,
        at,
        user: whose,
        room,
        remote,
      } = taken as { type: string; at: number; user: string; room: string; remote: string };
      if (type === 's2s.closed') closes.set(lower(remote), Math.max(at, closes.get(lower(remote)) ?? 0));
      else this.rows.add(`JOIN#${lower(host)}#${lower(room).split('@')[1]} ${lower(room)}#${lower(whose)}`);
    }
    for (const [remote, at] of closes) {
      this.rows.add(`CLOSE#${lower(host)}#${remote} close`);
      this.executions.add(`${lower(host)} ${remote} ${at}`);
    }
    return undefined;
  }
}

/** Secrets Manager and Step Functions, as far as the function needs them. */
async function startServices(started: Set<string>): Promise<Endpoint> {
  return listen(({ headers: { 'x-amz-target': target }, body }, response) => {
    const start = JSON.parse(body.toString()) as { input?: string };
    if (target === 'AWSStepFunctions.StartExecution') {
      const { host, remote, at } = JSON.parse(start.input ?? '') as { host: string; remote: string; at: number };
      started.add(`${host} ${remote} ${at}`);
    }
    const secret = JSON.stringify({ current: SECRET.toString('base64'), previous: '' });
    response
      .writeHead(200, { 'content-type': 'application/x-amz-json-1.0' })
      .end(JSON.stringify({ ARN: 'arn', Name: 'name', SecretString: secret, executionArn: 'arn', startDate: 1 }));
  });
}

const difference = (one: ReadonlySet<string>, other: ReadonlySet<string>): string =>
  [...one]
    .filter((key) => !other.has(key))
    .slice(0, 3)
    .join(', ');

/** For violations that belong to no single input. */
const NO_INPUT = Buffer.alloc(0);
const CREDENTIALS = { accessKeyId: 'fuzz', secretAccessKey: 'fuzz' };

/** The webhook function of a stack, with what it needs of AWS, and what has been observed of it. */
class WebhookFuzzer {
  readonly tally = new Tally();
  readonly oracle = new Oracle();
  /** The executions that it has started. */
  readonly started = new Set<string>();
  /** Its heap after the last full garbage collection, in megabytes. */
  heldMb = 0;
  deaths = 0;
  #function: LocalFunction | undefined;
  /** What is to be closed in the end, in this order. */
  readonly #closers: (() => unknown)[] = [];
  #rows: () => Promise<ReadonlySet<string>> = () => Promise.resolve(new Set());

  async start(assembly: string): Promise<void> {
    const { tables, functions, secrets } = await readAssembly(assembly);
    const definition = functions.find(({ environment }) => ENV.stateMachineArn in environment);
    const table = tables[0];
    if (definition === undefined || table === undefined || secrets[0] === undefined)
      throw new Error('the stack has no webhook function');
    const directory = await mkdtemp(join(tmpdir(), 'ping-muc-fuzz-'));
    this.#closers.unshift(() => rm(directory, { recursive: true, force: true }));
    const database = await startDynamoDB(directory, tables);
    this.#closers.unshift(() => database.close());
    const services = await startServices(this.started);
    this.#closers.unshift(() => services.close());
    const environment = {
      AWS_REGION: REGION,
      AWS_ACCESS_KEY_ID: CREDENTIALS.accessKeyId,
      AWS_SECRET_ACCESS_KEY: CREDENTIALS.secretAccessKey,
      AWS_ENDPOINT_URL_DYNAMODB: database.endpoint,
      AWS_ENDPOINT_URL_SFN: services.url,
      AWS_ENDPOINT_URL_SECRETS_MANAGER: services.url,
    };
    const webhook = new LocalFunction(definition, environment, (line) => this.#readLog(line));
    this.#function = webhook;
    this.#closers.unshift(() => webhook.close());
    const client = new DynamoDBClient({ endpoint: database.endpoint, region: REGION, credentials: CREDENTIALS });
    this.#closers.unshift(() => client.destroy());
    this.#rows = async () => {
      const rows = new Set<string>();
      for await (const page of paginateScan({ client }, { TableName: table.name })) {
        const ofEvents = (page.Items ?? []).filter(({ pk }) => pk?.S !== 'HOST'); // a heartbeat is no event
        for (const { pk, sk } of ofEvents) rows.add(`${pk?.S} ${sk?.S}`);
      }
      return rows;
    };
  }

  async send(given: Input, name: string): Promise<void> {
    const { body, base64 } = given;
    const text = base64 ? body.toString('base64') : body.toString();
    const sent = { ...given, body: base64 ? body : Buffer.from(text) };
    try {
      const event = { version: '2.0', headers: signedHeaders(sent, 'msg_fuzz'), body: text, isBase64Encoded: base64 };
      const answer = (await this.#function?.invoke(event)) as APIGatewayProxyStructuredResultV2;
      this.tally.count(String(answer.statusCode));
      const wrong = this.oracle.judge(sent, answer);
      if (wrong !== undefined) this.tally.violate(name, wrong, body);
    } catch (error) {
      this.tally.count('no answer');
      this.tally.violate(name, String(error), body);
    }
  }

  /** Sends each seed up to five times, and returns the one that took longest. */
  async sendSeeds(): Promise<WebhookResult['slowest']> {
    const slowest = { name: '', milliseconds: 0 };
    for (const [name, body] of Object.entries(SEEDS)) {
      const given: Input = { body: Buffer.from(body), signing: 'right', strange: ['', '', ''], base64: true };
      const took: number[] = [];
      for (let turn = 0; turn < 5 && (turn === 0 || Math.min(...took) > MAX_MS / 4); turn += 1) {
        const began = performance.now();
        await this.send(given, name);
        took.push(performance.now() - began);
      }
      const milliseconds = Math.min(...took); // other load can only make it longer
      if (milliseconds > slowest.milliseconds) Object.assign(slowest, { name, milliseconds });
      if (milliseconds > MAX_MS) this.tally.violate(name, `took ${milliseconds.toFixed(0)} ms, five times`, given.body);
    }
    return slowest;
  }

  /** Compares rows and executions with those of the accepted events. Returns the number of rows. */
  async checkState(): Promise<number> {
    const rows = await this.#rows();
    for (const [what, found, expected] of [
      ['row', rows, this.oracle.rows],
      ['execution', this.started, this.oracle.executions],
    ] as const) {
      if (difference(found, expected) !== '')
        this.tally.violate('all', `a ${what} of what was not accepted: ${difference(found, expected)}`, NO_INPUT);
      if (difference(expected, found) !== '')
        this.tally.violate('all', `no ${what} of what was accepted: ${difference(expected, found)}`, NO_INPUT);
    }
    if (this.deaths > 0) this.tally.violate('all', `the function died ${this.deaths} times`, NO_INPUT);
    return rows.size;
  }

  async close(): Promise<void> {
    for (const close of this.#closers) await close();
  }

  #readLog(line: string): void {
    if (line.includes('"function died"')) this.deaths += 1;
    const held = /"heldMb":(\d+)/.exec(line)?.[1];
    if (held !== undefined) this.heldMb = Number(held);
    if (line.includes(SECRET.toString('base64')))
      this.tally.violate('any', 'the secret is in the log', Buffer.from(line));
  }
}

/** @param assembly the output of `cdk synth` */
export async function fuzzWebhook(assembly: string, options: FuzzOptions): Promise<WebhookResult> {
  const { inputs, seed, progress } = options;
  const fuzzer = new WebhookFuzzer();
  const { tally, oracle, started } = fuzzer;
  const send = (given: Input, name: string): Promise<void> => fuzzer.send(given, name);
  try {
    await fuzzer.start(assembly);
    const slowest = await fuzzer.sendSeeds();
    const quarter = Math.ceil(inputs / 4);
    const first = { inputs: quarter, seed, progress: (step: string) => progress?.(`first quarter: ${step}`) };
    await fuzz(input, first, tally, AT_ONCE, send);
    const early = fuzzer.heldMb;
    await fuzz(input, { ...options, inputs: inputs - quarter, seed: seed + 1_000_000 }, tally, AT_ONCE, send);
    const rows = await fuzzer.checkState();
    return {
      inputs: Object.values(tally.counts).reduce((sum, count) => sum + count, 0),
      answers: tally.counts,
      events: oracle.events,
      rows,
      executions: started.size,
      slowest,
      heldMb: { early, end: fuzzer.heldMb },
      violations: tally.violations,
    };
  } finally {
    await fuzzer.close();
  }
}
