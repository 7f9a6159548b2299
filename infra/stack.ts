import { CfnOutput, Stack, type StackProps } from 'aws-cdk-lib';
import type { Construct } from 'constructs';
import { CheckWorkflow } from './check-workflow.ts';
import type { Config } from './config.ts';
import { JoinsTable } from './joins-table.ts';
import { WebhookApi } from './webhook-api.ts';
import { WebhookSecret } from './webhook-secret.ts';

export class PingMucStack extends Stack {
  constructor(scope: Construct, config: Config, props: StackProps = {}) {
    super(scope, 'PingMuc', { ...props, stackName: config.stackName });
    const { table } = new JoinsTable(this, 'Joins');
    const { secret } = new WebhookSecret(this, 'WebhookSecret');
    const { stateMachine } = new CheckWorkflow(this, 'Check', { table, secret, serverApiUrl: config.serverApiUrl });
    const { url } = new WebhookApi(this, 'Webhook', { table, secret, stateMachine, xmppHosts: config.xmppHosts });
    new CfnOutput(this, 'WebhookUrl', { value: url, description: 'ping_muc_webhook_url in the configuration of Prosody' });
  }
}
