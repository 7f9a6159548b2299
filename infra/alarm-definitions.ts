import { Duration } from 'aws-cdk-lib';
import { type IMetric, MathExpression, Stats, TreatMissingData } from 'aws-cdk-lib/aws-cloudwatch';
import type { Construct } from 'constructs';
import { WEBHOOK_TIME } from '../functions/names.ts';
import type { CheckWorkflow } from './check-workflow.ts';
import type { JoinsTable } from './joins-table.ts';
import { emitted, sum } from './metrics.ts';
import type { WebhookApi } from './webhook-api.ts';

/** The parts of the stack whose metrics raise alarms. */
export interface Sources {
  readonly webhook: WebhookApi;
  readonly check: CheckWorkflow;
  readonly joins: JoinsTable;
}

export interface Definition {
  /** The alarm's name after the stack's name, and its heading in docs/runbook.md. */
  readonly title: string;
  /**
   * high: users are not notified, or get wrong notices, until an operator acts.
   * low: nothing is lost yet, and it can wait until the morning.
   */
  readonly severity: 'high' | 'low';
  /** What the users notice. */
  readonly effect: string;
  readonly metric: IMetric;
  /** The alarm is raised above this, or below it if `below` is set. */
  readonly threshold: number;
  readonly below?: true;
  /** The number of consecutive periods that are evaluated. All but `spare` of them must breach the threshold. */
  readonly periods: number;
  readonly spare?: number;
  /** How missing data is treated. Default: no data means that nothing happened, which is good. */
  readonly missing?: TreatMissingData;
}

const PERIOD = Duration.minutes(5);
const P99 = { statistic: Stats.percentile(99), period: PERIOD };

/** Half of the time that a webhook may take. */
const SLOW_WEBHOOK_MS = (WEBHOOK_TIME.answerWithinSeconds * 1000) / 2;
/**
 * An invocation hands over to the next one when two ping time-outs and two minutes (CLOSING_MS in
 * functions/core/limits.ts) are left of its 15 minutes, after which Lambda would end it.
 */
const LONG_CHECK_MS = Duration.seconds(14 * 60 + 30).toMilliseconds();
const LATE_CHECK_MS = 60_000;

/** Alarms about the reports of the XMPP server, from its request to the table. */
// eslint-disable-next-line max-lines-per-function -- a table
export function webhookAlarms(scope: Construct, { webhook, joins }: Sources): readonly Definition[] {
  return [
    {
      title: 'Webhooks fail',
      severity: 'high',
      effect: 'Joins and closes are not stored. The XMPP server keeps them and retries, so notices are late, not lost.',
      metric: webhook.stage.metricServerError({ statistic: Stats.SUM, period: PERIOD }),
      threshold: 0,
      periods: 3,
      spare: 1,
    },
    {
      title: 'Webhooks are throttled',
      severity: 'high',
      effect: 'Joins and closes are stored late: more arrive than webhookConcurrency, or the account, allows.',
      metric: webhook.function.metricThrottles({ period: PERIOD }),
      threshold: 0,
      periods: 3,
      spare: 1,
    },
    {
      title: 'Webhooks are slow',
      severity: 'low',
      effect: `Nothing yet. If a webhook takes ${WEBHOOK_TIME.answerWithinSeconds} seconds, it fails.`,
      metric: webhook.function.metricDuration(P99),
      threshold: SLOW_WEBHOOK_MS,
      periods: 3,
      spare: 1,
    },
    {
      title: 'Webhook function fails',
      severity: 'high',
      effect: 'Joins and closes are not stored: the function cannot start, or does not end in time.',
      metric: webhook.function.metricErrors({ period: PERIOD }),
      threshold: 0,
      periods: 3,
      spare: 1,
    },
    {
      // a sender retries at least once a minute, so a wrong secret causes five of these in five minutes; a scanner one
      title: 'Signatures are rejected',
      severity: 'high',
      effect: 'Users of a server whose secret or clock is wrong are not watched: all of its reports are rejected.',
      metric: emitted(scope, 'WebhooksUnauthorized'),
      threshold: 3,
      periods: 3,
    },
    {
      title: 'Webhooks are malformed',
      severity: 'low',
      effect: 'Some reported joins or closes cannot be read, so some users are not watched.',
      metric: sum('malformed', {
        webhooks: emitted(scope, 'WebhooksMalformed'),
        events: emitted(scope, 'EventsRejected'),
      }),
      threshold: 0,
      periods: 3,
      spare: 1,
    },
    {
      // joins are reported again once a day (ping_muc_refresh): even a server with one join reports within 30 hours
      title: 'No webhook for long',
      severity: 'low',
      effect: 'No server has reported anything for 30 hours. Either there are no joins, or no user is watched.',
      metric: emitted(scope, 'WebhooksAccepted', { period: Duration.hours(6) }),
      threshold: 1,
      below: true,
      periods: 5,
      missing: TreatMissingData.BREACHING,
    },
    {
      title: 'Table is throttled',
      severity: 'low',
      effect:
        'Joins are stored late, and notices are late: ' +
        'one pair of hosts needs more writes a second than one key of the table accepts.',
      metric: sum('throttled', {
        reads: joins.table.metric('ReadThrottleEvents', { statistic: Stats.SUM, period: PERIOD }),
        writes: joins.table.metric('WriteThrottleEvents', { statistic: Stats.SUM, period: PERIOD }),
      }),
      threshold: 0,
      periods: 3,
      spare: 1,
    },
  ];
}

/** Alarms about the checks, from the wait to the notice. */
// eslint-disable-next-line max-lines-per-function -- a table
export function checkAlarms(scope: Construct, { check }: Sources): readonly Definition[] {
  return [
    {
      title: 'Checks fail',
      severity: 'high',
      effect: 'Users who were removed from their rooms when a connection closed are not notified.',
      metric: sum('failed', {
        failed: check.stateMachine.metricFailed({ period: PERIOD }),
        timedOut: check.stateMachine.metricTimedOut({ period: PERIOD }),
        aborted: check.stateMachine.metricAborted({ period: PERIOD }),
      }),
      threshold: 0,
      periods: 1,
    },
    {
      title: 'Checks are late',
      severity: 'low',
      effect: 'Users who were removed from their rooms are notified more than a minute late.',
      metric: emitted(scope, 'CheckLateness'),
      threshold: LATE_CHECK_MS,
      periods: 3,
      spare: 1,
    },
    {
      title: 'Check function fails',
      severity: 'low',
      effect: 'Notices are late: the check is retried for some minutes, and then fails.',
      metric: new MathExpression({
        label: 'errors, except that the server is unreachable or busy',
        expression: 'FILL(errors, 0) - FILL(unreachable, 0) - FILL(busy, 0)',
        usingMetrics: {
          errors: check.function.metricErrors({ period: PERIOD }),
          unreachable: emitted(scope, 'ServerUnreachable'),
          busy: emitted(scope, 'ServerBusy'),
        },
        period: PERIOD,
      }),
      threshold: 0,
      periods: 3,
      spare: 1,
    },
    {
      title: 'Check function is throttled',
      severity: 'low',
      effect: 'Notices are late: more checks are due than checkConcurrency, or the account, allows.',
      metric: check.function.metricThrottles({ period: PERIOD }),
      threshold: 0,
      periods: 3,
    },
    {
      title: 'Checks take too long',
      severity: 'low',
      effect:
        'Notices are late, and some pings are sent twice: Lambda ends an invocation after 15 minutes; it is retried.',
      metric: check.function.metricDuration(P99),
      threshold: LONG_CHECK_MS,
      periods: 1,
    },
    {
      // a restart of Prosody takes less
      title: 'Server is out of reach',
      severity: 'high',
      effect:
        'Users who were removed from their rooms are not notified until the server can be reached again. ' +
        'After six hours their checks fail.',
      metric: emitted(scope, 'ServerUnreachable'),
      threshold: 0,
      periods: 3,
    },
  ];
}
