import { ENV, METRICS, METRIC_DIMENSION, METRIC_NAMESPACE, type Metric } from '../names.ts';

/**
 * Log lines and metrics, one JSON object a line on standard output.
 *
 * Metrics are written in log lines (CloudWatch embedded metric format), so they need no call and no permission.
 * https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
 */
export type Fields = Readonly<Record<string, unknown>>;

export interface Logger {
  info(message: string, fields?: Fields): void;
  warn(message: string, fields?: Fields): void;
  error(message: string, fields?: Fields): void;
  /** Logs a line with metrics. */
  measure(message: string, metrics: Partial<Record<Metric, number>>, fields?: Fields): void;
}

/** Outside a stack, for example in a test, it is the product's name. */
const SERVICE = process.env[ENV.service] ?? 'ping-muc';

function write(line: Fields): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** A logger that adds `context` to every line: the ids of request, webhook or check, and the host. */
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

/** The fields of a log line for an error. They contain no stack, no request and no secret. */
export function describe(error: unknown): Fields {
  if (!(error instanceof Error)) return { error: String(error) };
  const because = error.cause instanceof Error ? { because: `${error.cause.name}: ${error.cause.message}` } : {};
  return { error: error.name, detail: error.message, ...because };
}
