import { readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Template } from 'aws-cdk-lib/assertions';
import validate from 'asl-validator';
import { beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { ENV, WEBHOOK_TIME } from '../../functions/names.ts';
import { readConfig } from '../../infra/config.ts';
import { SETTINGS } from '../../infra/settings.ts';
import { PingMucStack } from '../../infra/stack.ts';
import {
  type Assembly,
  type FunctionDefinition,
  type Resource,
  readAssembly,
  readResources,
  synthesize,
} from '../../local/assembly.ts';
import { isOfCodeDeploy } from '../../lab/permissions.ts';
import { newApp, outdir } from './app.ts';

/** What must never regress, read from the very template that a deployment would use. */
const directory = process.env['PING_MUC_ASSEMBLY'] ?? '';
let resources: Readonly<Record<string, Resource>>;
let assembly: Assembly;

beforeAll(async () => {
  resources = await readResources(directory);
  assembly = await readAssembly(directory);
});

/** The stack with other settings, as a template, without its bundles. */
function template(context: Readonly<Record<string, string>>): Template {
  const config = readConfig({ serverApiUrl: 'https://xmpp.example.net:5281/ping_muc', ...context });
  return Template.fromStack(new PingMucStack(newApp(), config));
}

const ofType = (type: string): [string, Resource][] =>
  Object.entries(resources).filter(([, resource]) => resource.Type === type);
const properties = (type: string): Record<string, unknown>[] => ofType(type).map(([, resource]) => resource.Properties);
const property = (path: string, of: unknown): unknown =>
  path.split('.').reduce<unknown>((value, name) => (value as Record<string, unknown> | undefined)?.[name], of);

describe('nothing is lost', () => {
  it('the table keeps a history, and cannot be deleted by accident', () => {
    const [table] = ofType('AWS::DynamoDB::GlobalTable').map(([, resource]) => resource);
    const [replica] = property('Properties.Replicas', table) as unknown[];
    expect(property('PointInTimeRecoverySpecification.PointInTimeRecoveryEnabled', replica)).toBe(true);
    expect(property('DeletionProtectionEnabled', replica)).toBe(true);
    expect(property('Properties.BillingMode', table)).toBe('PAY_PER_REQUEST');
    expect(property('Properties.TimeToLiveSpecification', table)).toEqual({ AttributeName: 'expires', Enabled: true });
  });

  it.each(['AWS::DynamoDB::GlobalTable', 'AWS::SecretsManager::Secret', 'AWS::Logs::LogGroup'])(
    '%s outlives the stack',
    (type) => {
      expect(ofType(type).length).toBeGreaterThan(0);
      for (const [, resource] of ofType(type))
        expect(resource).toMatchObject({ DeletionPolicy: 'Retain', UpdateReplacePolicy: 'Retain' });
    },
  );

  it('removalPolicy=destroy lifts both', () => {
    const destroyed = template({ removalPolicy: 'destroy' });
    destroyed.hasResource('AWS::DynamoDB::GlobalTable', { DeletionPolicy: 'Delete' });
    for (const replica of Object.values(destroyed.findResources('AWS::DynamoDB::GlobalTable')).flatMap((table) =>
      property('Properties.Replicas', table),
    )) {
      expect(property('DeletionProtectionEnabled', replica)).not.toBe(true);
    }
    destroyed.allResources('AWS::SecretsManager::Secret', { DeletionPolicy: 'Delete' });
    destroyed.allResources('AWS::Logs::LogGroup', { DeletionPolicy: 'Delete' });
  });

  it('every log has an end', () => {
    const days = (context: Record<string, string>): unknown[] =>
      Object.values(template(context).findResources('AWS::Logs::LogGroup')).map((group) =>
        property('Properties.RetentionInDays', group),
      );
    expect(new Set(days({}))).toEqual(new Set([30]));
    expect(new Set(days({ logRetentionDays: '7' }))).toEqual(new Set([7]));
  });
});

describe('a release', () => {
  const alias = (context: Readonly<Record<string, string>>): unknown =>
    Object.values(template(context).findResources('AWS::Lambda::Alias'));

  it('gets a tenth of the invocations first, for five minutes or as set', () => {
    const [first] = alias({}) as Resource[];
    expect(Object.keys(first?.['UpdatePolicy' as keyof Resource] ?? {})).toEqual(['CodeDeployLambdaAliasUpdate']);
    for (const [minutes, settings] of [
      ['5', {}],
      ['30', { releaseMinutes: '30' }],
    ] as const)
      template(settings).allResourcesProperties('AWS::CodeDeploy::DeploymentGroup', {
        DeploymentConfigName: `CodeDeployDefault.LambdaCanary10Percent${minutes}Minutes`,
      });
    expect(() => template({ releaseMinutes: '7' })).toThrow('CodeDeploy offers: 0, 5, 10, 15, 30');
  });

  it('gets all of them at once with releaseMinutes=0', () => {
    expect(JSON.stringify(alias({ releaseMinutes: '0' }))).not.toContain('CodeDeploy');
    template({ releaseMinutes: '0' }).resourceCountIs('AWS::CodeDeploy::DeploymentGroup', 0);
  });

  it('is what the API and the workflow invoke, and nothing may invoke the function itself', () => {
    const text = JSON.stringify(template({ releaseMinutes: '0' }).toJSON());
    const functions = Object.keys(template({}).findResources('AWS::Lambda::Function'));
    expect(functions).toHaveLength(2);
    for (const name of functions) expect(text).not.toContain(`{"Fn::GetAtt":["${name}","Arn"]}`);
    expect([
      ...text.matchAll(/"Action":"lambda:InvokeFunction","(?:Effect|FunctionName)":("Allow"|\{"Ref":"\w*Live)/g),
    ]).toHaveLength(2);
  });
});

describe('the operator’s own domain', () => {
  const webhookCertificateArn = SETTINGS.webhookCertificateArn.example;

  it('is the address of the webhook, and an output says where its record must point', () => {
    const own = template({ webhookDomain: 'Ping-Muc.example.net', webhookCertificateArn });
    own.hasResourceProperties('AWS::ApiGatewayV2::DomainName', { DomainName: 'ping-muc.example.net' });
    own.resourceCountIs('AWS::ApiGatewayV2::ApiMapping', 1);
    own.hasOutput('WebhookUrl', { Value: 'https://ping-muc.example.net/webhooks' });
    own.hasOutput('WebhookDomainTarget', {});
  });

  it.each([
    [{ webhookDomain: 'ping-muc.example.net' }, 'webhookCertificateArn must be set together with webhookDomain'],
    [{ webhookCertificateArn }, 'webhookDomain must be set together with webhookCertificateArn'],
    [{ webhookDomain: 'https://ping-muc.example.net', webhookCertificateArn }, 'webhookDomain must be a domain name'],
    [
      { webhookDomain: 'a.example', webhookCertificateArn: 'arn:aws:iam::1:x' },
      'webhookCertificateArn must be the ARN',
    ],
  ])('is refused unless it is complete: %j', (settings, message) => {
    expect(() => template(settings as Readonly<Record<string, string>>)).toThrow(message);
  });
});

describe('nothing is open', () => {
  it('the API is the one public resource, and it has one route', () => {
    const [api, ...others] = [...new Set(Object.values(resources).map(({ Type }) => Type))].sort();
    expect(api).toBe('AWS::ApiGatewayV2::Api');
    expect(others).toEqual([
      // parts of the API
      'AWS::ApiGatewayV2::Integration',
      'AWS::ApiGatewayV2::Route',
      'AWS::ApiGatewayV2::Stage',
      // reached by their account alone; think before a kind is added
      'AWS::CloudWatch::Alarm',
      'AWS::CloudWatch::CompositeAlarm',
      'AWS::CloudWatch::Dashboard',
      'AWS::CodeDeploy::Application',
      'AWS::CodeDeploy::DeploymentGroup',
      'AWS::DynamoDB::GlobalTable',
      'AWS::IAM::Policy',
      'AWS::IAM::Role',
      'AWS::KMS::Key',
      'AWS::Lambda::Alias',
      'AWS::Lambda::Function',
      'AWS::Lambda::Permission',
      'AWS::Lambda::Version',
      'AWS::Logs::LogGroup',
      'AWS::Logs::QueryDefinition',
      'AWS::SNS::Topic',
      'AWS::SNS::TopicPolicy',
      'AWS::SecretsManager::Secret',
      'AWS::StepFunctions::StateMachine',
    ]);
    expect(properties('AWS::ApiGatewayV2::Route').map((route) => route['RouteKey'])).toEqual(['POST /webhooks']);
    const principals = properties('AWS::Lambda::Permission').map(({ Principal, SourceArn }) => [
      Principal,
      typeof SourceArn,
    ]);
    expect(principals).toEqual([['apigateway.amazonaws.com', 'string']]);
  });

  it('requests are bounded, stage and route, and logged as JSON', () => {
    const [stage] = properties('AWS::ApiGatewayV2::Stage');
    for (const settings of [stage?.['DefaultRouteSettings'], property('RouteSettings.POST /webhooks', stage)]) {
      expect(settings).toEqual({ ThrottlingRateLimit: 50, ThrottlingBurstLimit: 100 });
    }
    expect(JSON.parse(String(property('AccessLogSettings.Format', stage)))).toHaveProperty('status', '$context.status');
    const [[route] = []] = ofType('AWS::ApiGatewayV2::Route');
    expect(property('DependsOn', ofType('AWS::ApiGatewayV2::Stage')[0]?.[1])).toContain(route);
  });

  it('no role is allowed an action by a wildcard, nor a resource of its own data', () => {
    const statements = properties('AWS::IAM::Policy').flatMap(
      (policy) => property('PolicyDocument.Statement', policy) as Record<string, unknown>[],
    );
    expect(statements.length).toBeGreaterThan(0);
    for (const { Action, Resource } of statements) {
      for (const action of [Action].flat()) {
        expect(action).not.toContain('*');
        if ([Resource].flat().includes('*')) expect(action).toMatch(/^(xray|logs):/);
      }
    }
    const roles = ofType('AWS::IAM::Role').flatMap(([, role]) => (isOfCodeDeploy(role) ? [] : [role.Properties]));
    for (const role of roles)
      expect(Object.keys(role).sort()).toEqual(expect.not.arrayContaining(['ManagedPolicyArns', 'Policies']));
  });

  it('what alarms say is encrypted, on the way and where it lies, and CloudWatch can still say it', () => {
    const [topic] = properties('AWS::SNS::Topic');
    expect(topic).toHaveProperty('KmsMasterKeyId');
    const [policy] = properties('AWS::SNS::TopicPolicy');
    const statements = property('PolicyDocument.Statement', policy);
    expect(statements).toContainEqual(
      expect.objectContaining({ Effect: 'Deny', Condition: { Bool: { 'aws:SecureTransport': 'false' } } }),
    );
    expect(statements).toContainEqual(
      expect.objectContaining({
        Effect: 'Allow',
        Action: 'sns:Publish',
        Principal: { Service: 'cloudwatch.amazonaws.com' },
      }),
    );
    const [key] = properties('AWS::KMS::Key');
    expect(property('KeyPolicy.Statement', key)).toContainEqual(
      expect.objectContaining({
        Principal: { Service: 'cloudwatch.amazonaws.com' },
        Action: ['kms:Decrypt', 'kms:GenerateDataKey*'],
      }),
    );
  });

  it('alarms reach the topics of their severity, besides the stack’s own', () => {
    const [high, low] = ['pager', 'tickets'].map((name) => `arn:aws:sns:eu-central-1:123456789012:${name}`);
    const own = { Ref: expect.stringMatching(/^AlarmsTopic/) as unknown };
    const actions = (context: Record<string, string>): unknown[] =>
      ['AWS::CloudWatch::Alarm', 'AWS::CloudWatch::CompositeAlarm']
        .flatMap((kind) => Object.values(template(context).findResources(kind)))
        .map((alarm) => [
          /^Severity (\w+)/.exec(String(property('Properties.AlarmDescription', alarm)))?.[1],
          property('Properties.AlarmActions', alarm),
        ]);
    for (const [severity, told] of actions({ alarmTopicArns: `high=${high},low=${low}` }) as [
      string | undefined,
      unknown,
    ][])
      expect(told).toEqual(severity === undefined ? undefined : [own, severity === 'high' ? high : low]);
    for (const [severity, told] of actions({ alarmTopicArns: `high=${high}` }) as [string | undefined, unknown][])
      expect(told).toEqual(severity === undefined ? undefined : severity === 'high' ? [own, high] : [own]);
  });

  it('the secret is generated, and long', () => {
    expect(
      properties('AWS::SecretsManager::Secret').map((secret) =>
        property('GenerateSecretString.PasswordLength', secret),
      ),
    ).toEqual([44]);
    expect(JSON.stringify(resources)).not.toMatch(/whsec_[A-Za-z0-9+/]{8}/);
  });
});

describe('the functions', () => {
  /** What is reserved for each function, by the beginning of its id. */
  const reserved = (context: Readonly<Record<string, string>>): Record<string, unknown> => {
    const functions = template(context).findResources('AWS::Lambda::Function');
    return Object.fromEntries(
      Object.entries(functions).map(([id, own]) => [
        id.slice(0, 5),
        property('Properties.ReservedConcurrentExecutions', own),
      ]),
    );
  };

  it('are Node 24 on arm64, traced, each with a log of its own', () => {
    const functions = properties('AWS::Lambda::Function');
    expect(functions).toHaveLength(2);
    for (const own of functions) {
      expect(own).toMatchObject({ Runtime: 'nodejs24.x', Architectures: ['arm64'], TracingConfig: { Mode: 'Active' } });
    }
    expect(new Set(functions.map((own) => property('LoggingConfig.LogGroup', own))).size).toBe(2);
  });

  it.each(['webhook', 'check'])(
    'the %s function is given every environment variable that its code asks for, and no other',
    async (handler) => {
      const sources = [`${handler}.ts`, 'adapters/telemetry.ts'].map((file) =>
        readFile(new URL(`../../functions/${file}`, import.meta.url), 'utf8'),
      );
      const asked = [
        ...(await Promise.all(sources)).join().matchAll(/(?:require(?:Env|List)\(|process\.env\[)ENV\.(\w+)/g),
      ];
      const [own] = assembly.functions.filter(({ name }) => name.toLowerCase().startsWith(handler));
      expect(asked.length).toBeGreaterThan(3);
      expect(Object.keys(own?.environment ?? {}).sort()).toEqual(
        asked.map(([, name]) => ENV[name as keyof typeof ENV]).sort(),
      );
    },
  );

  it('have the time that the contract, and the workflow, give them', () => {
    const seconds = Object.fromEntries(
      assembly.functions.map(({ name, timeoutSeconds }) => [name.slice(0, 5), timeoutSeconds]),
    );
    expect(seconds).toEqual({ Check: 900, Webho: WEBHOOK_TIME.functionTimeoutSeconds });
  });

  it('are no larger than 450 kB each', async () => {
    for (const { file, name } of assembly.functions) {
      const { size } = await stat(file);
      expect(size, name).toBeLessThanOrEqual(450_000);
    }
  });

  it('go by the name of their stack in their metrics, so that several stacks can share an account', () => {
    template({ stackName: 'Second' }).allResourcesProperties('AWS::Lambda::Function', {
      Environment: { Variables: { [ENV.service]: 'Second' } },
    });
  });

  it('can be stopped, both, or one of them', () => {
    template({ webhookConcurrency: '0', checkConcurrency: '0' }).allResourcesProperties('AWS::Lambda::Function', {
      ReservedConcurrentExecutions: 0,
    });
    expect(reserved({ checkConcurrency: '0' })).toEqual({ Check: 0, Webho: undefined });
  });

  it('cannot take from each other: checks have a limit, unless the account is too small for reservations', () => {
    expect(reserved({})).toEqual({ Check: 100, Webho: undefined });
    expect(reserved({ webhookConcurrency: '20', checkConcurrency: '5' })).toEqual({ Check: 5, Webho: 20 });
    expect(reserved({ checkConcurrency: 'unreserved' })).toEqual({ Check: undefined, Webho: undefined });
  });

  it('reach a server in the operator’s own network, of which nothing is looked up: the check function alone', () => {
    const placed = template({
      vpcId: 'vpc-0123456789abcdef0',
      subnetIds: 'subnet-0123456789abcdef0,subnet-0123456789abcdef1',
    });
    const functions = Object.entries(
      placed.findResources('AWS::Lambda::Function', {
        Properties: { VpcConfig: { SubnetIds: ['subnet-0123456789abcdef0', 'subnet-0123456789abcdef1'] } },
      }),
    );
    expect(functions.map(([id]) => id.slice(0, 5))).toEqual(['Check']);
    placed.hasResourceProperties('AWS::EC2::SecurityGroup', { VpcId: 'vpc-0123456789abcdef0' });
  });
});

describe('the workflow', () => {
  it('is valid Amazon States Language', () => {
    const [machine] = assembly.stateMachines;
    const { isValid, errors } = validate(structuredClone(machine?.definition ?? {}));
    expect(errors.map((error) => JSON.stringify(error))).toEqual([]);
    expect(isValid).toBe(true);
  });

  it('ends: each task and the whole have a time-out, and errors are retried by cause', () => {
    const [machine] = assembly.stateMachines;
    const states = Object.values(machine?.definition['States'] as Record<string, Record<string, unknown>>);
    expect(machine?.definition['TimeoutSeconds']).toBe(7 * 86_400);
    for (const task of states.filter(({ Type }) => Type === 'Task')) {
      const [own] = properties('AWS::Lambda::Function').filter(
        ({ Handler, Timeout }) => Handler !== undefined && Timeout === 900,
      );
      expect(task['TimeoutSeconds']).toBeGreaterThan(Number(own?.['Timeout']));
      expect((task['Retry'] as { ErrorEquals: string[] }[]).map(({ ErrorEquals }) => ErrorEquals[0])).toEqual([
        'ServerUnreachableError',
        'Lambda.TooManyRequestsException',
        'States.ALL', // the last: it takes what the others leave
      ]);
    }
  });

  it('keeps the error and its cause when it fails, and can be redriven from the state that failed', () => {
    const [machine] = assembly.stateMachines;
    const states = Object.values(machine?.definition['States'] as Record<string, Record<string, unknown>>);
    expect(states.length).toBeGreaterThan(4);
    // a redrive only enters a Fail state again, and a Catch is what leads there
    expect(states.filter(({ Type, Catch }) => Type === 'Fail' || Catch !== undefined)).toEqual([]);
  });

  it('is traced, and its log says what failed without saying whose', () => {
    expect(properties('AWS::StepFunctions::StateMachine')[0]).toMatchObject({
      StateMachineType: 'STANDARD',
      TracingConfiguration: { Enabled: true },
      LoggingConfiguration: { Level: 'ERROR', IncludeExecutionData: false },
    });
  });
});

describe('the hosts that may use the stack', () => {
  const hosts = Array.from({ length: 1000 }, (_, n) => `host-${n}.example`);
  const environment = (of: readonly string[]): unknown => {
    const functions = template({ serverApiUrl: 'https://{host}:5281/ping_muc', xmppHosts: of.join(',') }).findResources(
      'AWS::Lambda::Function',
    );
    return Object.values(functions)
      .map((found) => property(`Properties.Environment.Variables.${ENV.xmppHosts}`, found))
      .find((value) => value !== undefined);
  };

  it('are a variable of the function, or a file of its bundle if there are many', () => {
    expect([environment(hosts.slice(0, 3)), environment(hosts)]).toEqual([hosts.slice(0, 3).join(','), '@hosts.json']);
  });

  it('a thousand are in the bundle', async () => {
    const path = outdir();
    await synthesize(path, { serverApiUrl: 'https://{host}:5281/ping_muc', xmppHosts: hosts });
    const { file, environment: variables } = (await readAssembly(path)).functions.find(
      ({ environment: { [ENV.xmppHosts]: list } }) => list !== undefined,
    ) as FunctionDefinition;
    expect(variables[ENV.xmppHosts]).toBe('@hosts.json');
    expect(JSON.parse(await readFile(join(dirname(file), 'hosts.json'), 'utf8'))).toEqual(hosts);
  });
});

describe('the outputs', () => {
  it('are the webhook URL, the secret’s command, the table, the check function, the dashboard and the settings for each server', () => {
    const outputs = template({
      xmppHosts: 'Example.net',
      defaultDelaySeconds: '90',
      defaultPatienceSeconds: '600',
    }).findOutputs('*');
    expect(Object.keys(outputs)).toEqual([
      'WebhookUrl',
      'SecretArn',
      'SecretCommand',
      'TableName',
      'CheckFunctionName',
      'DashboardUrl',
      'ProsodySettings',
      'EjabberdSettings',
    ]);
    const settings = (id: string): readonly string[] => {
      const [, parts] = property('Value.Fn::Join', outputs[id]) as [string, unknown[]];
      return parts
        .map((part) => (typeof part === 'string' ? part : 'https://api.example'))
        .join('')
        .split('\n');
    };
    expect(settings('ProsodySettings').slice(3)).toEqual([
      '-- below the line VirtualHost "example.net" of your host:',
      'modules_enabled = { "ping_muc_webhook" }',
      'http_host = "xmpp.example.net"',
      'ping_muc_webhook_url = "https://api.example/webhooks"',
      'ping_muc_secret = "(the output of the command in SecretCommand)"',
      'ping_muc_delay = 90',
      'ping_muc_timeout = 60',
      'ping_muc_patience = 600',
      '-- ping_muc_silence = 21600 -- seconds without anything from a room after which it is checked; 0: never',
      '-- ping_muc_reenter = true -- bring users back who are out, and notify them only if that fails',
      '',
    ]);
    expect(parse(settings('EjabberdSettings').join('\n'))).toEqual({
      listen: [
        {
          port: 5281,
          ip: '127.0.0.1',
          module: 'ejabberd_http',
          request_handlers: { '/ping_muc': 'mod_ping_muc_webhook' },
        },
      ],
      modules: {
        mod_ping_muc_webhook: {
          webhook_url: 'https://api.example/webhooks',
          secret: '(the output of the command in SecretCommand)',
          delay: 90,
          timeout: 60,
          patience: 600,
        },
      },
    });
  });

  it('alarms and the check that may fail link to the runbook that the operator names', () => {
    const runbookUrl = 'https://wiki.example.net/ping-muc';
    const kinds = ['AWS::CloudWatch::Alarm', 'AWS::CloudWatch::CompositeAlarm'];
    const described = kinds.flatMap((kind) =>
      Object.values(template({ runbookUrl, releaseMinutes: '0' }).findResources(kind)),
    );
    expect(described.length).toBeGreaterThan(5);
    for (const alarm of described)
      expect(property('Properties.AlarmDescription', alarm)).toMatch(
        /What to do: https:\/\/wiki\.example\.net\/ping-muc#/,
      );
    const machines = template({ runbookUrl }).findResources('AWS::StepFunctions::StateMachine');
    expect(JSON.stringify(machines)).toContain(`${runbookUrl}#checks-fail`);
  });

  it('tags and names are the operator’s', () => {
    const config = readConfig({ serverApiUrl: 'https://x.example', stackName: 'Second', tags: 'team=xmpp,rule=a=b' });
    const stack = new PingMucStack(newApp(), config);
    expect([stack.stackName, stack.tags.tagValues()]).toEqual(['Second', { team: 'xmpp', rule: 'a=b' }]);
  });
});
