import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Duration, type RemovalPolicy, Stack, Validations } from 'aws-cdk-lib';
import { type ISubnet, type IVpc, Subnet, Vpc } from 'aws-cdk-lib/aws-ec2';
import { ManagedPolicy, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Alias, Architecture, type IFunction, type IVersion, Runtime, Tracing } from 'aws-cdk-lib/aws-lambda';
import { LogLevel, NodejsFunction, OutputFormat, type NodejsFunctionProps } from 'aws-cdk-lib/aws-lambda-nodejs';
import { LogGroup, type RetentionDays } from 'aws-cdk-lib/aws-logs';
import type { Construct } from 'constructs';
import { ENV } from '../functions/names.ts';
import type { Network } from './config.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** What every function of the stack has in common. */
export interface FunctionDefaults {
  readonly logRetention: RetentionDays;
  readonly removalPolicy: RemovalPolicy;
}

interface Props {
  readonly defaults: FunctionDefaults;
  /** The handler's file in `functions/`. */
  readonly entry: `${string}.ts`;
  readonly description: string;
  readonly timeout: Duration;
  readonly memorySize: number;
  /** Reserved concurrency; 0 stops the function; undefined: what the account has left. */
  readonly concurrency: number | undefined;
  readonly environment: Record<string, string>;
  /** Files beside the bundled code, by name, with their text. */
  readonly files?: Readonly<Record<string, string>>;
  readonly network?: Network | undefined;
}

/**
 * A function: a minified ES module on Node 24, bundled without Docker, with its own log group and a role that can only
 * write there and to X-Ray. Everything else must be granted.
 */
export class NodeFunction extends NodejsFunction {
  /** The version in use. Everything that invokes the function invokes this, so that a release can be gradual. */
  readonly live: Alias & IFunction;

  constructor(scope: Construct, id: string, props: Props) {
    const { entry, environment, files = {}, network, defaults, concurrency, ...rest } = props;
    const logGroup = new LogGroup(scope, `${id}Logs`, {
      retention: defaults.logRetention,
      removalPolicy: defaults.removalPolicy,
    });
    const role = new Role(scope, `${id}Role`, {
      assumedBy: new ServicePrincipal('lambda.amazonaws.com'),
      description: rest.description,
    });
    logGroup.grantWrite(role);
    if (network !== undefined) allowNetworkInterfaces(role);
    const settings: NodejsFunctionProps = {
      ...rest,
      environment: { ...environment, [ENV.service]: Stack.of(scope).stackName },
      entry: `${root}functions/${entry}`,
      projectRoot: root,
      depsLockFilePath: `${root}package-lock.json`,
      runtime: Runtime.NODEJS_24_X,
      architecture: Architecture.ARM_64,
      tracing: Tracing.ACTIVE,
      awsSdkConnectionReuse: false, // the default since SDK 3, so the variable is not needed
      logGroup,
      role,
      ...(concurrency === undefined ? {} : { reservedConcurrentExecutions: concurrency }),
      ...(network === undefined ? {} : place(scope, id, network)),
      bundling: {
        format: OutputFormat.ESM,
        target: 'node24',
        minify: true,
        mainFields: ['module', 'main'],
        externalModules: [], // bundle the SDK, too: the tested version, and only the parts that are used
        logLevel: LogLevel.WARNING,
        commandHooks: {
          beforeBundling: () => [],
          beforeInstall: () => [],
          afterBundling: (_, directory) =>
            Object.entries(files).map(([name, text]) => `printf %s ${quoted(text)} > ${quoted(join(directory, name))}`),
        },
        // the SDK's CommonJS parts need require, which an ES module does not have
        banner: "import{createRequire}from'node:module';const require=createRequire(import.meta.url);",
      },
    };
    super(scope, id, settings);
    // The CDK's own types do not fit together under exactOptionalPropertyTypes.
    const version = this.currentVersion as IVersion;
    this.live = new Alias(this, 'Live', { aliasName: 'live', version }) as Alias & IFunction;
    Validations.of(this).acknowledge({
      id: 'Serverless-LambdaDLQ',
      reason:
        'It is never invoked asynchronously: its callers (the XMPP server, the workflow) wait for the result and retry',
    });
    Validations.of(role).acknowledge({
      id: 'AwsSolutions-IAM5[Resource::*]',
      reason: 'The X-Ray actions do not support resource-level permissions',
    });
  }
}

/** A word for a POSIX shell. */
const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

function allowNetworkInterfaces(role: Role): void {
  role.addManagedPolicy(ManagedPolicy.fromAwsManagedPolicyName('service-role/AWSLambdaVPCAccessExecutionRole'));
  Validations.of(role).acknowledge({
    id: 'AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole]',
    reason: 'Lambda creates network interfaces with it, whose ids are not known beforehand; AWS maintains this policy',
  });
}

/** The operator's network, by its ids, so that synth makes no lookups in an account. Its zones are not used here. */
function place(scope: Construct, id: string, network: Network): { vpc: IVpc; vpcSubnets: { subnets: ISubnet[] } } {
  const vpc = Vpc.fromVpcAttributes(scope, `${id}Vpc`, { vpcId: network.vpcId, availabilityZones: ['any'] });
  const subnets = network.subnetIds.map((subnetId, index) =>
    Subnet.fromSubnetAttributes(scope, `${id}Subnet${index + 1}`, { subnetId }),
  );
  for (const subnet of subnets) {
    Validations.of(subnet).acknowledge({
      id: '@aws-cdk/aws-ec2:noSubnetRouteTableId',
      reason: 'This stack does not change routes',
    });
  }
  return { vpc, vpcSubnets: { subnets } };
}
