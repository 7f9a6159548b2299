import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DynamoDBClient, GetItemCommand, QueryCommand, UpdateItemCommand } from '@aws-sdk/client-dynamodb';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  capacityMetrics,
  executionMetrics,
  invocationMetrics,
  measured,
  requestMetrics,
} from '../../../local/cloudwatch/aws-metrics.ts';
import type { DataPoint } from '../../../local/cloudwatch/data-point.ts';
import { type UsedCapacity, startDynamoDB } from '../../../local/dynamodb.ts';
import { type ExecutionEvent, Executions } from '../../../local/executions.ts';
import { type ServedRequest, startGateway } from '../../../local/gateway.ts';

vi.setConfig({ testTimeout: 30_000 }); // real parts, which are slow on a busy machine

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'ping-muc-unit-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const NOON = Date.UTC(2027, 0, 15, 12);
const valuesOf = (points: readonly DataPoint[]): Record<string, number | undefined> =>
  Object.fromEntries(points.map(({ name, values }) => [name, values[0]]));

describe('an invocation', () => {
  it('counts for the time of its start, whatever becomes of it', () => {
    const points = invocationMetrics({ functionName: 'Check', startedAt: NOON, durationMs: 1234.5, isFailed: true });
    expect(valuesOf(points)).toEqual({ Invocations: 1, Errors: 1, Throttles: 0, Duration: 1234.5 });
    for (const { namespace, dimensions, at } of points)
      expect({ namespace, dimensions, at }).toEqual({
        namespace: 'AWS/Lambda',
        dimensions: { FunctionName: 'Check' },
        at: NOON,
      });
  });

  it('is measured around the call, which keeps its result and its error', async () => {
    const points: DataPoint[] = [];
    const invoke = measured(
      (_, event) => (event === 'bad' ? Promise.reject(new Error('no')) : Promise.resolve(event)),
      (more) => points.push(...more),
    );
    expect(await invoke('arn:aws:lambda:us-east-1:000000000000:function:Webhook', 'good')).toBe('good');
    await expect(invoke('arn:aws:lambda:us-east-1:000000000000:function:Webhook', 'bad')).rejects.toThrow('no');
    expect(points.filter(({ name }) => name === 'Errors').map(({ values }) => values[0])).toEqual([0, 1]);
    expect(points[0]?.dimensions).toEqual({ FunctionName: 'Webhook' });
  });
});

describe('an execution', () => {
  const STATES = {
    good: { Type: 'Succeed' },
    bad: { Type: 'Fail', Error: 'CheckFailed', Cause: 'none' },
    long: { Type: 'Wait', Seconds: 60, End: true },
  };

  async function run(StartAt: keyof typeof STATES, more: object = {}, stop = false): Promise<ExecutionEvent[]> {
    const events: ExecutionEvent[] = [];
    const machine = { arn: 'arn:machine', definition: { StartAt, States: { [StartAt]: STATES[StartAt] }, ...more } };
    let ended = (): void => undefined;
    const end = new Promise<void>((resolve) => (ended = resolve));
    const executions = await Executions.open(
      machine,
      directory,
      () => Promise.resolve({}),
      (event) => {
        events.push(event);
        if (event.status !== 'RUNNING') ended();
      },
    );
    await executions.start('one', '{}');
    if (stop) await executions.stop('one');
    await end;
    await executions.close();
    return events;
  }

  it.each([
    ['good', {}, false, 'ExecutionsSucceeded'],
    ['bad', {}, false, 'ExecutionsFailed'],
    ['long', {}, true, 'ExecutionsAborted'],
    ['long', { TimeoutSeconds: 1 }, false, 'ExecutionsTimedOut'],
  ] as const)('%s %o, stopped: %s counts as %s, with its time', async (state, more, stop, metric) => {
    const points = (await run(state, more, stop)).map((event) => executionMetrics('arn:machine', event));
    expect(points.map(valuesOf)).toEqual([
      { ExecutionsStarted: 1 },
      { [metric]: 1, ExecutionTime: expect.any(Number) as number },
    ]);
    const [started, ended] = points;
    expect((ended?.[1]?.values[0] ?? 0) + (started?.[0]?.at ?? 0)).toBe(ended?.[0]?.at);
    expect(ended?.[0]).toMatchObject({ namespace: 'AWS/States', dimensions: { StateMachineArn: 'arn:machine' } });
  });
});

describe('a request to the API', () => {
  it.each([
    ['/webhooks', () => Promise.resolve({ statusCode: 200 }), 200, { '4xx': 0, '5xx': 0 }],
    ['/webhooks', () => Promise.resolve({ statusCode: 401 }), 401, { '4xx': 1, '5xx': 0 }],
    ['/webhooks', () => Promise.resolve({ statusCode: 503 }), 503, { '4xx': 0, '5xx': 1 }],
    ['/other', () => Promise.resolve({}), 404, { '4xx': 1, '5xx': 0 }],
  ])('%s counts by its status', async (path, answer, status, counts) => {
    let served = (_: ServedRequest): void => undefined;
    const observed = new Promise<ServedRequest>((resolve) => (served = resolve));
    const routes = [{ key: 'POST /webhooks', functionArn: 'arn' }];
    const gateway = await startGateway('127.0.0.1', 0, routes, answer, (request) => served(request));
    const began = Date.now();
    const response = await fetch(`http://127.0.0.1:${gateway.port}${path}`, { method: 'POST' });
    const request = await observed;
    await gateway.close();
    expect(response.status).toBe(status);
    expect(request.at).toBeGreaterThanOrEqual(began);
    const points = requestMetrics({ apiId: 'Api', name: '$default' }, request);
    expect(points.filter(({ dimensions }) => 'Stage' in dimensions)).toHaveLength(4);
    expect(valuesOf(points)).toEqual({ Count: 1, ...counts, Latency: request.latencyMs });
    expect(points[4]).toMatchObject({ namespace: 'AWS/ApiGateway', dimensions: { ApiId: 'Api', Stage: '$default' } });
  });
});

describe('a request to the table', () => {
  const TABLE = {
    name: 'Joins',
    keySchema: [{ AttributeName: 'pk', KeyType: 'HASH' as const }],
    attributes: [{ AttributeName: 'pk', AttributeType: 'S' as const }],
    ttlAttribute: 'expires',
  };

  it('counts with the units that DynamoDB would bill to the functions, and answers as ever', async () => {
    const used: UsedCapacity[] = [];
    const recordCapacity = (one: UsedCapacity): unknown => used.push(one);
    const database = await startDynamoDB(join(directory, 'dynamodb'), [TABLE], { recordCapacity });
    const client = new DynamoDBClient({
      endpoint: database.endpoint,
      region: 'us-east-1',
      credentials: { accessKeyId: 'Webhook', secretAccessKey: 'x' },
    });
    const Key = { pk: { S: 'a' } };
    const update = { TableName: 'Joins', Key, ConditionExpression: 'attribute_not_exists(nick)' };
    const set = { UpdateExpression: 'SET nick = :n', ExpressionAttributeValues: { ':n': { S: 'x'.repeat(1500) } } };
    await client.send(new UpdateItemCommand({ ...update, ...set }));
    await expect(client.send(new UpdateItemCommand({ ...update, ...set }))).rejects.toThrow('conditional');
    const { Item } = await client.send(new GetItemCommand({ TableName: 'Joins', Key, ConsistentRead: true }));
    await client.send(
      new QueryCommand({
        TableName: 'Joins',
        KeyConditionExpression: 'pk = :pk',
        ExpressionAttributeValues: { ':pk': Key.pk },
      }),
    );
    client.destroy();
    await database.close();
    expect(Item?.['nick']?.S).toHaveLength(1500);
    expect(used.flatMap((one) => capacityMetrics(one).map(({ name, values }) => [name, values[0]]))).toEqual([
      ['ConsumedWriteCapacityUnits', 2],
      ['ConsumedWriteCapacityUnits', 1],
      ['ConsumedReadCapacityUnits', 1],
      ['ConsumedReadCapacityUnits', 0.5],
    ]);
    expect(capacityMetrics(used[0] as UsedCapacity)[0]).toMatchObject({
      namespace: 'AWS/DynamoDB',
      dimensions: { TableName: 'Joins' },
    });
  });

  it('that is throttled counts as an event, and consumes nothing', () => {
    const throttled = { table: 'Joins', units: 0, isThrottled: true, at: NOON };
    const names = [true, false].map((isWrite) => capacityMetrics({ ...throttled, isWrite }).map(({ name }) => name));
    expect(names).toEqual([['WriteThrottleEvents'], ['ReadThrottleEvents']]);
  });
});
