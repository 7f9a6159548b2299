import type { DataPoint } from './data-point.ts';

/**
 * Metrics in log lines.
 *
 * https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
 */

type Fields = Readonly<Record<string, unknown>>;

const isObject = (value: unknown): value is Fields => typeof value === 'object' && value !== null;
const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

/**
 * The data points of a log line in CloudWatch's embedded metric format: for each directive, one for each metric and
 * set of dimensions. A line without metrics has none. Parts that violate the format are left out, as CloudWatch does.
 */
export function readMetrics(line: string): readonly DataPoint[] {
  if (!line.includes('"CloudWatchMetrics"')) return []; // parsing every line would cost more than all the rest
  let fields: unknown;
  try {
    fields = JSON.parse(line);
  } catch {
    return [];
  }
  if (!isObject(fields) || !isObject(fields['_aws'])) return [];
  const { Timestamp, CloudWatchMetrics } = fields['_aws'];
  if (typeof Timestamp !== 'number' || !Number.isFinite(Timestamp)) return [];
  return listOf(CloudWatchMetrics).flatMap((directive) => readDirective(directive, fields, Timestamp));
}

function readDirective(directive: unknown, fields: Fields, at: number): readonly DataPoint[] {
  if (!isObject(directive) || typeof directive['Namespace'] !== 'string') return [];
  const namespace = directive['Namespace'];
  const dimensionSets = listOf(directive['Dimensions']).flatMap((names) => readDimensions(listOf(names), fields));
  return listOf(directive['Metrics']).flatMap((metric) => {
    const name = isObject(metric) ? metric['Name'] : undefined;
    if (typeof name !== 'string') return [];
    const values = readValues(fields[name]);
    return values.length === 0 ? [] : dimensionSets.map((dimensions) => ({ namespace, name, dimensions, at, values }));
  });
}

/** The dimensions with their values, or nothing if a value is missing. */
function readDimensions(names: readonly unknown[], fields: Fields): readonly Record<string, string>[] {
  const dimensions: Record<string, string> = {};
  for (const name of names) {
    const value = typeof name === 'string' ? fields[name] : undefined;
    if (typeof name !== 'string' || typeof value !== 'string') return [];
    dimensions[name] = value;
  }
  return [dimensions];
}

/** A metric is a number or a list of numbers. */
function readValues(target: unknown): readonly number[] {
  const values = Array.isArray(target) ? (target as readonly unknown[]) : [target];
  return values.every((value): value is number => typeof value === 'number' && Number.isFinite(value)) ? values : [];
}
