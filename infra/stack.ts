import { CfnOutput, RemovalPolicy, Stack, type StackProps } from 'aws-cdk-lib';
import type { Construct } from 'constructs';
import { Alarms } from './alarms.ts';
import { CheckWorkflow } from './check-workflow.ts';
import type { Config } from './config.ts';
import { Dashboard } from './dashboard.ts';
import { JoinsTable } from './joins-table.ts';
import type { FunctionDefaults } from './node-function.ts';
import { prosodySettings } from './prosody-settings.ts';
import { WebhookApi } from './webhook-api.ts';
import { WebhookSecret } from './webhook-secret.ts';

export class PingMucStack extends Stack {
  constructor(scope: Construct, config: Config, props: StackProps = {}) {
    super(scope, 'PingMuc', { ...props, stackName: config.stackName, tags: { ...config.tags } });
    const removalPolicy = config.removalPolicy === 'destroy' ? RemovalPolicy.DESTROY : RemovalPolicy.RETAIN;
    const defaults: FunctionDefaults = { logRetention: config.logRetentionDays, removalPolicy };
    const joins = new JoinsTable(this, 'Joins', { removalPolicy });
    const secret = new WebhookSecret(this, 'WebhookSecret', { removalPolicy });
    const { table } = joins;
    const { serverApiUrl, network, xmppHosts, checkConcurrency, webhookConcurrency } = config;
    const check = new CheckWorkflow(this, 'Check', {
      defaults,
      table,
      secret,
      serverApiUrl,
      network,
      concurrency: checkConcurrency,
    });
    const { stateMachine } = check;
    const webhook = new WebhookApi(this, 'Webhook', {
      defaults,
      table,
      secret,
      stateMachine,
      xmppHosts,
      concurrency: webhookConcurrency,
    });
    const { alarms } = new Alarms(this, 'Alarms', { webhook, check, joins, email: config.alarmEmail });
    const { url: dashboardUrl } = new Dashboard(this, 'Dashboard', { webhook, check, joins, alarms });

    const output = (id: string, description: string, value: string): CfnOutput =>
      new CfnOutput(this, id, { description, value });
    output('WebhookUrl', 'ping_muc_webhook_url in the configuration of Prosody', webhook.url);
    output('SecretArn', 'For rotating the secret, as docs/operating.md says', secret.secretArn);
    output('SecretCommand', 'Shows the secret, as Prosody takes it', secretCommand(this.region, secret.secretArn));
    output('DashboardUrl', 'The dashboard', dashboardUrl);
    output(
      'ProsodySettings',
      'What to paste into the configuration of Prosody',
      prosodySettings({
        serverApiUrl,
        webhookUrl: webhook.url,
        secret: '(what the command of SecretCommand shows)',
        delaySeconds: config.defaultDelaySeconds,
        timeoutSeconds: config.defaultTimeoutSeconds,
        patienceSeconds: config.defaultPatienceSeconds,
        xmppHosts,
      }),
    );
  }
}

/** A command for a shell; Node is at hand where the CDK is. */
function secretCommand(region: string, secretArn: string): string {
  const show = `JSON.parse(fs.readFileSync(0)).current.replace(/^(whsec_)?/, "whsec_")`;
  return `aws secretsmanager get-secret-value --region ${region} --secret-id ${secretArn} --query SecretString --output text | node -p '${show}'`;
}
