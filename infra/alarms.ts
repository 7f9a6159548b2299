import { Aws, RemovalPolicy, Stack, Validations } from 'aws-cdk-lib';
import {
  Alarm,
  type AlarmBase,
  AlarmRule,
  ComparisonOperator,
  CompositeAlarm,
  TreatMissingData,
} from 'aws-cdk-lib/aws-cloudwatch';
import { SnsAction } from 'aws-cdk-lib/aws-cloudwatch-actions';
import { PolicyStatement, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Key } from 'aws-cdk-lib/aws-kms';
import { type ITopic, Topic } from 'aws-cdk-lib/aws-sns';
import { EmailSubscription } from 'aws-cdk-lib/aws-sns-subscriptions';
import { Construct } from 'constructs';
import {
  type Composed,
  type Condition,
  type Definition,
  type Sources,
  checkAlarms,
  webhookAlarms,
} from './alarm-definitions.ts';
import type { AlarmTopicArns } from './config.ts';
import { objectiveAlarms } from './objective-alarms.ts';

interface Props extends Sources {
  /** This address is notified of every alarm. */
  readonly email: string | undefined;
  /** The operator's own topics, which are also notified of the alarms of their severity. */
  readonly topicArns: AlarmTopicArns;
  /** The runbook's page. An alarm's title is the anchor of its section. */
  readonly runbookUrl: string;
}

/**
 * The alarms, and the topics that are notified when an alarm is raised and when it is over.
 *
 * Most watch one metric or a sum. The others are composite alarms, so that one fault calls the operator once: they do
 * not notify while the alarm of the cause is raised. The alarms for their conditions have no actions.
 * https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Create_Composite_Alarm.html
 */
export class Alarms extends Construct {
  /** Those that notify, without the alarms for the conditions of others. */
  readonly alarms: readonly AlarmBase[];
  readonly topic: Topic;
  readonly #runbookUrl: string;
  /** By their names without the stack's. */
  readonly #byName = new Map<string, Alarm>();

  constructor(scope: Construct, id: string, { email, topicArns, runbookUrl, ...sources }: Props) {
    super(scope, id);
    this.#runbookUrl = runbookUrl;
    this.topic = this.#topic(email);
    const topics = {
      high: [this.topic, ...this.#existing('HighTopic', topicArns.high)],
      low: [this.topic, ...this.#existing('LowTopic', topicArns.low)],
    };
    const definitions = [...webhookAlarms(this, sources), ...checkAlarms(this, sources), ...objectiveAlarms(this)];
    for (const definition of definitions) {
      if ('conditions' in definition) this.#conditions(definition);
      else this.#metricAlarm(definition.title, definition, this.#description(definition));
    }
    this.alarms = definitions.map((definition) => {
      const alarm = 'conditions' in definition ? this.#composite(definition) : this.#named(definition.title);
      const actions = topics[definition.severity].map((topic) => new SnsAction(topic));
      alarm.addAlarmAction(...actions);
      alarm.addOkAction(...actions);
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

  #existing(id: string, arn: string | undefined): readonly ITopic[] {
    return arn === undefined ? [] : [Topic.fromTopicArn(this, id, arn)];
  }

  #conditions({ title, conditions }: Composed): void {
    for (const [name, condition] of Object.entries(conditions)) {
      const description = `A condition of the alarm "${title}", which notifies. What to do: ${this.#link(title)}`;
      this.#metricAlarm(conditionName(title, name), condition, description);
    }
  }

  #metricAlarm(name: string, { metric, threshold, periods, spare = 0, missing }: Condition, description: string): void {
    const alarm = new Alarm(this, constructId(name), {
      alarmName: this.#fullName(name),
      alarmDescription: description,
      metric,
      threshold,
      comparisonOperator: ComparisonOperator.GREATER_THAN_THRESHOLD,
      evaluationPeriods: periods,
      datapointsToAlarm: periods - spare,
      treatMissingData: missing ?? TreatMissingData.NOT_BREACHING,
    });
    this.#byName.set(name, alarm);
  }

  #composite(definition: Composed): CompositeAlarm {
    const { title, conditions, rule } = definition;
    const causes: Alarm[] = [];
    const text = rule((name) => {
      const cause = name in conditions ? conditionName(title, name) : name;
      causes.push(this.#named(cause));
      return `ALARM("${this.#fullName(cause)}")`;
    });
    const composite = new CompositeAlarm(this, constructId(title), {
      compositeAlarmName: this.#fullName(title),
      alarmDescription: this.#description(definition),
      alarmRule: AlarmRule.fromString(text),
    });
    composite.node.addDependency(...causes); // CloudWatch refuses a rule that names an alarm that does not exist yet
    return composite;
  }

  #named(name: string): Alarm {
    const alarm = this.#byName.get(name);
    if (alarm === undefined) throw new Error(`no alarm on metrics has the name ${name}`);
    return alarm;
  }

  #fullName(name: string): string {
    return `${Stack.of(this).stackName}: ${name}`;
  }

  #description({ title, severity, effect }: Pick<Definition, 'title' | 'severity' | 'effect'>): string {
    return `Severity ${severity}. ${effect} What to do: ${this.#link(title)}`;
  }

  /** The anchor is the one that GitHub makes of a heading. */
  #link(title: string): string {
    const anchor = title
      .toLowerCase()
      .replaceAll(/[^\w -]/g, '')
      .replaceAll(' ', '-');
    return `${this.#runbookUrl}#${anchor}`;
  }
}

const conditionName = (title: string, name: string): string => `${title}, ${name}`;

const constructId = (name: string): string =>
  name.replaceAll(/[^\w ]/g, '').replaceAll(/ (\w)/g, (_, letter: string) => letter.toUpperCase());
