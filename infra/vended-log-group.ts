import { Aws, Fn } from 'aws-cdk-lib';
import { LogGroup } from 'aws-cdk-lib/aws-logs';
import type { Construct } from 'constructs';
import type { FunctionDefaults } from './node-function.ts';

/**
 * The log group of an AWS service that writes logs in the name of the account.
 *
 * The prefix keeps it out of the account's resource policy for log delivery, which has room for some log groups only:
 * https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/AWS-logs-and-resource-policy.html
 * The stack's own id is in the name, because the log group is kept when the stack is deleted: a stack that is created
 * again could not have one of the same name.
 */
export class VendedLogGroup extends LogGroup {
  constructor(scope: Construct, id: string, service: 'apigateway' | 'states', defaults: FunctionDefaults) {
    super(scope, id, {
      logGroupName: `/aws/vendedlogs/${service}/${Aws.STACK_NAME}-${Fn.select(2, Fn.split('/', Aws.STACK_ID))}`,
      retention: defaults.logRetention,
      removalPolicy: defaults.removalPolicy,
    });
  }
}
