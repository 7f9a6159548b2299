import { describe, expect, it } from 'vitest';
import { evaluateRule, parseRule } from '../../../local/cloudwatch/alarm-rule.ts';
import {
  type Comparison,
  type MetricAlarm,
  type MissingData,
  evaluateAlarm,
  evaluationRange,
} from '../../../local/cloudwatch/alarms.ts';
import type { AlarmState } from '../../../local/cloudwatch/views.ts';

const alarm = (changes: Partial<MetricAlarm> = {}): MetricAlarm => ({
  queries: [],
  evaluated: 'm',
  comparison: 'GreaterThanThreshold',
  threshold: 0,
  period: 300_000,
  evaluationPeriods: 3,
  datapointsToAlarm: 3,
  missingData: 'missing',
  ...changes,
});

/** 0 is within the threshold, X breaches it, - is missing; the newest datapoint is on the right. */
const state = (datapoints: string, changes: Partial<MetricAlarm>, current: AlarmState): AlarmState => {
  const values = datapoints.split(' ').map((point) => ({ X: 1, '0': 0 })[point]);
  return evaluateAlarm(alarm(changes), values, current).state;
};

const RETAINED = 'retained';
const TREATMENTS: readonly MissingData[] = ['missing', 'ignore', 'breaching', 'notBreaching'];

// "Configuring how CloudWatch alarms treat missing data": both tables, and the examples of the section on premature
// alarms below them; the last row of each group is of the page's older version, which states the result
describe.each([
  {
    datapointsToAlarm: 3,
    rows: [
      ['0 - X - X', 'OK', 'OK', 'OK', 'OK'],
      ['0 - - - -', 'OK', 'OK', 'OK', 'OK'],
      ['- - - - -', 'INSUFFICIENT_DATA', RETAINED, 'ALARM', 'OK'],
      ['0 X X - X', 'ALARM', 'ALARM', 'ALARM', 'ALARM'],
      ['- - X - -', 'ALARM', RETAINED, 'ALARM', 'OK'],
      ['- - - X -', 'INSUFFICIENT_DATA', RETAINED, 'ALARM', 'OK'],
      ['- - - - X', 'INSUFFICIENT_DATA', RETAINED, 'ALARM', 'OK'],
      ['X - - - -', 'ALARM', RETAINED, 'ALARM', 'OK'],
    ],
  },
  {
    datapointsToAlarm: 2,
    rows: [
      ['0 - X - X', 'ALARM', 'ALARM', 'ALARM', 'ALARM'],
      ['0 0 X 0 X', 'ALARM', 'ALARM', 'ALARM', 'ALARM'],
      ['0 - X - -', 'OK', 'OK', 'ALARM', 'OK'],
      ['- - - - 0', 'OK', 'OK', 'ALARM', 'OK'],
      ['- - - X -', 'ALARM', RETAINED, 'ALARM', 'OK'],
      ['- - - - X', 'INSUFFICIENT_DATA', RETAINED, 'ALARM', 'OK'],
    ],
  },
])('$datapointsToAlarm out of 3', ({ datapointsToAlarm, rows }) => {
  describe.each(rows)('%s', (datapoints, ...expected) => {
    it.each(TREATMENTS.map((missingData, index) => [missingData, expected[index]] as const))(
      'with missing data as %s: %s',
      (missingData, result) => {
        for (const current of ['OK', 'ALARM', 'INSUFFICIENT_DATA'] as const)
          expect(state(datapoints, { datapointsToAlarm, missingData }, current)).toBe(
            result === RETAINED ? current : result,
          );
      },
    );
  });
});

describe('an alarm', () => {
  it.each<[Comparison, number, number]>([
    ['GreaterThanThreshold', 11, 10],
    ['GreaterThanOrEqualToThreshold', 10, 9],
    ['LessThanThreshold', 9, 10],
    ['LessThanOrEqualToThreshold', 10, 11],
  ])('%s 10 breaches at %s, not at %s', (comparison, breaching, within) => {
    const one = alarm({ comparison, threshold: 10, evaluationPeriods: 1, datapointsToAlarm: 1 });
    expect(evaluateAlarm(one, [breaching], 'OK').state).toBe('ALARM');
    expect(evaluateAlarm(one, [within], 'OK').state).toBe('OK');
  });

  it('says why', () => {
    const verdict = evaluateAlarm(
      alarm({ datapointsToAlarm: 2, missingData: 'notBreaching' }),
      [4, undefined, 2],
      'OK',
    );
    expect(verdict).toEqual({
      state: 'ALARM',
      reason:
        '2 of 2 datapoints are greater than 0 (newest first: 2, 4); 1 of 3 periods are without data, and count as not breaching; ' +
        '2 of 3 raise the alarm',
    });
  });
});

describe('the evaluation range', () => {
  const noon = Date.UTC(2027, 0, 15, 12, 0);

  it('moves on by a minute with each minute, and has two periods more than are evaluated', () => {
    const at = (now: number): object => evaluationRange(alarm(), now);
    expect(at(noon + 30_000)).toEqual({ from: noon - 25 * 60_000, to: noon, period: 300_000 });
    expect(at(noon + 60_000)).toEqual({ from: noon - 24 * 60_000, to: noon + 60_000, period: 300_000 });
  });

  it('has whole hours for an alarm of more than a day', () => {
    const days = alarm({ period: 6 * 3_600_000, evaluationPeriods: 5 });
    expect(evaluationRange(days, noon + 59 * 60_000)).toMatchObject({ to: noon });
    const day = alarm({ period: 6 * 3_600_000, evaluationPeriods: 4 });
    expect(evaluationRange(day, noon + 59 * 60_000)).toMatchObject({ to: noon + 59 * 60_000 });
  });
});

describe('the rule of a composite alarm', () => {
  const STATES: Readonly<Record<string, AlarmState>> = {
    'PingMuc: Checks fail': 'ALARM',
    calm: 'OK',
    new: 'INSUFFICIENT_DATA',
  };
  const isTrue = (rule: string): boolean => evaluateRule(parseRule(rule), (name) => STATES[name] ?? 'OK');

  it.each([
    ['ALARM("PingMuc: Checks fail")', true],
    ['ALARM(PingMuc: Checks fail)', true],
    ['ALARM("arn:aws:cloudwatch:us-east-1:000000000000:alarm:PingMuc: Checks fail")', true],
    ['ALARM(calm)', false],
    ['OK(calm) AND INSUFFICIENT_DATA(new)', true],
    ['NOT ALARM(calm)', true],
    ['NOT (ALARM(calm) OR OK(calm))', false],
    ['TRUE OR TRUE AND FALSE', true],
    ['(TRUE OR TRUE) AND FALSE', false],
    ['NOT FALSE AND TRUE', true],
    ['((ALARM(calm)) OR (OK( calm )))', true],
    ['FALSE', false],
  ])('%s is %s', (rule, result) => {
    expect(isTrue(rule)).toBe(result);
  });

  it.each([
    ['AT_LEAST(2, ALARM, (a, b))', 'at AT_LEAST'],
    ['ALARM(a) ALARM(b)', 'at ALARM'],
    ['ALARM(a) AND', 'at its end'],
    ['(ALARM(a)', 'at its end'],
    ['', 'at its end'],
  ])('%s cannot be read %s', (rule, place) => {
    expect(() => parseRule(rule)).toThrow(place);
  });
});
