import { Aws, Duration, Stack } from 'aws-cdk-lib';
import {
  AlarmStatusWidget,
  type Alarm,
  Dashboard as CloudWatchDashboard,
  GraphWidget,
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
  readonly alarms: readonly Alarm[];
}

/** A row of the dashboard takes 24 columns. */
const [THIRD, WHOLE] = [8, 24];

/** What an operator looks at: the journey of an event, from top to bottom, and the questions asked of the logs. */
export class Dashboard extends Construct {
  readonly url: string;

  constructor(scope: Construct, id: string, props: Props) {
    super(scope, id);
    const { stackName } = Stack.of(this);
    // dashboards are known to the whole account, whatever their region
    const dashboardName = `${stackName}-${Aws.REGION}`;
    new CloudWatchDashboard(this, 'Dashboard', {
      dashboardName,
      defaultInterval: Duration.days(1),
      widgets: this.#rows(props),
    });
    this.url = `https://${Aws.REGION}.console.aws.amazon.com/cloudwatch/home?region=${Aws.REGION}#dashboards/dashboard/${dashboardName}`;
    this.#saveQueries(props);
  }

  #rows({ webhook, check, joins, alarms }: Props): (TextWidget | GraphWidget | AlarmStatusWidget)[][] {
    const { stateMachine } = check;
    const own = (...names: Metric[]): IMetric[] => names.map((name) => emitted(this, name, { label: name }));
    const times = (name: Metric): IMetric[] =>
      [50, 99].map((p) => emitted(this, name, { statistic: Stats.percentile(p), label: `${name} p${p}` }));
    const graph = (title: string, left: IMetric[], more: { right?: IMetric[]; stacked?: boolean } = {}): GraphWidget =>
      new GraphWidget({ title, left, ...more, width: THIRD, leftYAxis: { min: 0, showUnits: false } });
    const heading = (markdown: string): TextWidget => new TextWidget({ markdown, width: WHOLE, height: 1 });
    return [
      [new AlarmStatusWidget({ title: 'Alarms (docs/runbook.md)', alarms: [...alarms], width: WHOLE, height: 4 })],
      [heading('## 1. The server reports')],
      [
        graph('Webhooks received', own('WebhooksAccepted'), {
          right: [webhook.stage.metricCount({ statistic: Stats.SUM, label: 'requests' })],
        }),
        graph('Rejected, by reason', own('WebhooksUnauthorized', 'WebhooksMalformed', 'EventsRejected'), {
          stacked: true,
        }),
        graph(
          'Time to answer (ms)',
          [50, 99].map((p) => webhook.function.metricDuration({ statistic: Stats.percentile(p), label: `p${p}` })),
        ),
      ],
      [heading('## 2. Joins and leaves are recorded')],
      [
        graph('Joins and leaves', own('JoinsRecorded', 'LeavesRecorded')),
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
      [heading('## 3. A connection closes, or a room is in doubt, and the check waits')],
      [
        graph('Checks', own('ChecksStarted', 'ChecksSuperseded', 'ChecksDone')),
        graph('Checks waiting or running, more than when this graph begins', [
          new MathExpression({
            label: 'checks',
            expression:
              'RUNNING_SUM(FILL(started, 0) - FILL(succeeded, 0) - FILL(failed, 0) - FILL(timedOut, 0) - FILL(aborted, 0))',
            usingMetrics: {
              started: stateMachine.metricStarted(),
              succeeded: stateMachine.metricSucceeded(),
              failed: stateMachine.metricFailed(),
              timedOut: stateMachine.metricTimedOut(),
              aborted: stateMachine.metricAborted(),
            },
          }),
        ]),
        graph('From due to the first ping (ms)', times('CheckLateness')),
      ],
      [
        graph(
          'Checks started, by cause',
          own('ChecksByClose', 'ChecksByRoomError', 'ChecksBySilence', 'ChecksByOperator'),
          { stacked: true },
        ),
      ],
      [heading('## 4. Rooms are asked, and users who are out are brought back or notified')],
      [
        graph(
          'Pings, by verdict',
          own('VerdictJoined', 'VerdictLeft', 'VerdictUndecided', 'VerdictGone', 'VerdictStale'),
          { stacked: true, right: own('PingsSent', 'JoinsProved') },
        ),
        graph('Notices', own('Notices', 'DryRunNotices')),
        graph('From due to notified (ms)', times('DueToNotified')),
      ],
      [
        graph('Re-entries (ping_muc_reenter)', own('Reentries', 'DryRunReentries', 'ReentriesRefused'), {
          right: own('HistoryGaps'),
        }),
      ],
      [heading('## 5. What fails')],
      [
        graph('Server out of reach, or busy', own('ServerUnreachable', 'ServerBusy')),
        graph('Functions: errors and throttles', [
          webhook.function.metricErrors({ label: 'webhook errors' }),
          check.function.metricErrors({ label: 'check errors' }),
          webhook.function.metricThrottles({ label: 'webhook throttles' }),
          check.function.metricThrottles({ label: 'check throttles' }),
        ]),
        graph('Checks and requests that failed', [
          stateMachine.metricFailed({ label: 'checks failed' }),
          stateMachine.metricTimedOut({ label: 'checks timed out' }),
          webhook.stage.metricServerError({ statistic: Stats.SUM, label: 'webhooks failed' }),
        ]),
      ],
    ];
  }

  /** In the console: CloudWatch, Logs Insights, Saved queries. Words in capitals are to be replaced. */
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
        'level in ["WARN", "ERROR"] or type like /Failed|TimedOut|Aborted/ or @message like /Task timed out|Runtime\\./',
      ],
    });
    save('Requests refused before the function', [webhook.accessLog], {
      fields: ['@timestamp', 'sourceIp', 'method', 'path', 'status', 'error', 'integrationError'],
      filterStatements: ['status >= 400'],
    });
  }
}
