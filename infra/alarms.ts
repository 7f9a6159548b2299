import { Aws, Duration, RemovalPolicy, Stack, Validations } from 'aws-cdk-lib';
import {
  Alarm,
  ComparisonOperator,
  type IMetric,
  MathExpression,
  Stats,
  TreatMissingData,
} from 'aws-cdk-lib/aws-cloudwatch';
import { SnsAction } from 'aws-cdk-lib/aws-cloudwatch-actions';
import { PolicyStatement, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Key } from 'aws-cdk-lib/aws-kms';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { EmailSubscription } from 'aws-cdk-lib/aws-sns-subscriptions';
import { Construct } from 'constructs';
import { WEBHOOK_TIME } from '../functions/names.ts';
import type { CheckWorkflow } from './check-workflow.ts';
import type { JoinsTable } from './joins-table.ts';
import { emitted, sum } from './metrics.ts';
import type { WebhookApi } from './webhook-api.ts';

interface Props {
  readonly webhook: WebhookApi;
  readonly check: CheckWorkflow;
  readonly joins: JoinsTable;
  readonly email: string | undefined;
}

interface Definition {
  /** The alarm's name after the stack's, and its heading in docs/runbook.md. */
  readonly title: string;
  /** high: users are not told, or not rightly, until somebody acts. low: nothing is lost yet; it can wait for the morning. */
  readonly severity: 'high' | 'low';
  /** What users notice. */
  readonly notice: string;
  readonly metric: IMetric;
  /** Raised above this, or below it where `below` is set. */
  readonly threshold: number;
  readonly below?: true;
  /** Of so many periods in a row, all but `spare` must be bad. */
  readonly periods: number;
  readonly spare?: number;
  /** What no data means; it means that nothing happened, and all is well, unless set. */
  readonly missing?: TreatMissingData;
}

/** Half of what a webhook may take. */
const SLOW_WEBHOOK_MS = (WEBHOOK_TIME.answerWithinSeconds * 1000) / 2;
/**
 * An invocation hands over to the next when two time-outs of a ping and two minutes are left (CLOSING_MS in
 * functions/core/limits.ts). After 15 minutes Lambda would kill it.
 */
const LONG_CHECK_MS = Duration.seconds(14 * 60 + 30).toMilliseconds();
const LATE_CHECK_MS = 60_000;

/** What wakes an operator up, and what waits until the morning. */
export class Alarms extends Construct {
  readonly alarms: readonly Alarm[];
  readonly topic: Topic;

  constructor(scope: Construct, id: string, props: Props) {
    super(scope, id);
    this.topic = this.#topic(props.email);
    const action = new SnsAction(this.topic);
    this.alarms = definitions(this, props).map((definition) => {
      const alarm = this.#alarm(definition);
      alarm.addAlarmAction(action);
      alarm.addOkAction(action);
      return alarm;
    });
  }

  #topic(email: string | undefined): Topic {
    const cloudWatch = new ServicePrincipal('cloudwatch.amazonaws.com');
    // CloudWatch may not use the key that SNS has of its own: an alarm would be raised, and nobody told
    const key = new Key(this, 'Key', {
      description: 'ping-muc: encrypts what alarms say',
      enableKeyRotation: true,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    key.grant(cloudWatch, 'kms:Decrypt', 'kms:GenerateDataKey*');
    const topic = new Topic(this, 'Topic', { displayName: Stack.of(this).stackName, masterKey: key, enforceSSL: true });
    // a topic that has a policy has lost the one by which its account's alarms could publish
    topic.addToResourcePolicy(
      new PolicyStatement({
        principals: [cloudWatch],
        actions: ['sns:Publish'],
        resources: [topic.topicArn],
        conditions: { StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID } },
      }),
    );
    if (email !== undefined) {
      const subscription = topic.addSubscription(new EmailSubscription(email));
      Validations.of(subscription).acknowledge({
        id: 'Serverless-SNSRedrivePolicy',
        reason:
          'An e-mail that could not be delivered is of no use in a queue: the alarm stays raised, and the dashboard shows it',
      });
    }
    return topic;
  }

  #alarm({
    title,
    severity,
    notice,
    metric,
    threshold,
    below,
    periods,
    spare = 0,
    missing = TreatMissingData.NOT_BREACHING,
  }: Definition): Alarm {
    const slug = title.toLowerCase().replaceAll(' ', '-');
    return new Alarm(
      this,
      title.replace(/ (\w)/g, (_, letter: string) => letter.toUpperCase()),
      {
        alarmName: `${Stack.of(this).stackName}: ${title}`,
        alarmDescription: `Severity ${severity}. ${notice} What to do: docs/runbook.md#${slug}`,
        metric,
        threshold,
        comparisonOperator: below ? ComparisonOperator.LESS_THAN_THRESHOLD : ComparisonOperator.GREATER_THAN_THRESHOLD,
        evaluationPeriods: periods,
        datapointsToAlarm: periods - spare,
        treatMissingData: missing,
      },
    );
  }
}

function definitions(scope: Construct, { webhook, check, joins }: Props): readonly Definition[] {
  const period = Duration.minutes(5);
  const p99 = { statistic: Stats.percentile(99), period };
  return [
    {
      title: 'Webhooks fail',
      severity: 'high',
      notice:
        'Joins and closes are not stored; the XMPP server keeps them and tries again, so notices come late, but come.',
      metric: webhook.stage.metricServerError({ statistic: Stats.SUM, period }),
      threshold: 0,
      periods: 3,
      spare: 1,
    },
    {
      title: 'Webhooks are throttled',
      severity: 'high',
      notice: 'Joins and closes are stored late: more come than the account, or webhookConcurrency, lets in.',
      metric: webhook.function.metricThrottles({ period }),
      threshold: 0,
      periods: 3,
      spare: 1,
    },
    {
      title: 'Webhooks are slow',
      severity: 'low',
      notice: `Nothing yet; at ${WEBHOOK_TIME.answerWithinSeconds} seconds webhooks begin to fail.`,
      metric: webhook.function.metricDuration(p99),
      threshold: SLOW_WEBHOOK_MS,
      periods: 3,
      spare: 1,
    },
    {
      title: 'Webhook function fails',
      severity: 'high',
      notice: 'Joins and closes are not stored: the function cannot start, or does not end.',
      metric: webhook.function.metricErrors({ period }),
      threshold: 0,
      periods: 3,
      spare: 1,
    },
    {
      // a sender tries again at least once a minute, so its wrong secret makes five of these in five minutes; a scanner makes one
      title: 'Signatures are rejected',
      severity: 'high',
      notice:
        'Users of a server whose secret, or clock, is wrong are not watched: nothing that it reports is believed.',
      metric: emitted(scope, 'WebhooksUnauthorized'),
      threshold: 3,
      periods: 3,
    },
    {
      title: 'Webhooks are malformed',
      severity: 'low',
      notice: 'Joins or closes that the server reported are not understood, so some users are not watched.',
      metric: sum('malformed', {
        webhooks: emitted(scope, 'WebhooksMalformed'),
        events: emitted(scope, 'EventsRejected'),
      }),
      threshold: 0,
      periods: 3,
      spare: 1,
    },
    {
      // every join is reported again once a day (ping_muc_refresh): a server with one single join is heard within 30 hours
      title: 'No webhook for long',
      severity: 'low',
      notice: 'Perhaps none, perhaps nobody is watched: no server has reported anything for 30 hours.',
      metric: emitted(scope, 'WebhooksAccepted', { period: Duration.hours(6) }),
      threshold: 1,
      below: true,
      periods: 5,
      missing: TreatMissingData.BREACHING,
    },
    {
      title: 'Checks fail',
      severity: 'high',
      notice: 'Users who fell out of their rooms when a connection closed are not told.',
      metric: sum('failed', {
        failed: check.stateMachine.metricFailed({ period }),
        timedOut: check.stateMachine.metricTimedOut({ period }),
        aborted: check.stateMachine.metricAborted({ period }),
      }),
      threshold: 0,
      periods: 1,
    },
    {
      title: 'Checks are late',
      severity: 'low',
      notice: 'Users who fell out of their rooms learn of it more than a minute late.',
      metric: emitted(scope, 'CheckLateness'),
      threshold: LATE_CHECK_MS,
      periods: 3,
      spare: 1,
    },
    {
      title: 'Check function fails',
      severity: 'low',
      notice: 'Notices come late: the check is tried again for some minutes, and fails after that.',
      metric: new MathExpression({
        label: 'errors other than a server that is out of reach or busy',
        expression: 'FILL(errors, 0) - FILL(unreachable, 0) - FILL(busy, 0)',
        usingMetrics: {
          errors: check.function.metricErrors({ period }),
          unreachable: emitted(scope, 'ServerUnreachable'),
          busy: emitted(scope, 'ServerBusy'),
        },
        period,
      }),
      threshold: 0,
      periods: 3,
      spare: 1,
    },
    {
      title: 'Check function is throttled',
      severity: 'low',
      notice: 'Notices come late: more checks are due than checkConcurrency, or the account, lets run.',
      metric: check.function.metricThrottles({ period }),
      threshold: 0,
      periods: 3,
    },
    {
      title: 'Checks take too long',
      severity: 'low',
      notice:
        'Notices come late, and some pings are sent twice: an invocation is killed at 15 minutes, and runs again.',
      metric: check.function.metricDuration(p99),
      threshold: LONG_CHECK_MS,
      periods: 1,
    },
    {
      // a restart of Prosody takes less
      title: 'Server is out of reach',
      severity: 'high',
      notice:
        'Users who fell out of their rooms are not told until the server can be reached again, and never after six hours.',
      metric: emitted(scope, 'ServerUnreachable'),
      threshold: 0,
      periods: 3,
    },
    {
      title: 'Table is throttled',
      severity: 'low',
      notice:
        'Joins are stored late, and notices come late: one pair of hosts makes more writes a second than one key of the table takes.',
      metric: sum('throttled', {
        reads: joins.table.metric('ReadThrottleEvents', { statistic: Stats.SUM, period }),
        writes: joins.table.metric('WriteThrottleEvents', { statistic: Stats.SUM, period }),
      }),
      threshold: 0,
      periods: 3,
      spare: 1,
    },
  ];
}
