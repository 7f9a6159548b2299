import { CfnOutput, RemovalPolicy, Stack, type StackProps } from 'aws-cdk-lib';
import type { Construct } from 'constructs';
import { Alarms } from './alarms.ts';
import { CheckWorkflow } from './check-workflow.ts';
import type { Config } from './config.ts';
import { Dashboard } from './dashboard.ts';
import { JoinsTable } from './joins-table.ts';
import { GradualRelease } from './gradual-release.ts';
import type { FunctionDefaults } from './node-function.ts';
import { SERVERS } from './server-settings.ts';
import { WebhookApi } from './webhook-api.ts';
import { WebhookSecret } from './webhook-secret.ts';

/** What the outputs tell the operator about. */
interface Described {
  readonly config: Config;
  readonly webhook: WebhookApi;
  readonly check: CheckWorkflow;
  readonly joins: JoinsTable;
  readonly secret: WebhookSecret;
  readonly dashboardUrl: string;
}

export class PingMucStack extends Stack {
  constructor(scope: Construct, config: Config, props: StackProps = {}) {
    super(scope, 'PingMuc', { ...props, stackName: config.stackName, tags: { ...config.tags } });
    this.templateOptions.metadata = { ...config.given };
    const removalPolicy = config.removalPolicy === 'destroy' ? RemovalPolicy.DESTROY : RemovalPolicy.RETAIN;
    const defaults: FunctionDefaults = { logRetention: config.logRetentionDays, removalPolicy };
    const joins = new JoinsTable(this, 'Joins', { removalPolicy });
    const secret = new WebhookSecret(this, 'WebhookSecret', { removalPolicy });
    const { table } = joins;
    const { serverApiUrl, network, xmppHosts, checkConcurrency, webhookConcurrency, runbookUrl } = config;
    const check = new CheckWorkflow(this, 'Check', {
      defaults,
      table,
      secret,
      serverApiUrl,
      network,
      concurrency: checkConcurrency,
      runbookUrl,
    });
    const { stateMachine } = check;
    const webhook = new WebhookApi(this, 'Webhook', {
      defaults,
      table,
      secret,
      stateMachine,
      xmppHosts,
      concurrency: webhookConcurrency,
      domain: config.domain,
    });
    new GradualRelease(this, 'Release', { webhook, check, minutes: config.releaseMinutes });
    const { alarmEmail: email, alarmTopicArns: topicArns } = config;
    const { alarms } = new Alarms(this, 'Alarms', { webhook, check, joins, email, topicArns, runbookUrl });
    const { url: dashboardUrl } = new Dashboard(this, 'Dashboard', { webhook, check, joins, alarms });

    this.#outputs({ config, webhook, check, joins, secret, dashboardUrl });
  }

  #outputs({ config, webhook, check, joins, secret, dashboardUrl }: Described): void {
    const output = (id: string, description: string, value: string): CfnOutput =>
      new CfnOutput(this, id, { description, value });
    output('WebhookUrl', 'The URL of the webhook in the configuration of the XMPP server', webhook.url);
    if (webhook.domainTarget !== undefined)
      output('WebhookDomainTarget', 'The DNS record of webhookDomain is a CNAME for this name', webhook.domainTarget);
    output('SecretArn', 'The ARN of the secret, for its rotation (docs/operating.md)', secret.secretArn);
    output(
      'SecretCommand',
      'Shows the secret in the form that the XMPP server takes',
      secretCommand(this.region, secret.secretArn),
    );
    output('TableName', 'The table, for npm run control (docs/operating.md)', joins.table.tableName);
    output(
      'CheckFunctionName',
      'The check function, for npm run doctor (docs/operating.md)',
      `${check.function.functionName}:${check.function.live.aliasName}`,
    );
    output('DashboardUrl', 'The address of the dashboard', dashboardUrl);
    const settings = {
      serverApiUrl: config.serverApiUrl,
      webhookUrl: webhook.url,
      secret: '(the output of the command in SecretCommand)',
      delaySeconds: config.defaultDelaySeconds,
      timeoutSeconds: config.defaultTimeoutSeconds,
      patienceSeconds: config.defaultPatienceSeconds,
      xmppHosts: config.xmppHosts,
    };
    const { prosody, ejabberd } = SERVERS;
    output('ProsodySettings', 'The lines to paste into the configuration of Prosody', prosody.settings(settings));
    output('EjabberdSettings', 'The lines for the configuration of ejabberd', ejabberd.settings(settings));
  }
}

/** A shell command. It uses Node, which the CDK needs anyway. */
function secretCommand(region: string, secretArn: string): string {
  const show = `JSON.parse(fs.readFileSync(0)).current.replace(/^(whsec_)?/, "whsec_")`;
  const get = `aws secretsmanager get-secret-value --region ${region} --secret-id ${secretArn}`;
  return `${get} --query SecretString --output text | node -p '${show}'`;
}
