import { App } from 'aws-cdk-lib';
import { ConfigError, readConfig } from './config.ts';
import { PingMucStack } from './stack.ts';

const app = new App();
try {
  new PingMucStack(app, readConfig(app.node));
  app.synth();
} catch (error) {
  if (!(error instanceof ConfigError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}
