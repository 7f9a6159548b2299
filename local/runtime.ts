import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ENV } from '../functions/names.ts';
import { REGION, readAssembly } from './assembly.ts';
import { startAwsEndpoint } from './aws-endpoint.ts';
import { callRecorder } from './calls.ts';
import { startDynamoDB } from './dynamodb.ts';
import { Executions } from './executions.ts';
import { LocalFunction } from './functions.ts';
import { startGateway } from './gateway.ts';

export interface RuntimeOptions {
  /** The output of `cdk synth`. */
  readonly assembly: string;
  /** Where the table and the executions are kept. */
  readonly data: string;
  readonly host: string;
  /** 0: any. */
  readonly port: number;
  /** The server's stanza API; `{host}` stands for the XMPP host. */
  readonly serverApi: string;
  /** The live webhook secrets, current first. */
  readonly secrets: readonly string[];
  /** Takes the functions' log lines. */
  readonly log: (line: string) => void;
  /** A file to which the AWS calls that the functions make are appended, each distinct one once. */
  readonly recordCalls?: string | undefined;
  /** For tests: a relay on the functions' way to AWS. Whom a request is for stands in its path: `/127.0.0.1:8000/`. */
  readonly awsRelay?: string | undefined;
}

export interface Runtime {
  readonly port: number;
  close(): Promise<void>;
}

/** Starts the synthesized stack on this machine. */
export async function startRuntime(options: RuntimeOptions): Promise<Runtime> {
  const assembly = await readAssembly(options.assembly);
  await mkdir(options.data, { recursive: true, mode: 0o700 });
  const record = options.recordCalls === undefined ? undefined : callRecorder(options.recordCalls);
  const database = await startDynamoDB(join(options.data, 'dynamodb'), assembly.tables, record);
  const [current, previous = ''] = options.secrets;
  const secret = JSON.stringify({ current, previous });
  const executions = new Map<string, Executions>();
  const endpoint = await startAwsEndpoint({
    executions,
    secrets: new Map(assembly.secrets.map((arn) => [arn, secret])),
    record,
  });

  const wayTo = (url: string): string =>
    options.awsRelay === undefined ? url : `${options.awsRelay}/${new URL(url).host}`;
  const services = {
    AWS_REGION: REGION,
    AWS_SECRET_ACCESS_KEY: 'local',
    AWS_ENDPOINT_URL_DYNAMODB: wayTo(database.endpoint),
    AWS_ENDPOINT_URL_SFN: wayTo(endpoint.url),
    AWS_ENDPOINT_URL_SECRETS_MANAGER: wayTo(endpoint.url),
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
