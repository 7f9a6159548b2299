import { ENV, METRICS, METRIC_DIMENSION, METRIC_NAMESPACE, type Metric } from '../names.ts';

/**
 * Log lines and metrics, one JSON object a line on standard output.
 *
 * Metrics travel in log lines (CloudWatch embedded metric format), so that counting costs no call and no permission.
 * https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
 */
export type Fields = Readonly<Record<string, unknown>>;

export interface Logger {
  info(message: string, fields?: Fields): void;
  warn(message: string, fields?: Fields): void;
  error(message: string, fields?: Fields): void;
  /** Counts, and logs the line that the counts belong to. */
  measure(message: string, metrics: Partial<Record<Metric, number>>, fields?: Fields): void;
}

/** Outside a stack, as in a test, the metrics go by the product's name. */
const SERVICE = process.env[ENV.service] ?? 'ping-muc';

function write(line: Fields): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** A logger whose every line carries `context`: what the line belongs to (request, webhook or check id, host). */
export function logger(context: Fields): Logger {
  const log = (level: string, message: string, fields: Fields = {}): void =>
    write({ level, time: new Date().toISOString(), message, ...context, ...fields });
  return {
    info: (message, fields) => log('INFO', message, fields),
    warn: (message, fields) => log('WARN', message, fields),
    error: (message, fields) => log('ERROR', message, fields),
    measure: (message, metrics, fields) => {
      const names = Object.keys(metrics) as Metric[];
      const directive = {
        Namespace: METRIC_NAMESPACE,
        Dimensions: [[METRIC_DIMENSION]],
        Metrics: names.map((name) => ({ Name: name, Unit: METRICS[name] })),
      };
      log('INFO', message, {
        ...fields,
        [METRIC_DIMENSION]: SERVICE,
        ...metrics,
        _aws: { Timestamp: Date.now(), CloudWatchMetrics: [directive] },
      });
    },
  };
}

/** What an error says, for a log line: never its stack's text of a request, never a secret. */
export function describe(error: unknown): Fields {
  if (!(error instanceof Error)) return { error: String(error) };
  const because = error.cause instanceof Error ? { because: `${error.cause.name}: ${error.cause.message}` } : {};
  return { error: error.name, detail: error.message, ...because };
}
