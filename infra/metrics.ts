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

/** A metric that the handlers emit: counts as sums, times as their 99th percentile, over five minutes unless told. */
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

/** Metrics added up, where one that has no data counts as none. */
export function sum(label: string, metrics: Readonly<Record<string, IMetric>>): MathExpression {
  const expression = Object.keys(metrics)
    .map((id) => `FILL(${id}, 0)`)
    .join(' + ');
  return new MathExpression({ expression, usingMetrics: { ...metrics }, label, period: Duration.minutes(5) });
}
