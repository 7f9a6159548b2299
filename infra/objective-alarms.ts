import { Duration } from 'aws-cdk-lib';
import { type IMetric, MathExpression } from 'aws-cdk-lib/aws-cloudwatch';
import type { Construct } from 'constructs';
import type { Composed } from './alarm-definitions.ts';
import { PERIOD, emitted } from './metrics.ts';

/**
 * Alarms about the objective (docs/rules.md): 99 % of the users who were lost are told in time, over 30 days.
 *
 * The rate at which the rest is used up is compared with windows of two lengths, after "Alerting on SLOs" in Google's
 * SRE workbook (https://sre.google/workbook/alerting-on-slos/). The long window shows that it matters, and the short
 * one that it still lasts.
 */

/** The share of users who may be told late. */
const BUDGET = 0.01;
/** Late notices beyond what the rate allows, below which an operator is not called: a few of a small server. */
const FEW_NOTICES = 10;

/** Late notices beyond so many times the budget. Without notices it is 0. */
function lateBeyond(scope: Construct, rate: number, period: Duration): IMetric {
  const share = Number((rate * BUDGET).toFixed(4));
  return new MathExpression({
    label: `late notices beyond ${rate} times the budget`,
    expression: `FILL(late, 0) - ${share} * (FILL(late, 0) + FILL(inTime, 0))`,
    usingMetrics: {
      late: emitted(scope, 'NoticesLate', { period }),
      inTime: emitted(scope, 'NoticesInTime', { period }),
    },
    period,
  });
}

export function objectiveAlarms(scope: Construct): readonly Composed[] {
  const [HOUR, DAY] = [Duration.hours(1), Duration.days(1)];
  const [TWO_HOURS, HALF_AN_HOUR] = [Duration.hours(2), 6];
  return [
    {
      // a day at this rate uses up half of the 30 days' budget; what is known to delay notices has an alarm of its own
      title: 'Objective: fast burn',
      severity: 'high',
      effect: 'In the last hour, more than one in seven of the users who were lost were told late.',
      conditions: {
        hour: { metric: lateBeyond(scope, 14.4, HOUR), threshold: FEW_NOTICES, periods: 1 },
        // notices come in bursts, so the alarm lasts for half an hour after the last burst
        minutes: {
          metric: lateBeyond(scope, 14.4, PERIOD),
          threshold: 0,
          periods: HALF_AN_HOUR,
          spare: HALF_AN_HOUR - 1,
        },
      },
      rule: (alarm) =>
        `${alarm('hour')} AND ${alarm('minutes')} AND NOT ` +
        `(${['Server is out of reach', 'Checks fail', 'Webhooks fail', 'A check is held'].map(alarm).join(' OR ')})`,
    },
    {
      // ten days at this rate use up the 30 days' budget
      title: 'Objective: slow burn',
      severity: 'low',
      effect: 'In the last day, more than three in a hundred of the users who were lost were told late.',
      conditions: {
        day: { metric: lateBeyond(scope, 3, DAY), threshold: FEW_NOTICES, periods: 1 },
        hours: { metric: lateBeyond(scope, 3, TWO_HOURS), threshold: 0, periods: 1 },
      },
      rule: (alarm) => `${alarm('day')} AND ${alarm('hours')}`,
    },
  ];
}
