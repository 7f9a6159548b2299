import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Resource, readResources, synthesize } from '../local/assembly.ts';
import type { Counts } from '../bench/counted-stack.ts';
import { HEARTBEAT, SAMPLE, SILENT_ROOM, countCosts } from '../bench/counts.ts';

/** Counts what AWS would bill, and writes docs/cost.md. */

/** When the pages below were read. */
const PRICES_READ = '2026-11-22';
/** US dollars, us-east-1, list prices without free tiers. */
const PRICES = {
  'HTTP API, a million requests of up to 512 KB': 1,
  'Lambda, a million invocations': 0.2,
  'Lambda arm64, a GB-second': 0.0000133334,
  'DynamoDB on demand, a million write units': 0.625,
  'DynamoDB on demand, a million read units': 0.125,
  'Step Functions Standard, a thousand transitions': 0.025,
  'CloudWatch Logs, a GB taken in': 0.5,
  'Secrets Manager, a secret and month': 0.4,
  'CloudWatch, a custom metric and month': 0.3,
  'CloudWatch, a metric of an alarm and month': 0.1,
  'CloudWatch, a composite alarm and month': 0.5,
  'CloudWatch, a dashboard and month': 3,
  'KMS, a key and month': 1,
} as const;
const SOURCES = [
  'https://aws.amazon.com/api-gateway/pricing/',
  'https://aws.amazon.com/lambda/pricing/',
  'https://aws.amazon.com/dynamodb/pricing/on-demand/',
  'https://aws.amazon.com/step-functions/pricing/',
  'https://aws.amazon.com/cloudwatch/pricing/',
  'https://aws.amazon.com/secrets-manager/pricing/',
  'https://aws.amazon.com/kms/pricing/',
];

/** Assumed days. Joins last a day on average, so each is renewed once. */
const DAYS = [
  { joins: 100, checks: 5, joinsPerCheck: 5, eventsPerRequest: 1 },
  { joins: 10_000, checks: 50, joinsPerCheck: 100, eventsPerRequest: 1 },
  { joins: 1_000_000, checks: 500, joinsPerCheck: 2000, eventsPerRequest: 3 },
] as const;
/** Joins on a server, and how many of its users are in each room, for a server whose rooms are always silent. */
const SILENT_JOINS = 10_000;
const SILENT_ROOMS = [1, 10, 100];
/** With the default of `ping_muc_silence`. */
const CHECKS_A_DAY = 4;
/** Hosts in the table of heartbeats, and how often each sends one: the default of `ping_muc_heartbeat`. */
const HOSTS = [1, 100, 1000];
const HEARTBEATS_A_DAY = 288;
/** One instance of the webhook function reads the heartbeats of all hosts once a minute: 4 KB a unit, 100 bytes a host. */
const READS_A_DAY = 1440;
const hostReadUnits = (hosts: number): number => Math.ceil((hosts * 100) / 4096);
/** The share of joins that a check finds lost. */
const LOST_SHARE = 0.1;
const DAYS_PER_MONTH = 30.4;
/** What a day of requests at the API's limit of 50 a second costs, and how often a body of 10 MB is billed. */
const FLOOD = {
  api: ((50 * 86_400) / 1e6) * PRICES['HTTP API, a million requests of up to 512 KB'],
  invocations: ((50 * 86_400) / 1e6) * PRICES['Lambda, a million invocations'],
  parts: (10 * 1024) / 512,
} as const;

const NAMES: readonly (keyof Counts)[] = [
  'requests',
  'writeUnits',
  'readUnits',
  'transitions',
  'invocations',
  'functionMs',
  'logBytes',
];

function combine(parts: readonly (readonly [number, Counts])[]): Counts {
  return Object.fromEntries(
    NAMES.map((name) => [name, parts.reduce((sum, [times, counts]) => sum + times * counts[name], 0)]),
  ) as unknown as Counts;
}

function day(
  counted: Record<string, Counts>,
  { joins, checks, joinsPerCheck, eventsPerRequest }: (typeof DAYS)[number],
): Counts {
  const get = (name: string): Counts => counted[name] as Counts;
  const requestOverhead: Counts = combine([
    [1, get('a join, alone in its request')],
    [-1 / SAMPLE, get(`${SAMPLE} joins in one request`)],
  ]);
  const event: Counts = combine([[1 / SAMPLE, get(`${SAMPLE} joins in one request`)]]);
  const events = 3 * joins; // join, renewal, leave
  const empty = get('a close and a check that finds nobody');
  const perJoin = (answers: string): Counts =>
    combine([
      [1 / SAMPLE, get(`a close and a check of ${SAMPLE}, all ${answers}`)],
      [-1 / SAMPLE, empty],
    ]);
  return combine([
    [events, event],
    [events / eventsPerRequest, requestOverhead],
    [checks, empty],
    [checks * joinsPerCheck * (1 - LOST_SHARE), perJoin('joined')],
    [checks * joinsPerCheck * LOST_SHARE, perJoin('left')],
  ]);
}

/** What a day costs if each room is checked as often as possible. Larger rooms have more joins to read and ping. */
function silentDay(counted: Record<string, Counts>, roomSize: number): Counts {
  const perJoin = combine([
    [1 / SAMPLE, counted[`a close and a check of ${SAMPLE}, all joined`] as Counts],
    [-1 / SAMPLE, counted['a close and a check that finds nobody'] as Counts],
  ]);
  const checks = (CHECKS_A_DAY * SILENT_JOINS) / roomSize;
  return combine([
    [checks, counted[SILENT_ROOM] as Counts],
    [checks * (roomSize - 10), perJoin],
  ]);
}

/** What a day of heartbeats costs, if no webhook carries one with its events. */
function heartbeatDay(counted: Record<string, Counts>, hosts: number): Counts {
  const beats = combine([[hosts * HEARTBEATS_A_DAY, counted[HEARTBEAT] as Counts]]);
  return { ...beats, readUnits: Math.min(beats.requests, READS_A_DAY) * hostReadUnits(hosts) };
}

interface Fixed {
  readonly memoryGb: number;
  readonly metrics: number;
  /** Metrics of alarms: an alarm on an expression is billed for each metric in it. */
  readonly alarmMetrics: number;
  readonly compositeAlarms: number;
  readonly keys: number;
}

function dollars(counts: Counts, { memoryGb }: Fixed): Record<string, number> {
  return {
    'HTTP API': (counts.requests / 1e6) * PRICES['HTTP API, a million requests of up to 512 KB'],
    Lambda:
      (counts.invocations / 1e6) * PRICES['Lambda, a million invocations'] +
      (counts.functionMs / 1000) * memoryGb * PRICES['Lambda arm64, a GB-second'],
    DynamoDB:
      (counts.writeUnits / 1e6) * PRICES['DynamoDB on demand, a million write units'] +
      (counts.readUnits / 1e6) * PRICES['DynamoDB on demand, a million read units'],
    'Step Functions': (counts.transitions / 1000) * PRICES['Step Functions Standard, a thousand transitions'],
    Logs: (counts.logBytes / 1e9) * PRICES['CloudWatch Logs, a GB taken in'],
  };
}

const round = (value: number): string =>
  value === 0
    ? '0'
    : value < 0.01
      ? '< 0.01'
      : value.toLocaleString('en', { maximumFractionDigits: value < 10 ? 2 : 0 });
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map((_, index) => (index === 0 ? '---' : '---:')), ...rows]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n');

const UNIT_COLUMNS = ['requests', 'write units', 'read units', 'transitions', 'invocations'];

function dailyTable(counted: Record<string, Counts>, { memoryGb }: Fixed): string {
  const rows = DAYS.map((one) => {
    const counts = day(counted, one);
    return [
      one.joins.toLocaleString('en'),
      ...NAMES.slice(0, 5).map((key) => round(counts[key])),
      round((counts.functionMs / 1000) * memoryGb),
    ];
  });
  return table(['joins a day', ...UNIT_COLUMNS, 'GB-seconds'], rows);
}

function monthlyTable(counted: Record<string, Counts>, fixed: Fixed): string {
  const fixedDollars =
    PRICES['Secrets Manager, a secret and month'] +
    fixed.metrics * PRICES['CloudWatch, a custom metric and month'] +
    fixed.alarmMetrics * PRICES['CloudWatch, a metric of an alarm and month'] +
    fixed.compositeAlarms * PRICES['CloudWatch, a composite alarm and month'] +
    PRICES['CloudWatch, a dashboard and month'] +
    fixed.keys * PRICES['KMS, a key and month'];
  const days = DAYS.map((one) => ({ one, each: dollars(day(counted, one), fixed) }));
  const kinds = Object.keys(days[0]?.each ?? {});
  const rows = days.map(({ one, each }) => {
    const sum = Object.values(each).reduce((total, value) => total + value * DAYS_PER_MONTH, 0);
    return [
      one.joins.toLocaleString('en'),
      ...kinds.map((kind) => round((each[kind] ?? 0) * DAYS_PER_MONTH)),
      round(fixedDollars),
      round(sum + fixedDollars),
    ];
  });
  return table(['joins a day', ...kinds, 'fixed', 'sum'], rows);
}

function silentTable(counted: Record<string, Counts>, fixed: Fixed): string {
  const rows = SILENT_ROOMS.map((roomSize) => {
    const sum = Object.values(dollars(silentDay(counted, roomSize), fixed)).reduce((total, value) => total + value, 0);
    const [checks, pings] = [(CHECKS_A_DAY * SILENT_JOINS) / roomSize, CHECKS_A_DAY * SILENT_JOINS];
    return [
      String(roomSize),
      checks.toLocaleString('en'),
      pings.toLocaleString('en'),
      round(sum),
      round(sum * DAYS_PER_MONTH),
    ];
  });
  return table(['users of the server in a room', 'checks a day', 'pings a day', 'US dollars a day', 'a month'], rows);
}

function heartbeatTable(counted: Record<string, Counts>, fixed: Fixed): string {
  const rows = HOSTS.map((hosts) => {
    const counts = heartbeatDay(counted, hosts);
    const sum = Object.values(dollars(counts, fixed)).reduce((total, value) => total + value, 0);
    return [
      hosts.toLocaleString('en'),
      round(counts.requests),
      round(counts.writeUnits),
      round(counts.readUnits),
      round(sum * DAYS_PER_MONTH),
    ];
  });
  return table(['hosts', 'requests a day', 'write units', 'read units', 'US dollars a month'], rows);
}

const assumption = ({ joins, checks, joinsPerCheck }: (typeof DAYS)[number]): string =>
  `- At ${joins.toLocaleString('en')} joins a day, there are ${checks} checks of ` +
  `${joinsPerCheck.toLocaleString('en')} joins each.`;

function document(counted: Record<string, Counts>, fixed: Fixed): string {
  const units = Object.entries(counted).map(([name, counts]) => [name, ...NAMES.map((key) => round(counts[key]))]);
  const prices = Object.entries(PRICES).map(([name, price]) => [name, String(price)]);
  return `# What it costs

\`npm run cost\` writes this page. It runs the stack's own bundles on one machine and counts what AWS would bill. Do
not edit the page.

## Counted

${table(['what happens', ...UNIT_COLUMNS, 'function ms', 'log bytes'], units)}

A join costs one write unit, the least that a stored item can cost. A close of a connection to a host on which no user
is in a room is not reported, and costs nothing. Milliseconds were measured on the machine that ran the count: for
functions with ${fixed.memoryGb * 1024} MB, take them as an order of magnitude.

## A day

Assumptions:

- Each join lasts a day, and so is recorded, renewed and left once.
${DAYS.map(assumption).join('\n')}
- A check finds one join in ten lost.
- Each request has one event. At a million joins a day it has three, because several events occur within the 0.1 s for
  which the module gathers them.

${dailyTable(counted, fixed)}

## Silent rooms

The table shows what \`ping_muc_silence\` costs at most, at ${SILENT_JOINS.toLocaleString('en')} joins: no room sends
anything all day, and each room is checked every six hours. A room that sends something to every session within six
hours costs nothing. With twelve hours the cost is half of this, with 0 there is none. Each check is counted as if it
were alone in its request.

${silentTable(counted, fixed)}

## Heartbeats

Each host sends a heartbeat every five minutes (\`ping_muc_heartbeat\`), each at one write unit. The table shows the
cost if no other webhook is sent that could carry it. Once a minute the last heartbeats of all hosts are read, at one
read unit for some 40 hosts and each instance of the webhook function.

${heartbeatTable(counted, fixed)}

## A month, in US dollars

${monthlyTable(counted, fixed)}

Fixed: one secret, ${fixed.metrics} custom metrics, alarms on ${fixed.alarmMetrics} metrics,
${fixed.compositeAlarms} composite alarms, one dashboard, ${fixed.keys} key (alarms are sent through an encrypted
topic). An alarm on an expression is billed for each metric in it. A custom metric is billed only for the hours in
which it has data, so this is the most that they can cost: failures that do not occur cost nothing.

The prices are without any free tier. With the permanent free tiers of CloudWatch (10 metrics, 10 metrics of alarms, 3
dashboards) and Lambda (a million invocations, 400,000 GB-seconds a month), the first two rows fall to little more than
the secret, the key, the composite alarms, and the metrics and alarms beyond ten.

Not counted: data transfer, X-Ray traces, a NAT gateway where the functions run in a VPC.

## A flood

Anyone can send requests to the API. It passes 50 a second at most, 4.3 million a day. They cost
${round(FLOOD.api)} dollars a day for the API, and ${round(FLOOD.invocations)} for the invocations. The API bills each
started 512 KB of a request, and takes up to 10 MB. So a flood of such bodies costs ${FLOOD.parts} times as much,
${round(FLOOD.parts * FLOOD.api)} dollars a day. An HTTP API cannot refuse smaller bodies itself. The function refuses a
body over 256 KiB before anything else, but the API has been billed by then. If this happens, lower
\`THROTTLE\` in \`infra/webhook-api.ts\` to what your servers need, and deploy.

## Prices

US East (N. Virginia), list prices, read from stored copies of these pages on ${PRICES_READ}. Check the current prices
before you rely on them.

${SOURCES.map((source) => `- <${source}>`).join('\n')}

${table(['what', 'US dollars'], prices)}
`;
}

/** The metrics that an alarm is billed for. */
function billedMetrics({ Properties }: Resource): number {
  const queries = Properties['Metrics'] as readonly { readonly MetricStat?: unknown }[] | undefined;
  return queries?.filter(({ MetricStat }) => MetricStat !== undefined).length ?? 1;
}

const directory = await mkdtemp(join(tmpdir(), 'ping-muc-cost-'));
try {
  await synthesize(directory, { serverApiUrl: 'https://xmpp.example.net:5281/ping_muc' });
  const resources = Object.values(await readResources(directory));
  const ofType = (type: string): typeof resources => resources.filter((resource) => resource.Type === type);
  const { METRICS } = await import('../functions/names.ts');
  const fixed: Fixed = {
    memoryGb:
      Math.max(...ofType('AWS::Lambda::Function').map(({ Properties }) => Number(Properties['MemorySize']))) / 1024,
    metrics: Object.keys(METRICS).length,
    alarmMetrics: ofType('AWS::CloudWatch::Alarm').reduce((sum, alarm) => sum + billedMetrics(alarm), 0),
    compositeAlarms: ofType('AWS::CloudWatch::CompositeAlarm').length,
    keys: ofType('AWS::KMS::Key').length,
  };
  const text = document(await countCosts(directory, [10, SAMPLE], (step) => process.stderr.write(`${step}\n`)), fixed);
  const file = new URL('../docs/cost.md', import.meta.url);
  const before = await readFile(file, 'utf8').catch(() => '');
  await writeFile(file, text);
  process.stdout.write(`Review docs/cost.md, which was ${before === '' ? 'written' : 'rewritten'}:\n\n${text}`);
} finally {
  await rm(directory, { recursive: true, force: true });
}
