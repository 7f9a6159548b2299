import { fileURLToPath } from 'node:url';
import type { Duration } from 'aws-cdk-lib';
import { Architecture, Runtime } from 'aws-cdk-lib/aws-lambda';
import { NodejsFunction, OutputFormat, type NodejsFunctionProps } from 'aws-cdk-lib/aws-lambda-nodejs';
import { LogGroup, RetentionDays } from 'aws-cdk-lib/aws-logs';
import type { Construct } from 'constructs';

const root = fileURLToPath(new URL('..', import.meta.url));

interface Props {
  /** The handler's file in `functions/`. */
  readonly entry: `${string}.ts`;
  readonly description: string;
  readonly timeout: Duration;
  readonly memorySize: number;
  readonly environment: Record<string, string>;
}

/** One of our functions: a minified ES module on Node 24, bundled without Docker, with its own log group. */
export class NodeFunction extends NodejsFunction {
  constructor(scope: Construct, id: string, props: Props) {
    const { entry, ...rest } = props;
    const settings: NodejsFunctionProps = {
      ...rest,
      entry: `${root}functions/${entry}`,
      projectRoot: root,
      depsLockFilePath: `${root}package-lock.json`,
      runtime: Runtime.NODEJS_24_X,
      architecture: Architecture.ARM_64,
      awsSdkConnectionReuse: false, // the default since SDK 3; the variable would only be noise
      logGroup: new LogGroup(scope, `${id}Logs`, { retention: RetentionDays.ONE_MONTH }),
      bundling: {
        format: OutputFormat.ESM,
        target: 'node24',
        minify: true,
        mainFields: ['module', 'main'],
        externalModules: [], // the SDK comes with us: the version that was tested, and only what is used of it
        // what the SDK's CommonJS parts need of a module that has no require
        banner: "import{createRequire}from'node:module';const require=createRequire(import.meta.url);",
      },
    };
    super(scope, id, settings);
  }
}
