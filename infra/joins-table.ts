import { RemovalPolicy } from 'aws-cdk-lib';
import { type IMetric, MathExpression, Stats } from 'aws-cdk-lib/aws-cloudwatch';
import { AttributeType, Billing, TableV2 } from 'aws-cdk-lib/aws-dynamodb';
import { Construct } from 'constructs';
import { TABLE_KEYS } from '../functions/names.ts';
import { PERIOD } from './metrics.ts';

interface Props {
  readonly removalPolicy: RemovalPolicy;
}

/** The table of joins and closes. It is encrypted at rest with a key owned by DynamoDB, at no cost. */
export class JoinsTable extends Construct {
  readonly table: TableV2;

  constructor(scope: Construct, id: string, props: Props) {
    super(scope, id);
    this.table = new TableV2(this, 'Table', {
      partitionKey: { name: TABLE_KEYS.partition, type: AttributeType.STRING },
      sortKey: { name: TABLE_KEYS.sort, type: AttributeType.STRING },
      timeToLiveAttribute: TABLE_KEYS.expires,
      billing: Billing.onDemand(),
      pointInTimeRecoverySpecification: { pointInTimeRecoveryEnabled: true },
      deletionProtection: props.removalPolicy === RemovalPolicy.RETAIN,
      removalPolicy: props.removalPolicy,
    });
  }

  /**
   * Throttled reads and writes. DynamoDB counts these only when there are any, and where an alarm has no data of
   * DynamoDB, it keeps its state, so it would never be over. Consumed units are there whenever the table is used.
   * https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
   */
  metricThrottled(): IMetric {
    const metric = (name: string): IMetric => this.table.metric(name, { statistic: Stats.SUM, period: PERIOD });
    return new MathExpression({
      label: 'throttled',
      expression: 'FILL(reads, 0) + FILL(writes, 0) + 0 * FILL(used, 0)',
      usingMetrics: {
        reads: metric('ReadThrottleEvents'),
        writes: metric('WriteThrottleEvents'),
        used: metric('ConsumedWriteCapacityUnits'),
      },
      period: PERIOD,
    });
  }
}
