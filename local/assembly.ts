import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What one machine runs: the output of `cdk synth`, with its references resolved to local names. */
export interface Assembly {
  readonly tables: readonly TableDefinition[];
  readonly functions: readonly FunctionDefinition[];
  readonly stateMachines: readonly StateMachineDefinition[];
  readonly routes: readonly Route[];
  readonly stages: readonly Stage[];
  /** The ids under which the functions ask for secrets. */
  readonly secrets: readonly string[];
}

export interface TableDefinition {
  readonly name: string;
  readonly keySchema: readonly { AttributeName: string; KeyType: 'HASH' | 'RANGE' }[];
  readonly attributes: readonly { AttributeName: string; AttributeType: 'S' | 'N' | 'B' }[];
  readonly ttlAttribute: string | undefined;
}

export interface FunctionDefinition {
  readonly arn: string;
  readonly name: string;
  /** The bundled file, the same that a deployment uploads. */
  readonly file: string;
  /** The exported name. */
  readonly handler: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly timeoutSeconds: number;
  readonly memoryMegabytes: number;
}

export interface StateMachineDefinition {
  readonly arn: string;
  readonly definition: Record<string, unknown>;
}

export interface Route {
  /** In API Gateway's form: `POST /webhooks`. */
  readonly key: string;
  readonly functionArn: string;
}

/** A stage of an HTTP API. */
export interface Stage {
  readonly apiId: string;
  readonly name: string;
}

export interface Resource {
  readonly Type: string;
  readonly Properties: Record<string, unknown>;
}

const ROOT = fileURLToPath(new URL('..', import.meta.url));
export const REGION = 'us-east-1';
const ACCOUNT = '000000000000';
const STACK = 'PingMuc';
/** `cdk synth` takes some four seconds. If it takes minutes, it hangs. */
const SYNTH_TIMEOUT_MS = 180_000;

/** Runs the CDK app with these settings, as `cdk synth` does, into `directory`. @throws with the app's own message */
export async function synthesize(directory: string, config: Readonly<Record<string, unknown>>): Promise<void> {
  const { context } = JSON.parse(await readFile(join(ROOT, 'cdk.json'), 'utf8')) as { context: object };
  const env = {
    ...process.env,
    CDK_OUTDIR: directory,
    CDK_CONTEXT_JSON: JSON.stringify({ ...context, config }),
  };
  const child = spawn(process.execPath, [join(ROOT, 'infra/app.ts')], {
    cwd: ROOT,
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: SYNTH_TIMEOUT_MS,
  });
  let output = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output = (output + text).slice(-10_000);
  });
  const status = await new Promise<number | null>((resolve, reject) => child.on('error', reject).on('close', resolve));
  if (status !== 0) throw new Error(`cdk synth failed: ${output.trim()}`);
}

async function readTemplate(directory: string): Promise<Record<string, Resource>> {
  const template = JSON.parse(await readFile(join(directory, `${STACK}.template.json`), 'utf8')) as {
    Resources: Record<string, Resource>;
  };
  return template.Resources;
}

/** The template's resources by logical id, with all references resolved. */
export async function readResources(directory: string): Promise<Readonly<Record<string, Resource>>> {
  const resources = await readTemplate(directory);
  return resolveTokens(resources, resources) as Record<string, Resource>;
}

/** Reads the output of `cdk synth`. @throws if one machine cannot run it */
export async function readAssembly(directory: string): Promise<Assembly> {
  const template = await readTemplate(directory);
  const resources = Object.entries(template);
  const resolve = (value: unknown): unknown => resolveTokens(value, template);
  const ofType = (type: string): [string, Resource][] => resources.filter(([, resource]) => resource.Type === type);
  const text = (value: unknown): string => String(resolve(value));

  return {
    tables: ofType('AWS::DynamoDB::GlobalTable').map(([id, { Properties }]) => ({
      name: id,
      keySchema: Properties['KeySchema'] as TableDefinition['keySchema'],
      attributes: Properties['AttributeDefinitions'] as TableDefinition['attributes'],
      ttlAttribute: (Properties['TimeToLiveSpecification'] as { AttributeName?: string } | undefined)?.AttributeName,
    })),
    functions: ofType('AWS::Lambda::Function').map(([id, { Properties }]) => {
      const [module, handler] = text(Properties['Handler']).split('.') as [string, string];
      const asset = text((Properties['Code'] as { S3Key: unknown }).S3Key).replace(/\.zip$/, '');
      const environment =
        (Properties['Environment'] as { Variables?: Record<string, unknown> } | undefined)?.Variables ?? {};
      return {
        arn: arnOf(id, 'AWS::Lambda::Function'),
        name: id,
        file: join(directory, `asset.${asset}`, `${module}.mjs`),
        handler,
        environment: Object.fromEntries(Object.entries(environment).map(([name, value]) => [name, text(value)])),
        timeoutSeconds: Number(Properties['Timeout']),
        memoryMegabytes: Number(Properties['MemorySize']),
      };
    }),
    stateMachines: ofType('AWS::StepFunctions::StateMachine').map(([id, { Properties }]) => ({
      arn: arnOf(id, 'AWS::StepFunctions::StateMachine'),
      definition: JSON.parse(text(Properties['DefinitionString'])) as Record<string, unknown>,
    })),
    routes: ofType('AWS::ApiGatewayV2::Route').map(([, { Properties }]) => {
      const integration = text(Properties['Target']).split('/').at(-1) ?? '';
      return {
        key: text(Properties['RouteKey']),
        functionArn: text(template[integration]?.Properties['IntegrationUri']),
      };
    }),
    stages: ofType('AWS::ApiGatewayV2::Stage').map(([, { Properties }]) => ({
      apiId: text(Properties['ApiId']),
      name: text(Properties['StageName']),
    })),
    secrets: ofType('AWS::SecretsManager::Secret').map(([id]) => arnOf(id, 'AWS::SecretsManager::Secret')),
  };
}

/** The ARN of a table, as in the functions' permissions. */
export const tableArn = (name: string): string => arnOf(name, 'AWS::DynamoDB::GlobalTable');

/** A resource's name. All but alarms, whose names are read by people, have their logical id. */
function nameOf(logicalId: string, resources: Readonly<Record<string, Resource>>): string {
  const given = resources[logicalId]?.Properties['AlarmName'];
  return given === undefined ? logicalId : String(resolveTokens(given, resources));
}

function arnOf(name: string, type: string): string {
  const prefix = (service: string): string => `arn:aws:${service}:${REGION}:${ACCOUNT}`;
  switch (type) {
    case 'AWS::CloudWatch::Alarm':
    case 'AWS::CloudWatch::CompositeAlarm':
      return `${prefix('cloudwatch')}:alarm:${name}`;
    case 'AWS::Lambda::Function':
      return `${prefix('lambda')}:function:${name}`;
    case 'AWS::StepFunctions::StateMachine':
      return `${prefix('states')}:stateMachine:${name}`;
    case 'AWS::SecretsManager::Secret':
      return `${prefix('secretsmanager')}:secret:${name}`;
    case 'AWS::DynamoDB::GlobalTable':
      return `${prefix('dynamodb')}:table/${name}`;
    default:
      return `${prefix('other')}:${name}`;
  }
}

/** Types whose `Ref` is their ARN. */
const REF_IS_ARN = new Set(['AWS::StepFunctions::StateMachine', 'AWS::SecretsManager::Secret']);
const PSEUDO: Readonly<Record<string, string>> = {
  'AWS::Region': REGION,
  'AWS::AccountId': ACCOUNT,
  'AWS::StackName': STACK,
  'AWS::StackId': `arn:aws:cloudformation:${REGION}:${ACCOUNT}:stack/${STACK}/one-machine`,
  'AWS::Partition': 'aws',
  'AWS::URLSuffix': 'amazonaws.com',
};

/** Resolves the intrinsic functions of CloudFormation that our stack uses. */
function resolveTokens(value: unknown, resources: Readonly<Record<string, Resource>>): unknown {
  if (Array.isArray(value)) return value.map((item) => resolveTokens(item, resources));
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value);
  const [name, argument] = entries[0] ?? [];
  if (entries.length !== 1 || name === undefined || !(name === 'Ref' || name.startsWith('Fn::'))) {
    return Object.fromEntries(entries.map(([key, item]) => [key, resolveTokens(item, resources)]));
  }
  if (name === 'Ref') {
    const id = String(argument);
    const type = resources[id]?.Type;
    // one machine has one version of each function
    if (type === 'AWS::Lambda::Alias')
      return arnOf(
        String(resolveTokens(resources[id]?.Properties['FunctionName'], resources)),
        'AWS::Lambda::Function',
      );
    const ownName = nameOf(id, resources);
    return PSEUDO[id] ?? (type !== undefined && REF_IS_ARN.has(type) ? arnOf(ownName, type) : ownName);
  }
  if (name === 'Fn::GetAtt') {
    const [id, attribute] = argument as [string, string];
    return attribute === 'Arn' ? arnOf(nameOf(id, resources), resources[id]?.Type ?? '') : `${id}.${attribute}`;
  }
  if (name === 'Fn::Join') {
    const [separator, parts] = argument as [string, unknown[]];
    return parts.map((part) => String(resolveTokens(part, resources))).join(separator);
  }
  if (name === 'Fn::Select' || name === 'Fn::Split') {
    const [first, second] = resolveTokens(argument, resources) as [string, string | readonly string[]];
    return typeof second === 'string' ? second.split(first) : second[Number(first)];
  }
  if (name === 'Fn::Sub')
    return String(argument).replace(/\$\{([^}]+)\}/g, (_, id: string) => String(resolveTokens({ Ref: id }, resources)));
  throw new Error(`the template uses ${name}, which local/assembly.ts does not resolve`);
}
