import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startFakeServer } from '../../bench/fake-server.ts';
import { METRIC_DIMENSION, METRIC_NAMESPACE } from '../../functions/names.ts';
import { post } from '../../lab/requests.ts';
import { type Assembly, type Resource, readAssembly, readResources } from '../../local/assembly.ts';
import {
  capacityMetrics,
  executionMetrics,
  invocationMetrics,
  requestMetrics,
} from '../../local/cloudwatch/aws-metrics.ts';
import { type CloudWatch, openCloudWatch } from '../../local/cloudwatch/cloudwatch.ts';
import type { MetricId } from '../../local/cloudwatch/data-point.ts';
import { readMetrics } from '../../local/cloudwatch/emf.ts';
import { type Monitoring, readMonitoring } from '../../local/cloudwatch/template.ts';
import type { GraphLine } from '../../local/cloudwatch/views.ts';
import { type Runtime, startRuntime } from '../../local/runtime.ts';

/** The dashboard and the alarms of the real template, interpreted on this machine. */
const MINUTE = 60_000;
let assembly: Assembly;
let resources: Readonly<Record<string, Resource>>;
let monitoring: Monitoring;
let directory: string;

beforeAll(async () => {
  const synthesized = process.env['PING_MUC_ASSEMBLY'] ?? '';
  assembly = await readAssembly(synthesized);
  resources = await readResources(synthesized);
  monitoring = readMonitoring(resources);
  directory = await mkdtemp(join(tmpdir(), 'ping-muc-infra-'));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const namesOf = (type: string): unknown[] =>
  Object.values(resources)
    .filter(({ Type }) => Type === type)
    .map(({ Properties }) => Properties['AlarmName']);

/** Every metric that an alarm or a graph asks for. */
const askedFor = (): readonly MetricId[] =>
  [
    ...monitoring.alarms.flatMap(({ queries }) => queries),
    ...monitoring.widgets.flatMap((widget) => (widget.kind === 'graph' ? widget.queries : [])),
  ].flatMap((query) => (query.kind === 'metric' ? [query.metric] : []));

const key = ({ namespace, name, dimensions }: MetricId): string =>
  `${namespace} ${name} ${JSON.stringify(Object.entries(dimensions).sort())}`;

describe('the template', () => {
  it('has its alarms and its dashboard read in full', () => {
    expect(monitoring.alarms.map(({ name }) => name)).toEqual(namesOf('AWS::CloudWatch::Alarm'));
    const composites = monitoring.composites.map(({ name }) => name).sort();
    expect(composites).toEqual(namesOf('AWS::CloudWatch::CompositeAlarm').sort());
    expect(monitoring.alarms.length).toBeGreaterThan(10);
    expect(monitoring.widgets.filter(({ kind }) => kind === 'graph').length).toBeGreaterThan(10);
  });

  it('shows alarms by the names that they have', () => {
    const shown = monitoring.widgets.flatMap((widget) => (widget.kind === 'alarms' ? widget.alarms : []));
    expect(shown.length).toBeGreaterThan(10);
    const known = [...monitoring.alarms, ...monitoring.composites].map(({ name }) => name);
    expect(shown.filter((name) => !known.includes(name))).toEqual([]);
  });

  it('asks AWS for no metric but those that are recorded here, with the same dimensions', () => {
    const at = 0;
    const recorded = [
      ...assembly.functions.flatMap(({ name }) =>
        invocationMetrics({ functionName: name, startedAt: at, durationMs: 1, isFailed: false }),
      ),
      ...assembly.stateMachines.flatMap(({ arn }) =>
        (['RUNNING', 'SUCCEEDED', 'FAILED', 'TIMED_OUT', 'ABORTED'] as const).flatMap((status) =>
          executionMetrics(arn, { status, startedAt: at, at }),
        ),
      ),
      ...assembly.stages.flatMap((stage) => requestMetrics(stage, { status: 200, at, latencyMs: 1 })),
      ...assembly.tables.flatMap(({ name: table }) =>
        [true, false].flatMap((isWrite) =>
          [true, false].flatMap((isThrottled) => capacityMetrics({ table, isWrite, isThrottled, units: 1, at })),
        ),
      ),
    ];
    const asked = askedFor().filter(({ namespace }) => namespace.startsWith('AWS/'));
    expect(asked.length).toBeGreaterThan(15);
    const known = new Set(recorded.map(key));
    expect(asked.map(key).filter((metric) => !known.has(metric))).toEqual([]);
  });
});

it('a log line with an unreachable server makes its graph, and raises and clears the alarms that ask for it', async () => {
  const name = 'ServerUnreachable';
  let now = Date.UTC(2027, 0, 15, 12);
  const cloudWatch = openCloudWatch({ directory, monitoring, log: () => undefined, now: () => now });
  const raised = (): unknown[] =>
    cloudWatch.alarms().filter(({ state, lines }) => state === 'ALARM' && lines.some(({ label }) => label === name));
  const directive = { Namespace: METRIC_NAMESPACE, Dimensions: [[METRIC_DIMENSION]], Metrics: [{ Name: name }] };
  const minute = (isUnreachable: boolean): void => {
    const _aws = { Timestamp: now, CloudWatchMetrics: [directive] };
    if (isUnreachable) cloudWatch.record(readMetrics(JSON.stringify({ service: 'PingMuc', [name]: 1, _aws })));
    now += MINUTE;
    cloudWatch.evaluate();
  };
  for (let index = 0; index < 60; index += 1) minute(true);
  const shown = linesOf(cloudWatch, now - 60 * MINUTE, now, name);
  expect(shown.length).toBeGreaterThan(0);
  for (const { points } of shown) expect(points).toHaveLength(60);
  expect(raised()).not.toEqual([]);
  for (let index = 0; index < 60; index += 1) minute(false);
  expect(raised()).toEqual([]);
  await cloudWatch.close();
});

const linesOf = (cloudWatch: CloudWatch, from: number, to: number, label: string): readonly GraphLine[] =>
  cloudWatch
    .dashboard(from, to)
    .flatMap((widget) => (widget.kind === 'graph' ? widget.lines : []))
    .filter((line) => line.label === label);

describe('a run of the stack', () => {
  const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
  const LOST = 10;
  const began = Date.now();
  let runtime: Runtime;
  let server: Awaited<ReturnType<typeof startFakeServer>>;
  let notices = 0;

  const send = async (events: readonly object[]): Promise<void> => {
    const body = JSON.stringify({ host: 'example.net', events });
    const { status } = await post({ url: `http://127.0.0.1:${runtime.port}/webhooks`, secret: SECRET, body });
    expect(status).toBe(200);
  };
  const joined = (index: number): object => ({
    type: 'muc.joined',
    at: began * 1000 + index,
    user: `user${index}@example.net/phone`,
    room: 'room@muc.example.org',
    nick: `nick ${index}`,
  });
  const close = {
    type: 's2s.closed',
    at: began * 1000 + 1000,
    remote: 'muc.example.org',
    direction: 'outgoing',
    delay: 1,
    timeout: 60,
    patience: 0,
    dry_run: false,
  };
  const total = (label: string): number =>
    linesOf(runtime.cloudWatch, began, Date.now(), label)
      .flatMap(({ points }) => points)
      .reduce((sum, { value }) => sum + value, 0);

  beforeAll(async () => {
    server = await startFakeServer();
    server.answers = 'left';
    let isDone = (): void => undefined;
    const done = new Promise<void>((resolve) => (isDone = resolve));
    runtime = await startRuntime({
      assembly: process.env['PING_MUC_ASSEMBLY'] ?? '',
      data: join(directory, 'data'),
      host: '127.0.0.1',
      port: 0,
      serverApi: server.url,
      secrets: [SECRET],
      log: (line) => {
        notices += (JSON.parse(line) as { Notices?: number }).Notices ?? 0;
        if (notices === LOST) isDone();
      },
    });
    await send(Array.from({ length: LOST }, (_, index) => joined(index)));
    await send([close]);
    const { status } = await post({ url: `http://127.0.0.1:${runtime.port}/webhooks`, body: '{}' });
    expect(status).toBe(401);
    await done;
  });
  afterAll(async () => {
    await runtime.close();
    await server.close();
  });

  it('whose log has ten notices has ten on its dashboard', () => {
    expect(notices).toBe(LOST);
    expect(total('Notices')).toBe(LOST);
    expect(total('JoinsRecorded')).toBe(LOST);
    expect(total('WebhooksUnauthorized')).toBe(1);
  });

  it('counts what AWS would count: requests, executions, units', () => {
    expect(total('requests')).toBe(3);
    expect(total('written')).toBeGreaterThanOrEqual(LOST);
    expect(total('read')).toBeGreaterThan(0);
    const durations = linesOf(runtime.cloudWatch, began, Date.now(), 'p99').flatMap(({ points }) => points);
    expect(durations.every(({ value }) => value > 0 && value < 30_000)).toBe(true);
    expect(durations.length).toBeGreaterThan(0);
  });
});
