import { Duration, Validations } from 'aws-cdk-lib';
import {
  Choice,
  Condition,
  DefinitionBody,
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
import type { LogGroup } from 'aws-cdk-lib/aws-logs';
import { Construct } from 'constructs';
import { ENV, ERRORS } from '../functions/names.ts';
import type { Network } from './config.ts';
import { type FunctionDefaults, NodeFunction } from './node-function.ts';
import { VendedLogGroup } from './vended-log-group.ts';
import type { WebhookSecret } from './webhook-secret.ts';

/**
 * The XMPP server is down, or busy for longer than the five seconds for which the function itself retries. 5, 10, 20
 * … 300 s, each a random part of that (full jitter): 6 waits of 158 s in all on average, then 150 s each, so 150
 * attempts take some six hours. A busy server gets requests for five seconds from the function, and again after 2.5,
 * 5, 10 … s on average.
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
 * More checks are due than the account, or the operator, lets run at a time. Running checks end, so this one waits.
 * 2, 4, 8 … 60 s with full jitter: 5 waits of 31 s in all on average, then 30 s each, so 240 attempts take some two
 * hours.
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
 * All other errors may be transient: a call to AWS without an answer, a function that crashed, a table that is
 * throttled for minutes. 2, 4, 8 … 60 s with full jitter: 5 waits of 31 s in all on average, then 30 s each, so 40
 * attempts take some 18 minutes.
 */
const TRANSIENT_ERROR: RetryProps = {
  errors: ['States.ALL'],
  interval: Duration.seconds(2),
  backoffRate: 2,
  maxDelay: Duration.minutes(1),
  maxAttempts: 40,
  jitterStrategy: JitterType.FULL,
};

/**
 * More than a check can take: a delay of a day, patience of a day, and several times six hours in which the server is
 * out of reach. After that time, its users have long noticed the loss themselves.
 */
const LONGEST_CHECK = Duration.days(7);

interface Props {
  readonly defaults: FunctionDefaults;
  readonly table: TableV2;
  readonly secret: WebhookSecret;
  readonly serverApiUrl: string;
  readonly network: Network | undefined;
  readonly concurrency: number | undefined;
  readonly runbookUrl: string;
}

/** What follows a close or another cause: the wait, the check, and its further rounds. */
export class CheckWorkflow extends Construct {
  readonly stateMachine: StateMachine;
  readonly function: NodeFunction;
  readonly log: LogGroup;

  constructor(scope: Construct, id: string, props: Props) {
    super(scope, id);
    this.function = this.#function(props);
    const definition = this.#definition(props.runbookUrl);
    this.log = new VendedLogGroup(this, 'StateMachineLogs', 'states', props.defaults);
    this.stateMachine = new StateMachine(this, 'StateMachine', {
      stateMachineType: StateMachineType.STANDARD,
      definitionBody: definition,
      timeout: LONGEST_CHECK,
      comment: 'ping-muc: what follows a closed s2s connection, or another cause to check whether users are in a room',
      // Log errors without the input and output of states, which contain JIDs. Step Functions shows these for 90 days.
      logs: { destination: this.log, level: LogLevel.ERROR, includeExecutionData: false },
      tracingEnabled: true,
    });
    this.#acknowledge();
  }

  #function({ defaults, table, secret, serverApiUrl, network, concurrency }: Props): NodeFunction {
    const check = new NodeFunction(this, 'Function', {
      defaults,
      entry: 'check.ts',
      description: 'ping-muc: pings the joins on a remote host, and brings back or notifies the users who are out',
      timeout: Duration.minutes(15), // Lambda's maximum; an invocation hands over to the next one before that
      // It mostly waits for rooms, and Lambda bills memory meanwhile. Four batches of 250 joins take a quarter of
      // this. The rest is for processor time: with 0.3 of a processor it writes 1,000 pings and reads the answers in
      // a second.
      memorySize: 512,
      concurrency, // so that checks never take capacity from webhooks
      network,
      environment: {
        [ENV.tableName]: table.tableName,
        [ENV.secretArn]: secret.secretArn,
        [ENV.serverApiUrl]: serverApiUrl,
      },
    });
    table.grant(check, 'dynamodb:GetItem', 'dynamodb:Query', 'dynamodb:UpdateItem', 'dynamodb:DeleteItem');
    secret.grantRead(check);
    return check;
  }

  #definition(runbookUrl: string): DefinitionBody {
    const ping = new LambdaInvoke(this, 'Ping and notify', {
      // Nothing catches the last error, so the execution keeps it, and a redrive begins again at this state with all of
      // its retries. A redrive would only enter a Fail state again.
      // https://docs.aws.amazon.com/step-functions/latest/dg/redrive-executions.html
      comment: `If this fails, the execution can be redriven: ${runbookUrl}#checks-fail`,
      lambdaFunction: this.function.live,
      outputPath: '$.Payload',
      retryOnServiceExceptions: false, // the CDK's retries do not cover throttling; ours cover everything
      taskTimeout: Timeout.duration(Duration.minutes(16)), // longer than the function's own time-out
    });
    ping.addRetry(SERVER_UNREACHABLE);
    ping.addRetry(NO_CONCURRENCY_LEFT);
    ping.addRetry(TRANSIENT_ERROR);
    // computed at the start and by each invocation: functions/core/time.ts (rules 3 and 7 in docs/rules.md)
    const wait = new Wait(this, 'Wait for ping_muc_delay', { time: WaitTime.secondsPath('$.wait') });
    const again = new Wait(this, 'Wait before asking again', { time: WaitTime.secondsPath('$.wait') });
    const left = new Choice(this, 'What is left?')
      .when(Condition.stringEquals('$.next', 'page'), ping)
      .when(Condition.stringEquals('$.next', 'wait'), again)
      .otherwise(new Succeed(this, 'Done'));
    again.next(ping);
    return DefinitionBody.fromChainable(wait.next(ping).next(left));
  }

  /** Findings of cdk-nag that are intended. */
  #acknowledge(): void {
    Validations.of(this.stateMachine).acknowledge(
      {
        id: 'AwsSolutions-SF1',
        reason:
          'Errors are logged. Step Functions keeps the other events of each execution for 90 days, ' +
          'and logging them would cost the same again',
      },
      {
        id: 'AwsSolutions-IAM5[Resource::*]',
        reason: 'The actions for log deliveries and X-Ray do not support resource-level permissions',
      },
    );
  }
}
