import { Stack, Validations } from 'aws-cdk-lib';
import { Alarm, ComparisonOperator, type IMetric, MathExpression, TreatMissingData } from 'aws-cdk-lib/aws-cloudwatch';
import { LambdaApplication, LambdaDeploymentConfig, LambdaDeploymentGroup } from 'aws-cdk-lib/aws-codedeploy';
import { Construct } from 'constructs';
import type { CheckWorkflow } from './check-workflow.ts';
import { PERIOD, emitted } from './metrics.ts';
import type { WebhookApi } from './webhook-api.ts';

/** For how many minutes a new version may get a tenth of the invocations. 0: it gets all of them at once. */
export const RELEASE_MINUTES = {
  0: undefined,
  5: LambdaDeploymentConfig.CANARY_10PERCENT_5MINUTES,
  10: LambdaDeploymentConfig.CANARY_10PERCENT_10MINUTES,
  15: LambdaDeploymentConfig.CANARY_10PERCENT_15MINUTES,
  30: LambdaDeploymentConfig.CANARY_10PERCENT_30MINUTES,
} as const;
export type ReleaseMinutes = keyof typeof RELEASE_MINUTES;

interface Props {
  readonly webhook: WebhookApi;
  readonly check: CheckWorkflow;
  readonly minutes: ReleaseMinutes;
}

/**
 * Moves invocations from the old version of each function to the new one. If invocations fail meanwhile, CodeDeploy
 * moves them back, and CloudFormation undoes the whole deployment.
 * https://docs.aws.amazon.com/codedeploy/latest/userguide/deployment-steps-lambda.html
 *
 * It has alarms of its own, which notify nobody: those for operators look at the API and the state machine, too, which
 * invoke the new version, so CloudFormation changes them later.
 */
export class GradualRelease extends Construct {
  constructor(scope: Construct, id: string, { webhook, check, minutes }: Props) {
    super(scope, id);
    const deploymentConfig = RELEASE_MINUTES[minutes];
    if (deploymentConfig === undefined) return;
    const application = new LambdaApplication(this, 'Application');
    const releases = {
      webhook: { alias: webhook.function.live, failures: webhook.function.metricErrors({ period: PERIOD }) },
      check: { alias: check.function.live, failures: errorsOfItsOwn(this, check) },
    };
    for (const [name, { alias, failures }] of Object.entries(releases)) {
      const group = new LambdaDeploymentGroup(this, name, {
        application,
        alias,
        deploymentConfig,
        alarms: [this.#alarm(name, failures)],
        autoRollback: { deploymentInAlarm: true, failedDeployment: true, stoppedDeployment: true },
      });
      Validations.of(group).acknowledge({
        id: `AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/AWSCodeDeployRoleForLambdaLimited]`,
        reason: 'It lets CodeDeploy move aliases and read alarms; AWS maintains this policy',
      });
    }
  }

  #alarm(name: string, failures: IMetric): Alarm {
    return new Alarm(this, `${name}-fails`, {
      alarmName: `${Stack.of(this).stackName}: Release of the ${name} function`,
      alarmDescription: 'It notifies nobody. If it is raised during a deployment, the deployment is undone.',
      metric: failures,
      threshold: 0,
      comparisonOperator: ComparisonOperator.GREATER_THAN_THRESHOLD,
      evaluationPeriods: 1,
      treatMissingData: TreatMissingData.NOT_BREACHING,
    });
  }
}

/**
 * Errors of the check function, unless an XMPP server is down or busy. The function counts these itself, at the end of
 * an invocation, and Lambda counts errors at its start. So if a server goes down just then, a release can be taken back
 * for nothing.
 */
function errorsOfItsOwn(scope: Construct, check: CheckWorkflow): IMetric {
  return new MathExpression({
    label: 'errors of its own',
    expression: 'IF(FILL(unreachable, 0) + FILL(busy, 0) > 0, 0, FILL(errors, 0))',
    usingMetrics: {
      errors: check.function.metricErrors({ period: PERIOD }),
      unreachable: emitted(scope, 'ServerUnreachable'),
      busy: emitted(scope, 'ServerBusy'),
    },
    period: PERIOD,
  });
}
