import type { DataPoint, PointRecorder } from './data-point.ts';
import type { ExecutionEvent } from '../executions.ts';
import type { ServedRequest } from '../gateway.ts';
import type { UsedCapacity } from '../dynamodb.ts';
import type { Stage } from '../assembly.ts';

/** The metrics that AWS emits for what runs here, with AWS's names, dimensions and time stamps. */

const point = (
  namespace: string,
  dimensions: Readonly<Record<string, string>>,
  at: number,
  metrics: Readonly<Record<string, number | undefined>>,
): readonly DataPoint[] =>
  Object.entries(metrics).flatMap(([name, value]) =>
    value === undefined ? [] : [{ namespace, name, dimensions, at, values: [value] }],
  );

interface Invocation {
  readonly functionName: string;
  readonly startedAt: number;
  readonly durationMs: number;
  readonly isFailed: boolean;
}

/**
 * The time stamp of all is the start of the invocation, as documented for Errors; the points appear when it ends.
 * Nothing is throttled on one machine.
 * https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
 */
export const invocationMetrics = ({
  functionName,
  startedAt,
  durationMs,
  isFailed,
}: Invocation): readonly DataPoint[] =>
  point('AWS/Lambda', { FunctionName: functionName }, startedAt, {
    Invocations: 1,
    Errors: Number(isFailed),
    Throttles: 0,
    Duration: durationMs,
  });

/** Calls a function as `invoke` does, and records the metrics of the invocation. */
export function measured(
  invoke: (functionArn: string, event: unknown) => Promise<unknown>,
  record: PointRecorder,
): (functionArn: string, event: unknown) => Promise<unknown> {
  return async (functionArn, event) => {
    const startedAt = Date.now();
    const began = performance.now();
    let isFailed = true;
    try {
      const result = await invoke(functionArn, event);
      isFailed = false;
      return result;
    } finally {
      const functionName = functionArn.slice(functionArn.lastIndexOf(':') + 1);
      record(invocationMetrics({ functionName, startedAt, durationMs: performance.now() - began, isFailed }));
    }
  };
}

const EXECUTION_METRICS = {
  RUNNING: 'ExecutionsStarted',
  SUCCEEDED: 'ExecutionsSucceeded',
  FAILED: 'ExecutionsFailed',
  TIMED_OUT: 'ExecutionsTimedOut',
  ABORTED: 'ExecutionsAborted',
} as const;

/** https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html */
export const executionMetrics = (
  stateMachineArn: string,
  { status, startedAt, at }: ExecutionEvent,
): readonly DataPoint[] =>
  point('AWS/States', { StateMachineArn: stateMachineArn }, at, {
    [EXECUTION_METRICS[status]]: 1,
    ExecutionTime: status === 'RUNNING' ? undefined : at - startedAt,
  });

/**
 * For the whole API, and for its stage.
 * https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-metrics.html
 */
export const requestMetrics = (
  { apiId, name }: Stage,
  { status, at, latencyMs }: ServedRequest,
): readonly DataPoint[] =>
  [{ ApiId: apiId }, { ApiId: apiId, Stage: name }].flatMap((dimensions) =>
    point('AWS/ApiGateway', dimensions, at, {
      Count: 1,
      '4xx': Number(status >= 400 && status < 500),
      '5xx': Number(status >= 500),
      Latency: latencyMs,
    }),
  );

/** https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/metrics-dimensions.html */
export const capacityMetrics = ({ table, units, isWrite, isThrottled, at }: UsedCapacity): readonly DataPoint[] => {
  const throttled = isThrottled ? 1 : undefined;
  const consumed = isThrottled ? undefined : units;
  return point('AWS/DynamoDB', { TableName: table }, at, {
    ConsumedWriteCapacityUnits: isWrite ? consumed : undefined,
    ConsumedReadCapacityUnits: isWrite ? undefined : consumed,
    WriteThrottleEvents: isWrite ? throttled : undefined,
    ReadThrottleEvents: isWrite ? undefined : throttled,
  });
};
