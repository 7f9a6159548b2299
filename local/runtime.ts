import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ENV } from '../functions/names.ts';
import { REGION, readAssembly } from './assembly.ts';
import { startAwsEndpoint } from './aws-endpoint.ts';
import type { CallRecorder } from './calls.ts';
import { startDynamoDB } from './dynamodb.ts';
import { Executions } from './executions.ts';
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
  /** Receives the functions' log lines. */
  readonly log: (line: string) => void;
}

export interface Runtime {
  readonly port: number;
  close(): Promise<void>;
}

/** Starts the synthesized stack on this machine. */
export async function startRuntime(options: RuntimeOptions): Promise<Runtime> {
  const assembly = await readAssembly(options.assembly);
  await mkdir(options.data, { recursive: true, mode: 0o700 });
  const database = await startDynamoDB(join(options.data, 'dynamodb'), assembly.tables, {
    recordCall: options.recordCall,
  });
  const [current, previous = ''] = options.secrets;
  const secret = JSON.stringify({ current, previous });
  const executions = new Map<string, Executions>();
  const endpoint = await startAwsEndpoint({
    executions,
    secrets: new Map(assembly.secrets.map((arn) => [arn, secret])),
    record: options.recordCall,
  });

  const { awsUrl = (url: string): string => url } = options;
  const services = {
    AWS_REGION: REGION,
    AWS_SECRET_ACCESS_KEY: 'local',
    AWS_ENDPOINT_URL_DYNAMODB: awsUrl(database.endpoint),
    AWS_ENDPOINT_URL_SFN: awsUrl(endpoint.url),
    AWS_ENDPOINT_URL_SECRETS_MANAGER: awsUrl(endpoint.url),
    ...(process.env['NODE_EXTRA_CA_CERTS'] === undefined
      ? {}
      : { NODE_EXTRA_CA_CERTS: process.env['NODE_EXTRA_CA_CERTS'] }),
  };
  const functions = new Map(
    assembly.functions.map((definition) => {
      const environment = { ...definition.environment };
      if (ENV.serverApiUrl in environment) environment[ENV.serverApiUrl] = options.serverApi;
      return [
        definition.arn,
        new LocalFunction(
          { ...definition, environment },
          { ...services, AWS_ACCESS_KEY_ID: definition.name },
          options.log,
        ),
      ];
    }),
  );
  const invoke = (arn: string, event: unknown): Promise<unknown> => {
    const local = functions.get(arn);
    if (local === undefined) throw new Error(`the stack has no function ${arn}`);
    return local.invoke(event);
  };
  for (const machine of assembly.stateMachines) {
    executions.set(machine.arn, await Executions.open(machine, join(options.data, 'executions'), invoke));
  }
  const gateway = await startGateway(options.host, options.port, assembly.routes, invoke);
  return {
    port: gateway.port,
    async close() {
      await gateway.close();
      await Promise.all([...executions.values()].map((open) => open.close()));
      await Promise.all([...functions.values()].map((open) => open.close()));
      await endpoint.close();
      await database.close();
    },
  };
}
