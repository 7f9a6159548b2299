import { Duration } from 'aws-cdk-lib';
import { HttpApi, HttpMethod } from 'aws-cdk-lib/aws-apigatewayv2';
import { HttpLambdaIntegration } from 'aws-cdk-lib/aws-apigatewayv2-integrations';
import type { TableV2 } from 'aws-cdk-lib/aws-dynamodb';
import type { Secret } from 'aws-cdk-lib/aws-secretsmanager';
import type { StateMachine } from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { ENV } from '../functions/names.ts';
import { NodeFunction } from './node-function.ts';

interface Props {
  readonly table: TableV2;
  readonly secret: Secret;
  readonly stateMachine: StateMachine;
  readonly xmppHosts: readonly string[];
}

const PATH = '/webhooks';

/** Where the XMPP server reports: one route, one function. */
export class WebhookApi extends Construct {
  readonly function: NodeFunction;
  readonly url: string;

  constructor(scope: Construct, id: string, props: Props) {
    super(scope, id);
    this.function = new NodeFunction(this, 'Function', {
      entry: 'webhook.ts',
      description: 'ping-muc: records joins and leaves, starts the checks of closes',
      timeout: Duration.seconds(25), // less than the 30 s for which an HTTP API waits
      memorySize: 512,
      environment: {
        [ENV.tableName]: props.table.tableName,
        [ENV.secretArn]: props.secret.secretArn,
        [ENV.stateMachineArn]: props.stateMachine.stateMachineArn,
        [ENV.xmppHosts]: props.xmppHosts.join(','),
      },
    });
    props.table.grantWriteData(this.function);
    props.secret.grantRead(this.function);
    props.stateMachine.grantStartExecution(this.function);

    const api = new HttpApi(this, 'Api', { description: 'ping-muc: webhooks from XMPP servers' });
    api.addRoutes({ path: PATH, methods: [HttpMethod.POST], integration: new HttpLambdaIntegration('Integration', this.function) });
    this.url = `${api.apiEndpoint}${PATH}`;
  }
}
