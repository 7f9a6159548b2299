import { Duration, Stack } from 'aws-cdk-lib';
import {
  type IMetric,
  MathExpression,
  Metric as CloudWatchMetric,
  type MetricOptions,
  Stats,
} from 'aws-cdk-lib/aws-cloudwatch';
import type { Construct } from 'constructs';
import { METRICS, METRIC_DIMENSION, METRIC_NAMESPACE, type Metric } from '../functions/names.ts';

/** The period of graphs and of most alarms. */
export const PERIOD = Duration.minutes(5);

/** Metrics that say how much there is at a moment, and not what was added. */
const GAUGES: ReadonlySet<Metric> = new Set(['HostsSilent', 'HostsReporting', 'QueueLength', 'QueueAge']);

/**
 * A metric that the handlers emit, over five minutes. Default: counts as sums, times as their 99th percentile, gauges
 * as their maximum.
 */
export function emitted(scope: Construct, name: Metric, options: MetricOptions = {}): CloudWatchMetric {
  return new CloudWatchMetric({
    namespace: METRIC_NAMESPACE,
    metricName: name,
    dimensionsMap: { [METRIC_DIMENSION]: Stack.of(scope).stackName },
    statistic: GAUGES.has(name) ? Stats.MAXIMUM : METRICS[name] === 'Count' ? Stats.SUM : Stats.percentile(99),
    period: PERIOD,
    ...options,
  });
}

/**
 * The sum of metrics. A metric without data counts as 0, also if its data has not arrived yet, so an alarm on a sum
 * looks at several periods.
 * https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
 */
export function sum(label: string, metrics: Readonly<Record<string, IMetric>>): MathExpression {
  const expression = Object.keys(metrics)
    .map((id) => `FILL(${id}, 0)`)
    .join(' + ');
  return new MathExpression({ expression, usingMetrics: { ...metrics }, label, period: PERIOD });
}
