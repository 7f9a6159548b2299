import type { Series } from './data-point.ts';
import type { Query, Range } from './queries.ts';
import type { AlarmState } from './views.ts';

/**
 * The evaluation of metric alarms: pure, without a clock and without a store.
 *
 * "Alarm evaluation": https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
 * "Configuring how CloudWatch alarms treat missing data":
 * https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
 */
export interface MetricAlarm {
  /** What is evaluated, with the metrics that it refers to. */
  readonly queries: readonly Query[];
  /** The query whose values are compared with the threshold. */
  readonly evaluated: string;
  readonly comparison: Comparison;
  readonly threshold: number;
  /** Milliseconds. */
  readonly period: number;
  /** N of "M out of N". */
  readonly evaluationPeriods: number;
  /** M of "M out of N". */
  readonly datapointsToAlarm: number;
  readonly missingData: MissingData;
}

export type MissingData = 'breaching' | 'notBreaching' | 'ignore' | 'missing';

export interface Verdict {
  readonly state: AlarmState;
  readonly reason: string;
}

/** The comparison operators, and how to write them in a reason. */
export const COMPARISONS = {
  GreaterThanThreshold: { words: 'greater than', isBreaching: (value: number, limit: number) => value > limit },
  GreaterThanOrEqualToThreshold: { words: 'at least', isBreaching: (value: number, limit: number) => value >= limit },
  LessThanThreshold: { words: 'less than', isBreaching: (value: number, limit: number) => value < limit },
  LessThanOrEqualToThreshold: { words: 'at most', isBreaching: (value: number, limit: number) => value <= limit },
} as const;
export type Comparison = keyof typeof COMPARISONS;

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
/**
 * More periods are read than are evaluated, in case that some are missing. How many more depends on the alarm, and is
 * not documented; in the documentation's examples, five are read for three.
 */
const FURTHER_PERIODS = 2;

/**
 * The periods that an evaluation at `now` reads (the evaluation range). It ends with the last whole minute, so periods
 * of five minutes move on by a minute with each evaluation. An alarm of more than a day takes only whole hours.
 */
export function evaluationRange({ period, evaluationPeriods }: MetricAlarm, now: number): Range {
  const step = evaluationPeriods * period > 24 * HOUR ? HOUR : MINUTE;
  const to = now - (now % step);
  return { from: to - (evaluationPeriods + FURTHER_PERIODS) * period, to, period };
}

/** @param values of the evaluation range, oldest first @param current the alarm's state before */
export function evaluateAlarm(alarm: MetricAlarm, values: Series, current: AlarmState): Verdict {
  const { evaluationPeriods, datapointsToAlarm, missingData, threshold } = alarm;
  const { isBreaching } = COMPARISONS[alarm.comparison];
  const newestFirst = values.map((value, index) => ({ value, age: values.length - index })).reverse();
  const real = newestFirst.filter((point): point is { value: number; age: number } => point.value !== undefined);
  const evaluated = real.slice(0, evaluationPeriods);
  const breaching = evaluated.filter(({ value }) => isBreaching(value, threshold));
  const missing = evaluationPeriods - evaluated.length;
  const verdict = (state: AlarmState): Verdict => ({ state, reason: reasonOf(alarm, evaluated, breaching.length) });

  const counted = breaching.length + (missingData === 'breaching' ? missing : 0);
  if (counted >= datapointsToAlarm) return verdict('ALARM');
  if (missing === 0 || missingData === 'breaching' || missingData === 'notBreaching') return verdict('OK');
  if (breaching.length < evaluated.length) return verdict('OK');
  // all that is there is breaching, or nothing is there
  if (missingData === 'ignore') return verdict(current);
  const oldest = breaching.at(-1)?.age ?? 0;
  return verdict(oldest >= datapointsToAlarm ? 'ALARM' : 'INSUFFICIENT_DATA');
}

/** TreatMissingData, in words. */
const WITHOUT_DATA = {
  breaching: 'count as breaching',
  notBreaching: 'count as not breaching',
  ignore: 'keep the state',
  missing: 'do not count',
} as const;

function reasonOf(alarm: MetricAlarm, evaluated: readonly { readonly value: number }[], breaching: number): string {
  const { evaluationPeriods, threshold, missingData } = alarm;
  const missing = evaluationPeriods - evaluated.length;
  const comparison = `${COMPARISONS[alarm.comparison].words} ${threshold}`;
  const values = evaluated.map(({ value }) => String(Number(value.toPrecision(6)))).join(', ');
  const seen = `${breaching} of ${evaluated.length} datapoints are ${comparison}`;
  return [
    evaluated.length === 0 ? 'there is no data' : `${seen} (newest first: ${values})`,
    missing === 0
      ? ''
      : `${missing} of ${evaluationPeriods} periods are without data, and ${WITHOUT_DATA[missingData]}`,
    `${alarm.datapointsToAlarm} of ${evaluationPeriods} raise the alarm`,
  ]
    .filter((part) => part !== '')
    .join('; ');
}
