import { Duration } from 'aws-cdk-lib';
import { Choice, Condition, DefinitionBody, Fail, JitterType, StateMachine, StateMachineType, Succeed, Timeout, Wait, WaitTime, type RetryProps } from 'aws-cdk-lib/aws-stepfunctions';
import { LambdaInvoke } from 'aws-cdk-lib/aws-stepfunctions-tasks';
import type { TableV2 } from 'aws-cdk-lib/aws-dynamodb';
import type { Secret } from 'aws-cdk-lib/aws-secretsmanager';
import { Construct } from 'constructs';
import { ENV, ERRORS } from '../functions/names.ts';
import { NodeFunction } from './node-function.ts';

/**
 * The XMPP server is down or asks us to wait: hours of patience.
 * 5, 10, 20 … 300 s, each drawn anew between 0 and that (full jitter): 6 waits of 158 s on average in all, then 150 s
 * each, so 150 attempts last some six hours.
 */
const SERVER_UNREACHABLE: RetryProps = {
  errors: [ERRORS.serverUnreachable],
  interval: Duration.seconds(5),
  backoffRate: 2,
  maxDelay: Duration.minutes(5),
  maxAttempts: 150,
  jitterStrategy: JitterType.FULL,
};

/**
 * Whatever else fails may pass: a throttled call, a function that died. 2, 4, 8 … 60 s with full jitter, ten attempts:
 * some three minutes on average.
 */
const PASSING_FAULT: RetryProps = {
  errors: ['States.ALL'],
  interval: Duration.seconds(2),
  backoffRate: 2,
  maxDelay: Duration.minutes(1),
  maxAttempts: 10,
  jitterStrategy: JitterType.FULL,
};

interface Props {
  readonly table: TableV2;
  readonly secret: Secret;
  readonly serverApiUrl: string;
}

/** What follows a close: the wait, the check, and asking again. */
export class CheckWorkflow extends Construct {
  readonly stateMachine: StateMachine;
  readonly function: NodeFunction;

  constructor(scope: Construct, id: string, props: Props) {
    super(scope, id);
    this.function = new NodeFunction(this, 'Function', {
      entry: 'check.ts',
      description: 'ping-muc: pings the joins on a remote host, decides, notifies the lost',
      timeout: Duration.minutes(15),
      memorySize: 512,
      environment: {
        [ENV.tableName]: props.table.tableName,
        [ENV.secretArn]: props.secret.secretArn,
        [ENV.serverApiUrl]: props.serverApiUrl,
      },
    });
    props.table.grantReadWriteData(this.function);
    props.secret.grantRead(this.function);

    const ping = new LambdaInvoke(this, 'Ping and notify', {
      lambdaFunction: this.function,
      outputPath: '$.Payload',
      retryOnServiceExceptions: false, // it leaves out throttling; ours takes them all
      taskTimeout: Timeout.duration(Duration.minutes(16)),
    });
    ping.addRetry(SERVER_UNREACHABLE);
    ping.addRetry(PASSING_FAULT);
    ping.addCatch(new Fail(this, 'Check failed', { error: 'CheckFailed', cause: 'The check could not be completed; see docs/runbook.md' }), {
      resultPath: '$.failure',
    });
    const wait = new Wait(this, 'Wait for ping_muc_delay', { time: WaitTime.secondsPath('$.wait') });
    const again = new Wait(this, 'Wait before asking again', { time: WaitTime.secondsPath('$.wait') });
    const left = new Choice(this, 'What is left?')
      .when(Condition.stringEquals('$.next', 'page'), ping)
      .when(Condition.stringEquals('$.next', 'wait'), again)
      .otherwise(new Succeed(this, 'Done'));
    again.next(ping);

    this.stateMachine = new StateMachine(this, 'StateMachine', {
      stateMachineType: StateMachineType.STANDARD,
      definitionBody: DefinitionBody.fromChainable(wait.next(ping).next(left)),
      timeout: Duration.days(7),
      comment: 'ping-muc: what follows a closed s2s connection',
    });
  }
}
