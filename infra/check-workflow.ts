import { type CfnElement, Duration, Stack, Validations } from 'aws-cdk-lib';
import {
  Choice,
  Condition,
  DefinitionBody,
  Fail,
  JitterType,
  LogLevel,
  StateMachine,
  StateMachineType,
  Succeed,
  Timeout,
  Wait,
  WaitTime,
  type RetryProps,
} from 'aws-cdk-lib/aws-stepfunctions';
import { LambdaInvoke } from 'aws-cdk-lib/aws-stepfunctions-tasks';
import type { TableV2 } from 'aws-cdk-lib/aws-dynamodb';
import { LogGroup } from 'aws-cdk-lib/aws-logs';
import { Construct } from 'constructs';
import { ENV, ERRORS } from '../functions/names.ts';
import type { Network } from './config.ts';
import { type FunctionDefaults, NodeFunction } from './node-function.ts';
import type { WebhookSecret } from './webhook-secret.ts';

/**
 * The XMPP server is down, or busy for longer than the five seconds for which the function waits: hours of patience. 5,
 * 10, 20 … 300 s, each drawn anew between 0 and that (full jitter): 6 waits of 158 s on average in all, then 150 s
 * each, so 150 attempts last some six hours. A busy server is so asked for five seconds by the function, and again
 * after 2.5, 5, 10 … s on average.
 */
const SERVER_UNREACHABLE: RetryProps = {
  errors: [ERRORS.serverUnreachable, ERRORS.serverBusy],
  interval: Duration.seconds(5),
  backoffRate: 2,
  maxDelay: Duration.minutes(5),
  maxAttempts: 150,
  jitterStrategy: JitterType.FULL,
};

/**
 * More checks at a time than invocations that the account, or the operator, allows: they come to an end, so wait.
 * 2, 4, 8 … 60 s with full jitter: 5 waits of 31 s on average in all, then 30 s each, so 240 attempts last some two hours.
 */
const NO_CONCURRENCY_LEFT: RetryProps = {
  errors: ['Lambda.TooManyRequestsException'],
  interval: Duration.seconds(2),
  backoffRate: 2,
  maxDelay: Duration.minutes(1),
  maxAttempts: 240,
  jitterStrategy: JitterType.FULL,
};

/**
 * Whatever else fails may pass: a call that AWS did not answer, a function that died, a table that throttles for minutes.
 * 2, 4, 8 … 60 s with full jitter: 5 waits of 31 s on average in all, then 30 s each, so 40 attempts last some 18 minutes.
 */
const PASSING_FAULT: RetryProps = {
  errors: ['States.ALL'],
  interval: Duration.seconds(2),
  backoffRate: 2,
  maxDelay: Duration.minutes(1),
  maxAttempts: 40,
  jitterStrategy: JitterType.FULL,
};

/**
 * The longest that a check can take: a delay of a day, patience of a day, and six hours in which the server is out of
 * reach, several times over. After that its users have long found out by themselves.
 */
const LONGEST_CHECK = Duration.days(7);

interface Props {
  readonly defaults: FunctionDefaults;
  readonly table: TableV2;
  readonly secret: WebhookSecret;
  readonly serverApiUrl: string;
  readonly network: Network | undefined;
  readonly concurrency: number | undefined;
}

/** What follows a close, or another cause: the wait, the check, and asking again. */
export class CheckWorkflow extends Construct {
  readonly stateMachine: StateMachine;
  readonly function: NodeFunction;
  readonly log: LogGroup;

  constructor(scope: Construct, id: string, props: Props) {
    super(scope, id);
    this.function = new NodeFunction(this, 'Function', {
      defaults: props.defaults,
      entry: 'check.ts',
      description: 'ping-muc: pings the joins on a remote host, decides, notifies the lost',
      timeout: Duration.minutes(15), // the most that Lambda gives; an invocation hands over to the next in good time
      // mostly it waits for rooms, and waiting is paid by memory; it holds four batches of 250 joins, and needs a quarter of this.
      // The rest buys processor time: 0.3 of one, with which 1,000 pings are written and their answers read in a second
      memorySize: 512,
      concurrency: props.concurrency, // so that no number of checks takes from webhooks what they need
      network: props.network,
      environment: {
        [ENV.tableName]: props.table.tableName,
        [ENV.secretArn]: props.secret.secretArn,
        [ENV.serverApiUrl]: props.serverApiUrl,
      },
    });
    props.table.grant(
      this.function,
      'dynamodb:GetItem',
      'dynamodb:Query',
      'dynamodb:UpdateItem',
      'dynamodb:DeleteItem',
    );
    props.secret.grantRead(this.function);

    const ping = new LambdaInvoke(this, 'Ping and notify', {
      lambdaFunction: this.function,
      outputPath: '$.Payload',
      retryOnServiceExceptions: false, // it leaves out throttling; ours takes them all
      taskTimeout: Timeout.duration(Duration.minutes(16)), // longer than the function's own
    });
    ping.addRetry(SERVER_UNREACHABLE);
    ping.addRetry(NO_CONCURRENCY_LEFT);
    ping.addRetry(PASSING_FAULT);
    ping.addCatch(
      new Fail(this, 'Check failed', {
        error: 'CheckFailed',
        cause: 'The check could not be completed; see docs/runbook.md',
      }),
      {
        resultPath: '$.failure',
      },
    );
    const wait = new Wait(this, 'Wait for ping_muc_delay', { time: WaitTime.secondsPath('$.wait') });
    const again = new Wait(this, 'Wait before asking again', { time: WaitTime.secondsPath('$.wait') });
    const left = new Choice(this, 'What is left?')
      .when(Condition.stringEquals('$.next', 'page'), ping)
      .when(Condition.stringEquals('$.next', 'wait'), again)
      .otherwise(new Succeed(this, 'Done'));
    again.next(ping);

    const { logRetention, removalPolicy } = props.defaults;
    this.log = new LogGroup(this, 'StateMachineLogs', { retention: logRetention, removalPolicy });
    this.stateMachine = new StateMachine(this, 'StateMachine', {
      stateMachineType: StateMachineType.STANDARD,
      definitionBody: DefinitionBody.fromChainable(wait.next(ping).next(left)),
      timeout: LONGEST_CHECK,
      comment:
        'ping-muc: what follows a closed s2s connection, or another cause to doubt that users are in their rooms',
      // what failed, and not with what: a state holds JIDs (where it goes on), and Step Functions shows it for 90 days anyhow
      logs: { destination: this.log, level: LogLevel.ERROR, includeExecutionData: false },
      tracingEnabled: true,
    });
    const functionId = Stack.of(this).getLogicalId(this.function.node.defaultChild as CfnElement);
    Validations.of(this.stateMachine).acknowledge(
      {
        id: 'AwsSolutions-SF1',
        reason:
          'Errors are logged; each further step is in the history that Step Functions keeps for 90 days, and would only be paid for twice',
      },
      {
        id: 'AwsSolutions-IAM5[Resource::*]',
        reason: 'Log deliveries and X-Ray trace segments are for no resource in particular',
      },
      {
        id: `AwsSolutions-IAM5[Resource::<${functionId}.Arn>:*]`,
        reason: 'The versions of the one function that the workflow calls',
      },
    );
  }
}
