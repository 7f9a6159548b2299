import { Aws, Duration, Stack } from 'aws-cdk-lib';
import {
  AlarmStatusWidget,
  Dashboard as CloudWatchDashboard,
  GraphWidget,
  type IAlarm,
  type IMetric,
  MathExpression,
  Stats,
  TextWidget,
} from 'aws-cdk-lib/aws-cloudwatch';
import { type ILogGroup, QueryDefinition, QueryString, type QueryStringProps } from 'aws-cdk-lib/aws-logs';
import { Construct } from 'constructs';
import type { Metric } from '../functions/names.ts';
import type { CheckWorkflow } from './check-workflow.ts';
import type { JoinsTable } from './joins-table.ts';
import { emitted } from './metrics.ts';
import type { WebhookApi } from './webhook-api.ts';

interface Props {
  readonly webhook: WebhookApi;
  readonly check: CheckWorkflow;
  readonly joins: JoinsTable;
  readonly alarms: readonly IAlarm[];
}

/** A row of a dashboard has 24 columns. */
const [THIRD, WHOLE] = [8, 24];

type Row = (TextWidget | GraphWidget | AlarmStatusWidget)[];

const graph = (title: string, left: IMetric[], more: { right?: IMetric[]; stacked?: boolean } = {}): GraphWidget =>
  new GraphWidget({ title, left, ...more, width: THIRD, leftYAxis: { min: 0, showUnits: false } });
const heading = (markdown: string): TextWidget => new TextWidget({ markdown, width: WHOLE, height: 1 });

/** The dashboard, which shows the path of an event from top to bottom, and the saved queries of the logs. */
export class Dashboard extends Construct {
  readonly url: string;

  constructor(scope: Construct, id: string, props: Props) {
    super(scope, id);
    const { stackName } = Stack.of(this);
    // the names of dashboards are shared by all regions of an account
    const dashboardName = `${stackName}-${Aws.REGION}`;
    new CloudWatchDashboard(this, 'Dashboard', {
      dashboardName,
      defaultInterval: Duration.days(1),
      widgets: this.#rows(props),
    });
    const console = `https://${Aws.REGION}.console.aws.amazon.com/cloudwatch/home`;
    this.url = `${console}?region=${Aws.REGION}#dashboards/dashboard/${dashboardName}`;
    this.#saveQueries(props);
  }

  #rows(props: Props): Row[] {
    const alarms = new AlarmStatusWidget({ title: 'Alarms', alarms: [...props.alarms], width: WHOLE, height: 4 });
    return [
      [alarms],
      ...this.#reports(props),
      ...this.#causes(props),
      ...this.#results(),
      ...this.#failures(props),
      ...this.#objective(),
    ];
  }

  #reports({ webhook, joins }: Props): Row[] {
    return [
      [heading('## 1. The server reports')],
      [
        graph('Webhooks received', this.#own('WebhooksAccepted'), {
          right: [webhook.stage.metricCount({ statistic: Stats.SUM, label: 'requests' })],
        }),
        graph('Rejected, by reason', this.#own('WebhooksUnauthorized', 'WebhooksMalformed', 'EventsRejected'), {
          stacked: true,
        }),
        graph(
          'Time to answer (ms)',
          [50, 99].map((p) => webhook.function.metricDuration({ statistic: Stats.percentile(p), label: `p${p}` })),
        ),
      ],
      [
        graph('Hosts that report', this.#own('HostsReporting', 'HostsSilent')),
        graph('Oldest event in a queue (ms)', this.#own('QueueAge'), { right: this.#own('QueueLength') }),
        graph('Time from a close to its report (ms)', this.#times('ReportDelay')),
      ],
      [heading('## 2. Joins and leaves are recorded')],
      [
        graph('Joins and leaves', this.#own('JoinsRecorded', 'LeavesRecorded')),
        graph('Table: units', [
          joins.table.metricConsumedWriteCapacityUnits({ label: 'written' }),
          joins.table.metricConsumedReadCapacityUnits({ label: 'read' }),
        ]),
        graph(
          'Table: throttled',
          ['ReadThrottleEvents', 'WriteThrottleEvents'].map((name) =>
            joins.table.metric(name, { statistic: Stats.SUM }),
          ),
        ),
      ],
    ];
  }

  #causes({ check: { stateMachine } }: Props): Row[] {
    const open = new MathExpression({
      label: 'checks',
      expression:
        'RUNNING_SUM(FILL(started, 0) - FILL(succeeded, 0) - FILL(failed, 0)' +
        ' - FILL(timedOut, 0) - FILL(aborted, 0))',
      usingMetrics: {
        started: stateMachine.metricStarted(),
        succeeded: stateMachine.metricSucceeded(),
        failed: stateMachine.metricFailed(),
        timedOut: stateMachine.metricTimedOut(),
        aborted: stateMachine.metricAborted(),
      },
    });
    return [
      [heading('## 3. A connection closes, or there is another cause, and the check waits')],
      [
        graph('Checks', this.#own('ChecksStarted', 'ChecksSuperseded', 'ChecksDone')),
        graph('Checks waiting or running, compared with the start of this graph', [open]),
        graph('Time from due to the first answer (ms)', this.#times('AnswerLateness')),
      ],
      [
        graph(
          'Checks started, by cause',
          this.#own('ChecksByClose', 'ChecksByRoomError', 'ChecksBySilence', 'ChecksByOperator'),
          { stacked: true },
        ),
        graph('Checks held', this.#own('ChecksHeld'), { right: this.#own('ChecksReleased', 'ChecksDropped') }),
        graph('Checks paused', this.#own('ChecksPaused')),
      ],
    ];
  }

  #results(): Row[] {
    const verdicts = this.#own('VerdictJoined', 'VerdictLeft', 'VerdictUndecided', 'VerdictGone', 'VerdictStale');
    return [
      [heading('## 4. Rooms are asked, and users who are out are brought back or notified')],
      [
        graph('Pings, by verdict', verdicts, { stacked: true, right: this.#own('PingsSent', 'JoinsProved') }),
        graph('Notices', this.#own('Notices', 'DryRunNotices')),
        graph('Re-entries (ping_muc_reenter)', this.#own('Reentries', 'DryRunReentries', 'ReentriesRefused'), {
          right: this.#own('HistoryGaps'),
        }),
      ],
    ];
  }

  #failures({ webhook, check }: Props): Row[] {
    return [
      [heading('## 5. Failures')],
      [
        graph('Checks interrupted, by cause', this.#own('ServerUnreachable', 'ServerBusy', 'CheckFaults'), {
          stacked: true,
        }),
        graph('Functions: errors and throttles', [
          webhook.function.metricErrors({ label: 'webhook errors' }),
          check.function.metricErrors({ label: 'check errors' }),
          webhook.function.metricThrottles({ label: 'webhook throttles' }),
          check.function.metricThrottles({ label: 'check throttles' }),
        ]),
        graph('Checks and requests that failed', [
          check.stateMachine.metricFailed({ label: 'checks failed' }),
          check.stateMachine.metricTimedOut({ label: 'checks timed out' }),
          webhook.stage.metricServerError({ statistic: Stats.SUM, label: 'webhooks failed' }),
        ]),
      ],
    ];
  }

  #objective(): Row[] {
    const hour = { period: Duration.hours(1) };
    const late = new MathExpression({
      label: 'late (%)',
      expression: '100 * late / (late + inTime)',
      usingMetrics: { late: emitted(this, 'NoticesLate', hour), inTime: emitted(this, 'NoticesInTime', hour) },
      ...hour,
    });
    return [
      [heading('## 6. 99 % of the users who were lost are told within the delay and 60 seconds')],
      [
        graph('Users told, in time or late', this.#own('NoticesInTime', 'NoticesLate'), { stacked: true }),
        graph('Users told late (%), by the hour', [late]),
        graph('Time from close to told (ms)', this.#times('CloseToNotice')),
      ],
    ];
  }

  /** Metrics that the functions emit. */
  #own(...names: Metric[]): IMetric[] {
    return names.map((name) => emitted(this, name, { label: name }));
  }

  /** The median and the 99th percentile of a time that the functions emit. */
  #times(name: Metric): IMetric[] {
    return [50, 99].map((p) => emitted(this, name, { statistic: Stats.percentile(p), label: `${name} p${p}` }));
  }

  /** In the console under CloudWatch, Logs Insights, Saved queries. The operator replaces the words in capitals. */
  #saveQueries({ webhook, check }: Props): void {
    const [webhooks, checks] = [webhook.function.logGroup, check.function.logGroup];
    const save = (name: string, logGroups: ILogGroup[], query: QueryStringProps): void => {
      new QueryDefinition(this, name, {
        queryDefinitionName: `${Stack.of(this).stackName}/${name}`,
        queryString: new QueryString({ sort: '@timestamp desc', limit: 1000, ...query }),
        logGroups,
      });
    };
    save('What happened to a user in a room', [checks], {
      fields: ['@timestamp', 'message', 'user', 'room', 'nick', 'answers', 'checkId'],
      filterStatements: ['user like "USER@EXAMPLE.NET" and room = "ROOM@MUC.HOST"'],
    });
    save('What a check did', [checks, check.log], {
      fields: ['@timestamp', 'message', 'type', 'user', 'room', 'answers', 'detail'],
      filterStatements: ['@message like "CHECK-ID"'],
    });
    save('The checks of a remote host', [webhooks, checks], {
      fields: [
        '@timestamp',
        'message',
        'cause',
        'room',
        'checkId',
        'totals.pinged',
        'totals.left',
        'totals.reentered',
        'totals.notified',
        'detail',
      ],
      filterStatements: ['remote = "MUC.HOST" or closed.0 = "MUC.HOST" or requested.0.remote = "MUC.HOST"'],
    });
    save('Webhooks refused, by reason', [webhooks], {
      filterStatements: ['message = "webhook refused"'],
      statsStatements: ['count(*) as refused, latest(@timestamp) as last by status, detail'],
      sort: 'refused desc',
    });
    save('Events rejected', [webhooks], {
      fields: ['@timestamp', 'host', 'webhookId', 'EventsRejected', '@message'],
      filterStatements: ['EventsRejected > 0'],
    });
    save('What went wrong', [webhooks, checks, check.log], {
      fields: ['@timestamp', '@log', 'message', 'error', 'detail', 'because', 'cause', '@message'],
      filterStatements: [
        'level in ["WARN", "ERROR"] or type like /Failed|TimedOut|Aborted/ ' +
          'or @message like /Task timed out|Runtime\\./',
      ],
    });
    save('Requests refused before the function', [webhook.accessLog], {
      fields: ['@timestamp', 'sourceIp', 'method', 'path', 'status', 'error', 'integrationError'],
      filterStatements: ['status >= 400'],
    });
  }
}
