import { Duration, Validations } from 'aws-cdk-lib';
import { AccessLogFormat } from 'aws-cdk-lib/aws-apigateway';
import {
  type CfnRoute,
  type CfnStage,
  DomainName,
  HttpApi,
  HttpMethod,
  HttpStage,
  LogGroupLogDestination,
} from 'aws-cdk-lib/aws-apigatewayv2';
import { HttpLambdaIntegration } from 'aws-cdk-lib/aws-apigatewayv2-integrations';
import { Certificate } from 'aws-cdk-lib/aws-certificatemanager';
import type { TableV2 } from 'aws-cdk-lib/aws-dynamodb';
import type { LogGroup } from 'aws-cdk-lib/aws-logs';
import type { StateMachine } from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { ENV, WEBHOOK_TIME } from '../functions/names.ts';
import type { Domain } from './config.ts';
import { type FunctionDefaults, NodeFunction } from './node-function.ts';
import { VendedLogGroup } from './vended-log-group.ts';
import type { WebhookSecret } from './webhook-secret.ts';

interface Props {
  readonly defaults: FunctionDefaults;
  readonly table: TableV2;
  readonly secret: WebhookSecret;
  readonly stateMachine: StateMachine;
  readonly xmppHosts: readonly string[];
  readonly concurrency: number | undefined;
  readonly domain: Domain | undefined;
}

const PATH = '/webhooks';

/** A longer list of hosts is a file of the bundle: a function's variables may take 4 KB together. */
const MAX_HOSTS_VARIABLE = 2000;
const HOSTS_FILE = 'hosts.json';

/**
 * Requests a second, and the burst after a pause.
 *
 * A server sends up to 1,000 events in a request, so a million joins a day need less than one request a second on
 * average, or twelve if each join has its own request.
 *
 * A flood of 50 requests a second costs some $4 a day for the API, and some $1 for the function. The API bills each
 * started 512 KB of a request and takes up to 10 MB, so a flood of such bodies costs twenty times as much, some $90 a
 * day. An HTTP API has no smaller limit for bodies: the function refuses what is over 256 KiB before it does anything
 * else, which the API bills nevertheless.
 */
const THROTTLE = { rateLimit: 50, burstLimit: 100 } as const;

/** One line for each request, without headers and body, because these contain signatures and JIDs. */
const ACCESS_LOG = {
  time: '$context.requestTime',
  requestId: '$context.requestId',
  sourceIp: '$context.identity.sourceIp',
  method: '$context.httpMethod',
  path: '$context.path',
  status: '$context.status',
  responseLength: '$context.responseLength',
  latencyMs: '$context.responseLatency',
  integrationStatus: '$context.integrationStatus',
  integrationError: '$context.integrationErrorMessage',
  error: '$context.error.message',
};

/** The HTTP API to which the XMPP server reports: one route, one function. */
export class WebhookApi extends Construct {
  readonly function: NodeFunction;
  readonly stage: HttpStage;
  readonly accessLog: LogGroup;
  readonly url: string;
  /** Where the DNS record of the operator's own domain must point. */
  readonly domainTarget: string | undefined;

  constructor(scope: Construct, id: string, props: Props) {
    super(scope, id);
    const hosts = props.xmppHosts.join(',');
    const isLong = hosts.length > MAX_HOSTS_VARIABLE;
    this.function = new NodeFunction(this, 'Function', {
      defaults: props.defaults,
      entry: 'webhook.ts',
      description: 'ping-muc: records joins and leaves, starts the checks of closes',
      // 1,000 events are 32 rows of writes, which take well under a second
      timeout: Duration.seconds(WEBHOOK_TIME.functionTimeoutSeconds),
      // It uses a quarter of the memory. Processor time grows with memory: this is 0.3 of a processor, and with half of
      // it a cold start takes twice as long.
      memorySize: 512,
      concurrency: props.concurrency,
      environment: {
        [ENV.tableName]: props.table.tableName,
        [ENV.secretArn]: props.secret.secretArn,
        [ENV.stateMachineArn]: props.stateMachine.stateMachineArn,
        [ENV.xmppHosts]: isLong ? `@${HOSTS_FILE}` : hosts,
      },
      files: isLong ? { [HOSTS_FILE]: JSON.stringify(props.xmppHosts) } : {},
    });
    props.table.grant(this.function, 'dynamodb:UpdateItem', 'dynamodb:Query'); // it reads the hosts' heartbeats
    props.secret.grantRead(this.function);
    props.stateMachine.grantStartExecution(this.function);

    const api = new HttpApi(this, 'Api', {
      description: 'ping-muc: webhooks from XMPP servers',
      createDefaultStage: false,
    });
    const [route] = api.addRoutes({
      path: PATH,
      methods: [HttpMethod.POST],
      integration: new HttpLambdaIntegration('Integration', this.function.live),
    });
    if (route === undefined) throw new Error('the API has no route');
    Validations.of(route).acknowledge({
      id: 'AwsSolutions-APIG4',
      reason:
        'Every request is signed (Standard Webhooks). The function verifies the signature over the whole body, ' +
        'which authorizers of HTTP APIs do not receive',
    });
    this.accessLog = new VendedLogGroup(this, 'AccessLogs', 'apigateway', props.defaults);
    const domainName = props.domain && this.#domainName(props.domain);
    this.stage = new HttpStage(this, 'Stage', {
      httpApi: api,
      stageName: '$default',
      autoDeploy: true,
      throttle: THROTTLE,
      ...(domainName && { domainMapping: { domainName } }),
      accessLogSettings: {
        destination: new LogGroupLogDestination(this.accessLog),
        format: AccessLogFormat.custom(JSON.stringify(ACCESS_LOG)),
      },
    });
    const cfnRoute = route.node.defaultChild as CfnRoute;
    const cfnStage = this.stage.node.defaultChild as CfnStage;
    cfnStage.routeSettings = {
      [cfnRoute.routeKey]: { ThrottlingRateLimit: THROTTLE.rateLimit, ThrottlingBurstLimit: THROTTLE.burstLimit },
    };
    cfnStage.addResourceDependency(cfnRoute); // API Gateway refuses settings of a route that does not exist yet
    this.url = `${props.domain ? `https://${props.domain.name}` : api.apiEndpoint}${PATH}`;
    this.domainTarget = domainName?.regionalDomainName;
  }

  /** A stack that is created again has another API, and keeps this name. */
  #domainName({ name, certificateArn }: Domain): DomainName {
    const certificate = Certificate.fromCertificateArn(this, 'Certificate', certificateArn);
    return new DomainName(this, 'Domain', { domainName: name, certificate });
  }
}
