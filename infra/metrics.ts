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

/** A metric that the handlers emit. Default: counts as sums, times as their 99th percentile, over five minutes. */
export function emitted(scope: Construct, name: Metric, options: MetricOptions = {}): CloudWatchMetric {
  return new CloudWatchMetric({
    namespace: METRIC_NAMESPACE,
    metricName: name,
    dimensionsMap: { [METRIC_DIMENSION]: Stack.of(scope).stackName },
    statistic: METRICS[name] === 'Count' ? Stats.SUM : Stats.percentile(99),
    period: Duration.minutes(5),
    ...options,
  });
}

/** The sum of metrics. A metric without data counts as 0. */
export function sum(label: string, metrics: Readonly<Record<string, IMetric>>): MathExpression {
  const expression = Object.keys(metrics)
    .map((id) => `FILL(${id}, 0)`)
    .join(' + ');
  return new MathExpression({ expression, usingMetrics: { ...metrics }, label, period: Duration.minutes(5) });
}
