import { Duration } from 'aws-cdk-lib';
import { type IMetric, Stats, TreatMissingData } from 'aws-cdk-lib/aws-cloudwatch';
import type { Construct } from 'constructs';
import { WEBHOOK_TIME } from '../functions/names.ts';
import type { CheckWorkflow } from './check-workflow.ts';
import type { JoinsTable } from './joins-table.ts';
import { PERIOD, emitted, sum } from './metrics.ts';
import type { WebhookApi } from './webhook-api.ts';

/**
 * How alarms are evaluated (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html):
 * every minute, over the last `periods` periods that end at that minute. A data point that arrives late is seen if its
 * period is still among these, so an alarm on what is stamped early, or arrives late, looks at more periods. Periods ×
 * their length are at most a day, or seven days if a period is an hour or longer.
 */

/** The parts of the stack whose metrics raise alarms. */
export interface Sources {
  readonly webhook: WebhookApi;
  readonly check: CheckWorkflow;
  readonly joins: JoinsTable;
}

/** What is measured, and when it is too much. */
export interface Condition {
  readonly metric: IMetric;
  /** It holds above this. */
  readonly threshold: number;
  /** The number of consecutive periods that are evaluated. All but `spare` of them must be above the threshold. */
  readonly periods: number;
  readonly spare?: number;
  /** How missing data is treated. Default: no data means that nothing happened, which is good. */
  readonly missing?: TreatMissingData;
}

interface Described {
  /** The alarm's name after the stack's name, and its heading in docs/runbook.md. */
  readonly title: string;
  /**
   * high: users are not notified, or get wrong notices, until an operator acts.
   * low: nothing is lost yet, and it can wait until the morning.
   */
  readonly severity: 'high' | 'low';
  /** What the users notice. */
  readonly effect: string;
}

/** An alarm that depends on several conditions, or on other alarms. */
export interface Composed extends Described {
  readonly conditions: Readonly<Record<string, Condition>>;
  /**
   * When it is raised, as a rule of a composite alarm. `alarm` names a condition, or another alarm that is not itself
   * composed, by its title.
   */
  readonly rule: (alarm: (name: string) => string) => string;
}

export type Definition = (Described & Condition) | Composed;

/** Half of the time that a webhook may take. */
const SLOW_WEBHOOK_MS = (WEBHOOK_TIME.answerWithinSeconds * 1000) / 2;
/** The oldest event of a server that works has waited for less: it sends again at least once a minute. */
const OLD_QUEUE_MS = Duration.minutes(3).toMilliseconds();
/**
 * A minute late, and the minute for which a check waits for a first room that does not answer (`ping_muc_timeout`).
 * With a longer time-out, silent rooms may raise the alarm.
 */
const LATE_ANSWER_MS = Duration.minutes(2).toMilliseconds();
/**
 * An invocation hands over to the next one when two ping time-outs and two minutes (CLOSING_MS in
 * functions/core/limits.ts) are left of its 15 minutes, after which Lambda would end it.
 */
const LONG_CHECK_MS = Duration.seconds(14 * 60 + 30).toMilliseconds();
/** Alarms, and a condition of one, whose causes also make checks late: one fault notifies once. */
const DELAYING = [
  'Webhooks fail',
  'Server is out of reach',
  'Check function is throttled',
  'Checks take too long',
  'Check function fails, faults',
  'Check function fails, errors',
];
const HALF_AN_HOUR = 6;
const AN_HOUR = 12;

/** Alarms about the reports of the XMPP server, from its request to the table. */
// eslint-disable-next-line max-lines-per-function -- a table
export function webhookAlarms(scope: Construct, { webhook, joins }: Sources): readonly Definition[] {
  return [
    {
      // the function's own errors and time-outs reach the sender as 5xx, too; its throttles are counted by Lambda alone
      title: 'Webhooks fail',
      severity: 'high',
      effect: 'Joins and closes are not stored. The XMPP server keeps them and retries, so notices are late, not lost.',
      metric: sum('failed', {
        answers: webhook.stage.metricServerError({ statistic: Stats.SUM, period: PERIOD }),
        throttles: webhook.function.metricThrottles({ period: PERIOD }),
      }),
      threshold: 0,
      periods: 3,
      spare: 1,
    },
    {
      title: 'Webhooks are slow',
      severity: 'low',
      effect:
        'Joins and closes are stored seconds late. ' +
        `After ${WEBHOOK_TIME.answerWithinSeconds} seconds a webhook fails, and the XMPP server sends it again.`,
      metric: webhook.function.metricDuration({ statistic: Stats.percentile(99), period: PERIOD }),
      threshold: SLOW_WEBHOOK_MS,
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
      // Each server reports every five minutes (ping_muc_heartbeat), and any report counts the hosts that are silent.
      // If none reports, there is no data. If reports fail, or the server is out of reach, that alarm says more.
      title: 'A server is silent',
      severity: 'high',
      effect: 'The users of a server that has not reported for 15 minutes are not watched.',
      conditions: {
        silence: {
          metric: emitted(scope, 'HostsSilent'),
          threshold: 0,
          periods: 2,
          missing: TreatMissingData.BREACHING,
        },
      },
      rule: (alarm) =>
        `${alarm('silence')} AND NOT ` +
        `(${alarm('Webhooks fail')} OR ${alarm('Signatures are rejected')} OR ${alarm('Server is out of reach')})`,
    },
    {
      title: "The server's queue is old",
      severity: 'low',
      effect: 'Joins and closes are reported minutes late, so notices are late.',
      metric: emitted(scope, 'QueueAge'),
      threshold: OLD_QUEUE_MS,
      periods: 3,
      spare: 1,
    },
    {
      title: 'Table is throttled',
      severity: 'low',
      effect:
        'Joins are stored late, and notices are late: ' +
        'one pair of hosts needs more writes a second than one key of the table accepts.',
      metric: joins.metricThrottled(),
      threshold: 0,
      periods: 3,
      spare: 1,
    },
  ];
}

/** Alarms about the checks, from the wait to the notice. */
// eslint-disable-next-line max-lines-per-function -- a table
export function checkAlarms(scope: Construct, { check }: Sources): readonly Definition[] {
  const unreachable = sum('server out of reach or busy', {
    unreachable: emitted(scope, 'ServerUnreachable'),
    busy: emitted(scope, 'ServerBusy'),
  });
  return [
    {
      // Metrics of Step Functions may arrive minutes late. For an hour, further failures belong to the same alarm.
      title: 'Checks fail',
      severity: 'high',
      effect: 'Users who were removed from their rooms are not notified until the failed checks are redriven.',
      metric: sum('failed', {
        failed: check.stateMachine.metricFailed({ period: PERIOD }),
        timedOut: check.stateMachine.metricTimedOut({ period: PERIOD }),
      }),
      threshold: 0,
      periods: AN_HOUR,
      spare: AN_HOUR - 1,
    },
    {
      title: 'Checks are late',
      severity: 'low',
      effect: 'Users who were removed from their rooms are notified more than two minutes late.',
      conditions: {
        // one period: reports that have waited arrive together, and the alarm is over before that of its cause
        late: {
          metric: sum('late', { late: emitted(scope, 'AnswerLateness') }),
          threshold: LATE_ANSWER_MS,
          periods: 1,
        },
      },
      rule: (alarm) => `${alarm('late')} AND NOT (${DELAYING.map(alarm).join(' OR ')})`,
    },
    {
      // An invocation that dies cannot count itself, and Lambda counts all errors alike, at the time of the
      // invocation's start. So these errors count only while, for longer than they do, the server was neither out of
      // reach nor busy. (Step Functions counts the failures of lambda:invoke for all state machines of the account
      // together.)
      title: 'Check function fails',
      severity: 'low',
      effect: 'Notices are late: the check is retried for some minutes, and then fails.',
      conditions: {
        faults: { metric: emitted(scope, 'CheckFaults'), threshold: 0, periods: 3, spare: 1 },
        errors: { metric: check.function.metricErrors({ period: PERIOD }), threshold: 0, periods: 3, spare: 1 },
        interruptions: { metric: unreachable, threshold: 0, periods: HALF_AN_HOUR, spare: HALF_AN_HOUR - 1 },
      },
      rule: (alarm) =>
        `${alarm('faults')} OR (${alarm('errors')} AND NOT ` +
        `(${alarm('interruptions')} OR ${alarm('Checks take too long')}))`,
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
      // Lambda's metric arrives when the invocation ends, and is stamped with its start, 15 minutes earlier
      title: 'Checks take too long',
      severity: 'low',
      effect:
        'Notices are late, and some pings are sent twice: Lambda ends an invocation after 15 minutes; it is retried.',
      metric: check.function.metricDuration({ statistic: Stats.MAXIMUM, period: PERIOD }),
      threshold: LONG_CHECK_MS,
      periods: HALF_AN_HOUR,
      spare: HALF_AN_HOUR - 1,
    },
    {
      // One check tries after 5, 10 … 300 s at most, each time a random part of it, so in nearly every period of five
      // minutes. Three of them in 20 minutes: within 12 minutes of the first failure, and not for a restart of Prosody.
      title: 'Server is out of reach',
      severity: 'high',
      effect:
        'Users who were removed from their rooms are not notified until the server can be reached again. ' +
        'After six hours their checks fail.',
      metric: unreachable,
      threshold: 0,
      periods: 4,
      spare: 1,
    },
    {
      // a held check looks every minute whether it may continue
      title: 'A check is held',
      severity: 'high',
      effect: 'A check found more users out of their rooms than ping_muc_notice_limit, and waits for your word.',
      metric: emitted(scope, 'ChecksHeld'),
      threshold: 0,
      periods: 2,
      spare: 1,
    },
    {
      title: 'Checks are paused',
      severity: 'low',
      effect: 'For half an hour, checks have waited because an operator paused them, so nobody is notified.',
      metric: emitted(scope, 'ChecksPaused'),
      threshold: 0,
      periods: AN_HOUR,
      spare: AN_HOUR - HALF_AN_HOUR,
    },
  ];
}
