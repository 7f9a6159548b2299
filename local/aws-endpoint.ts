import { once } from 'node:events';
import { type Server, createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type CallRecorder, calledAction, caller } from './calls.ts';
import type { Executions } from './executions.ts';
import { readRequestBody } from './http.ts';

/**
 * The AWS services that the functions call, except for DynamoDB, in the protocol of the SDK: JSON over HTTP, the
 * operation in `x-amz-target`. They listen on loopback, and do not verify signatures.
 */
export interface Services {
  /** By state machine ARN. */
  readonly executions: ReadonlyMap<string, Executions>;
  /** Secret strings by ARN. */
  readonly secrets: ReadonlyMap<string, string>;
  readonly record: CallRecorder | undefined;
}

export interface Endpoint {
  readonly url: string;
  close(): Promise<void>;
}

/** StartExecution accepts 256 KiB of input (Step Functions quotas). */
const MAX_BODY_BYTES = 512 * 1024;
const MAX_RESULTS = 1000;

class ServiceError extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

type Request = Readonly<Record<string, unknown>>;

export async function startAwsEndpoint(services: Services): Promise<Endpoint> {
  const server: Server = createServer((request, response) => {
    const target = String(request.headers['x-amz-target']);
    readRequestBody(request, MAX_BODY_BYTES)
      .then((body) => {
        const operation = JSON.parse(body.toString()) as Request;
        const resource = operation['SecretId'] ?? operation['stateMachineArn'] ?? operation['executionArn'];
        services.record?.({ caller: caller(request), action: calledAction(target), resource: String(resource) });
        return operate(services, target, operation);
      })
      .then(
        (result) =>
          response.writeHead(200, { 'content-type': 'application/x-amz-json-1.0' }).end(JSON.stringify(result)),
        (error: unknown) => {
          const code = error instanceof ServiceError ? error.code : 'InternalFailure';
          const body = JSON.stringify({
            __type: code,
            message: error instanceof Error ? error.message : String(error),
          });
          response
            .writeHead(code === 'InternalFailure' ? 500 : 400, { 'content-type': 'application/x-amz-json-1.0' })
            .end(body);
        },
      );
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

async function operate(services: Services, target: string, request: Request): Promise<object> {
  switch (target) {
    case 'secretsmanager.GetSecretValue': {
      const secret = services.secrets.get(String(request['SecretId']));
      if (secret === undefined)
        throw new ServiceError('ResourceNotFoundException', "Secrets Manager can't find the specified secret.");
      return { ARN: request['SecretId'], SecretString: secret };
    }
    case 'AWSStepFunctions.StartExecution':
      return start(services, request);
    case 'AWSStepFunctions.DescribeExecution':
      return describe(...find(services, request));
    case 'AWSStepFunctions.ListExecutions': {
      const machine = String(request['stateMachineArn']);
      const listed = machineOf(services, machine).list(request['statusFilter'] as string | undefined);
      const executions = listed.slice(0, Number(request['maxResults'] ?? 100) || MAX_RESULTS).map((execution) => {
        const {
          input: _input,
          output: _output,
          ...summary
        } = describe(executionArn(machine, execution.name), execution);
        return summary;
      });
      return { executions };
    }
    case 'AWSStepFunctions.StopExecution': {
      const [arn, { name }] = find(services, request);
      const { machine } = splitArn(arn);
      const stopped = await machineOf(services, machine).stop(
        name,
        request['error'] as string | undefined,
        request['cause'] as string | undefined,
      );
      return { stopDate: (stopped?.stopDate ?? Date.now()) / 1000 };
    }
    default:
      throw new ServiceError('UnknownOperationException', `${target} is not supported on one machine`);
  }
}

async function start(services: Services, request: Request): Promise<object> {
  const machine = String(request['stateMachineArn']);
  const name = String(request['name']);
  const input = typeof request['input'] === 'string' ? request['input'] : '{}';
  if (!/^[0-9A-Za-z_-]{1,80}$/.test(name)) throw new ServiceError('InvalidName', `Invalid Name: '${name}'`);
  const executions = machineOf(services, machine);
  const known = executions.get(name);
  if (known !== undefined && !(known.status === 'RUNNING' && known.input === input)) {
    throw new ServiceError('ExecutionAlreadyExists', `Execution Already Exists: '${executionArn(machine, name)}'`);
  }
  const execution = known ?? (await executions.start(name, input));
  return { executionArn: executionArn(machine, name), startDate: execution.startDate / 1000 };
}

function machineOf(services: Services, arn: string): Executions {
  const executions = services.executions.get(arn);
  if (executions === undefined)
    throw new ServiceError('StateMachineDoesNotExist', `State Machine Does Not Exist: '${arn}'`);
  return executions;
}

const executionArn = (machine: string, name: string): string =>
  `${machine.replace(':stateMachine:', ':execution:')}:${name}`;

function splitArn(arn: string): { machine: string; name: string } {
  const colon = arn.lastIndexOf(':');
  return { machine: arn.slice(0, colon).replace(':execution:', ':stateMachine:'), name: arn.slice(colon + 1) };
}

function find(services: Services, request: Request): [string, NonNullable<ReturnType<Executions['get']>>] {
  const arn = String(request['executionArn']);
  const { machine, name } = splitArn(arn);
  const execution = services.executions.get(machine)?.get(name);
  if (execution === undefined) throw new ServiceError('ExecutionDoesNotExist', `Execution Does Not Exist: '${arn}'`);
  return [arn, execution];
}

function describe(arn: string, execution: NonNullable<ReturnType<Executions['get']>>): Record<string, unknown> {
  const { name, status, startDate, stopDate, input, output, error, cause } = execution;
  return {
    executionArn: arn,
    stateMachineArn: splitArn(arn).machine,
    name,
    status,
    startDate: startDate / 1000,
    ...(stopDate === undefined ? {} : { stopDate: stopDate / 1000 }),
    input,
    output,
    error,
    cause,
  };
}
