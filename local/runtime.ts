import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ENV } from '../functions/names.ts';
import { webhookUrl, writeAddress } from './address.ts';
import { type FunctionDefinition, REGION, readAssembly, readResources } from './assembly.ts';
import { startAwsEndpoint } from './aws-endpoint.ts';
import type { CallRecorder } from './calls.ts';
import { capacityMetrics, executionMetrics, measured, requestMetrics } from './cloudwatch/aws-metrics.ts';
import { type CloudWatch, type LocalCloudWatch, openCloudWatch } from './cloudwatch/cloudwatch.ts';
import { readMetrics } from './cloudwatch/emf.ts';
import type { Delivery } from './cloudwatch/notifier.ts';
import { readMonitoring } from './cloudwatch/template.ts';
import { Console } from './console/console.ts';
import { startDynamoDB } from './dynamodb.ts';
import { type ExecutionEvent, Executions } from './executions.ts';
import { LocalFunction } from './functions.ts';
import { startGateway } from './gateway.ts';

/** What the test bed adds. */
export interface Hooks {
  /** Is called for each AWS call of a function. */
  readonly recordCall?: CallRecorder;
  /** Replaces the URL of an AWS service, for a relay between the functions and AWS. */
  readonly awsUrl?: (url: string) => string;
}

export interface RuntimeOptions extends Hooks {
  /** The output of `cdk synth`. */
  readonly assembly: string;
  /** The directory for the table and the executions. */
  readonly data: string;
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** The server's stanza API; `{host}` stands for the XMPP host. */
  readonly serverApi: string;
  /** The live webhook secrets, current first. */
  readonly secrets: readonly string[];
  /** Receives the log lines of the functions and of the alarms. */
  readonly log: (line: string) => void;
  /** Where changes of alarms are delivered. */
  readonly alarms?: Delivery;
  /** The console's port on loopback; 0: any free port. Undefined: there is no console. */
  readonly console?: number | undefined;
}

export interface Runtime {
  readonly port: number;
  /** The dashboard and the alarms of the stack. */
  readonly cloudWatch: CloudWatch;
  /** The console's port, if there is a console. */
  readonly console: number | undefined;
  close(): Promise<void>;
}

/** Starts the synthesized stack on this machine. */
export async function startRuntime(options: RuntimeOptions): Promise<Runtime> {
  const assembly = await readAssembly(options.assembly);
  await mkdir(options.data, { recursive: true, mode: 0o700 });
  const cloudWatch = await openMonitoring(options);
  const console = options.console === undefined ? undefined : new Console(options.data, options.log);
  const database = await startDynamoDB(join(options.data, 'dynamodb'), assembly.tables, {
    recordCall: options.recordCall,
    recordCapacity: (used) => cloudWatch.record(capacityMetrics(used)),
    onWrite: console?.onWrite,
  });
  const table = assembly.tables[0]?.name ?? '';
  const [current, previous = ''] = options.secrets;
  const executions = new Map<string, Executions>();
  const endpoint = await startAwsEndpoint({
    executions,
    secrets: new Map(assembly.secrets.map((arn) => [arn, JSON.stringify({ current, previous })])),
    record: options.recordCall,
  });

  const services = serviceVariables(options, database.endpoint, endpoint.url);
  const functions = startFunctions(assembly.functions, options.serverApi, services, (line) => {
    cloudWatch.record(readMetrics(line));
    console?.takeLine(line);
    options.log(line);
  });
  const invoke = measured((arn, event) => {
    const local = functions.get(arn);
    if (local === undefined) throw new Error(`the stack has no function ${arn}`);
    return local.invoke(event);
  }, cloudWatch.record);
  for (const machine of assembly.stateMachines) {
    const observe = (event: ExecutionEvent): void => cloudWatch.record(executionMetrics(machine.arn, event));
    executions.set(machine.arn, await Executions.open(machine, join(options.data, 'executions'), invoke, observe));
  }
  const gateway = await startGateway(options.host, options.port, assembly.routes, invoke, (request) => {
    for (const stage of assembly.stages) cloudWatch.record(requestMetrics(stage, request));
  });
  await console?.start({
    port: options.console ?? 0,
    table,
    endpoint: database.endpoint,
    cloudWatch,
    executions: () => [...executions.values()].flatMap((open) => open.list()),
  });
  const address = await writeAddress(options.data, {
    endpoint: database.endpoint,
    table,
    webhookUrl: webhookUrl(options.host, gateway.port),
    serverApi: options.serverApi,
    console: console?.port,
  });
  /** In the order in which they are closed. */
  const parts = [gateway, ...executions.values(), ...functions.values(), console, endpoint, address, database];
  return {
    port: gateway.port,
    cloudWatch,
    console: console?.port,
    async close() {
      for (const part of [...parts, cloudWatch]) await part?.close();
    },
  };
}

async function openMonitoring({ assembly, data, log, alarms }: RuntimeOptions): Promise<LocalCloudWatch> {
  const monitoring = readMonitoring(await readResources(assembly));
  return openCloudWatch({ directory: data, monitoring, log, ...(alarms === undefined ? {} : { alarms }) });
}

/** Variables with which a function finds the services of AWS. */
function serviceVariables(
  { awsUrl = (url) => url }: Hooks,
  dynamodbUrl: string,
  otherUrl: string,
): Readonly<Record<string, string>> {
  const { NODE_EXTRA_CA_CERTS: authorities } = process.env;
  return {
    AWS_REGION: REGION,
    AWS_SECRET_ACCESS_KEY: 'local',
    AWS_ENDPOINT_URL_DYNAMODB: awsUrl(dynamodbUrl),
    AWS_ENDPOINT_URL_SFN: awsUrl(otherUrl),
    AWS_ENDPOINT_URL_SECRETS_MANAGER: awsUrl(otherUrl),
    ...(authorities === undefined ? {} : { NODE_EXTRA_CA_CERTS: authorities }),
  };
}

/** @param services variables with which the functions find the services of AWS */
function startFunctions(
  definitions: readonly FunctionDefinition[],
  serverApi: string,
  services: Readonly<Record<string, string>>,
  log: (line: string) => void,
): ReadonlyMap<string, LocalFunction> {
  return new Map(
    definitions.map((definition) => {
      const environment = { ...definition.environment };
      if (ENV.serverApiUrl in environment) environment[ENV.serverApiUrl] = serverApi;
      const variables = { ...services, AWS_ACCESS_KEY_ID: definition.name };
      return [definition.arn, new LocalFunction({ ...definition, environment }, variables, log)];
    }),
  );
}
