import { Annotations, App, CfnRule, CfnWaitConditionHandle, Fn, Stack, Validations } from 'aws-cdk-lib';
import { AwsSolutionsChecks, ServerlessChecks } from 'cdk-nag';
import { ConfigError, readConfig, readStackName } from './config.ts';
import { isRunByProgram, readSettings } from './settings-file.ts';
import { PingMucStack } from './stack.ts';

const app = new App();
Validations.of(app).addPlugins(new AwsSolutionsChecks(app), new ServerlessChecks(app));
let settings: Readonly<Record<string, unknown>> = {};
try {
  settings = readSettings(app.node);
  new PingMucStack(app, readConfig(settings));
  app.synth();
} catch (error) {
  if (!(error instanceof ConfigError)) throw error;
  if (isRunByProgram(app.node)) {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  } else {
    standIn(error.message);
    app.synth();
  }
}

/**
 * Stands for the stack while its settings are wrong: cdk's bootstrap, list and destroy need none, and every other
 * command shows the error and stops.
 */
function standIn(problem: string): void {
  const stack = new Stack(app, 'PingMuc', { stackName: readStackName(settings) });
  Annotations.of(stack).addError(problem);
  // cdk deploy --ignore-errors would deploy this, and delete everything: CloudFormation refuses a rule that never holds
  new CfnWaitConditionHandle(stack, 'Nothing');
  new CfnRule(stack, 'Settings', {
    assertions: [{ assert: Fn.conditionEquals('settings', 'none'), assertDescription: 'The settings are wrong' }],
  });
}
