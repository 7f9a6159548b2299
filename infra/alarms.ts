import { Aws, RemovalPolicy, Stack, Validations } from 'aws-cdk-lib';
import { Alarm, ComparisonOperator, TreatMissingData } from 'aws-cdk-lib/aws-cloudwatch';
import { SnsAction } from 'aws-cdk-lib/aws-cloudwatch-actions';
import { PolicyStatement, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Key } from 'aws-cdk-lib/aws-kms';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { EmailSubscription } from 'aws-cdk-lib/aws-sns-subscriptions';
import { Construct } from 'constructs';
import { type Definition, type Sources, checkAlarms, webhookAlarms } from './alarm-definitions.ts';

interface Props extends Sources {
  readonly email: string | undefined;
  /** The runbook's page. An alarm's title is the anchor of its section. */
  readonly runbookUrl: string;
}

/** The alarms, and the topic that notifies the operator when an alarm is raised and when it is over. */
export class Alarms extends Construct {
  readonly alarms: readonly Alarm[];
  readonly topic: Topic;

  constructor(scope: Construct, id: string, { email, runbookUrl, ...sources }: Props) {
    super(scope, id);
    this.topic = this.#topic(email);
    const action = new SnsAction(this.topic);
    this.alarms = [...webhookAlarms(this, sources), ...checkAlarms(this, sources)].map((definition) => {
      const alarm = this.#alarm(definition, runbookUrl);
      alarm.addAlarmAction(action);
      alarm.addOkAction(action);
      return alarm;
    });
  }

  #topic(email: string | undefined): Topic {
    const cloudWatch = new ServicePrincipal('cloudwatch.amazonaws.com');
    // CloudWatch may not use the AWS managed key of SNS: alarms would be raised, and nobody would be notified
    const key = new Key(this, 'Key', {
      description: 'ping-muc: encrypts alarm notifications',
      enableKeyRotation: true,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    key.grant(cloudWatch, 'kms:Decrypt', 'kms:GenerateDataKey*');
    const topic = new Topic(this, 'Topic', { displayName: Stack.of(this).stackName, masterKey: key, enforceSSL: true });
    // a topic with its own policy loses the default one, which allows the account's alarms to publish
    topic.addToResourcePolicy(
      new PolicyStatement({
        principals: [cloudWatch],
        actions: ['sns:Publish'],
        resources: [topic.topicArn],
        conditions: { StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID } },
      }),
    );
    if (email !== undefined) {
      const subscription = topic.addSubscription(new EmailSubscription(email));
      Validations.of(subscription).acknowledge({
        id: 'Serverless-SNSRedrivePolicy',
        reason: 'An undelivered e-mail is of no use in a queue: the alarm stays raised, and the dashboard shows it',
      });
    }
    return topic;
  }

  #alarm(definition: Definition, runbookUrl: string): Alarm {
    const { title, severity, effect, metric, threshold, below, periods, spare = 0 } = definition;
    const anchor = title.toLowerCase().replaceAll(' ', '-');
    return new Alarm(
      this,
      title.replace(/ (\w)/g, (_, letter: string) => letter.toUpperCase()),
      {
        alarmName: `${Stack.of(this).stackName}: ${title}`,
        alarmDescription: `Severity ${severity}. ${effect} What to do: ${runbookUrl}#${anchor}`,
        metric,
        threshold,
        comparisonOperator: below ? ComparisonOperator.LESS_THAN_THRESHOLD : ComparisonOperator.GREATER_THAN_THRESHOLD,
        evaluationPeriods: periods,
        datapointsToAlarm: periods - spare,
        treatMissingData: definition.missing ?? TreatMissingData.NOT_BREACHING,
      },
    );
  }
}
