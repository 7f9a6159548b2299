import { EventEmitter, once } from 'node:events';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  CreateTableCommand,
  DeleteItemCommand,
  DescribeTableCommand,
  DynamoDBClient,
  ResourceNotFoundException,
  paginateScan,
} from '@aws-sdk/client-dynamodb';
import dynalite from 'dynalite';
import { REGION, type TableDefinition, tableArn } from './assembly.ts';
import { type CallRecorder, calledAction, caller } from './calls.ts';

/** How often expired rows are deleted. dynalite never deletes them; DynamoDB does within days. */
const SWEEP_MS = 600_000;

/** BatchWriteItem accepts 16 MB, which is the largest request of DynamoDB (Quotas in DynamoDB). */
const MAX_BODY_BYTES = 16 * 1024 * 1024;
const WRITES = new Set(['PutItem', 'UpdateItem', 'DeleteItem']);
/** The keys with which this file signs its own requests. DynamoDB bills none of what it does itself. */
const OWN_KEY = 'local';

/** What one request of a function to a table used. */
export interface UsedCapacity {
  /** The table's name. */
  readonly table: string;
  readonly isWrite: boolean;
  /** Capacity units, read or written. */
  readonly units: number;
  readonly isThrottled: boolean;
  /** Milliseconds since the epoch. */
  readonly at: number;
}

/** Is called after each write that was accepted, with its operation (`UpdateItem`) and its request. */
export type WriteObserver = (operation: string, request: Readonly<Record<string, unknown>>) => void;

export interface Observers {
  /** Is called for each request. */
  readonly recordCall?: CallRecorder | undefined;
  /** Is called for each answer to a function. */
  readonly recordCapacity?: ((used: UsedCapacity) => void) | undefined;
  readonly onWrite?: WriteObserver | undefined;
}

export interface Database {
  /** Its URL, for the SDK. */
  readonly endpoint: string;
  close(): Promise<void>;
}

/** Starts the embedded DynamoDB on a loopback port, with the tables of the stack. Its data is in `directory`. */
export async function startDynamoDB(
  directory: string,
  tables: readonly TableDefinition[],
  observers: Observers = {},
): Promise<Database> {
  const server = dynalite({ path: directory, createTableMs: 0 });
  if (Object.values(observers).some((observer) => observer !== undefined)) observe(server, observers);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const client = new DynamoDBClient({
    endpoint,
    region: REGION,
    credentials: { accessKeyId: OWN_KEY, secretAccessKey: 'local' },
  });
  for (const table of tables) await createTable(client, table);
  const sweeper = setInterval(() => {
    void Promise.all(tables.map((table) => sweep(client, table))).catch((error: unknown) => {
      process.stderr.write(
        `${JSON.stringify({ level: 'WARN', message: 'expired rows could not be deleted', detail: String(error) })}\n`,
      );
    });
  }, SWEEP_MS);
  return {
    endpoint,
    async close() {
      clearInterval(sweeper);
      client.destroy();
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** What dynalite uses of a request. Streams would cost a quarter more processor time for each write. */
type PassedRequest = EventEmitter & Pick<IncomingMessage, 'headers' | 'method' | 'url'>;

/**
 * Observes what dynalite serves. The functions do not ask for the consumed capacity, so each of their requests is
 * passed on with that question.
 */
function observe(server: Server, { recordCall, recordCapacity, onWrite }: Observers): void {
  const [serve] = server.listeners('request') as ((request: PassedRequest, response: ServerResponse) => void)[];
  server.removeAllListeners('request');
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    onBody(request, (body) => {
      const target = String(request.headers['x-amz-target']);
      const asked = parseRequest(body);
      const table = String(asked?.['TableName']);
      recordCall?.({ caller: caller(request), action: calledAction(target), resource: tableArn(table) });
      const isMeasured = recordCapacity !== undefined && asked !== undefined && caller(request) !== OWN_KEY;
      if (isMeasured)
        onAnswer(response, (answer) => recordCapacity({ ...readCapacity(target, answer), table, at: Date.now() }));
      const operation = target.split('.')[1] ?? '';
      if (onWrite !== undefined && asked !== undefined && WRITES.has(operation))
        onAnswer(response, () => {
          if (response.statusCode === 200) onWrite(operation, asked); // its condition held
        });
      const { headers, method, url } = request;
      const passed: PassedRequest = Object.assign(new EventEmitter(), { headers, method, url });
      serve?.(passed, response);
      passed.emit(
        'data',
        isMeasured ? Buffer.from(JSON.stringify({ ...asked, ReturnConsumedCapacity: 'TOTAL' })) : body,
      );
      passed.emit('end');
    });
  });
}

/** Calls `read` with a request's body. A request that is too large, or that cannot be read, gets no answer. */
function onBody(request: IncomingMessage, read: (body: Buffer) => void): void {
  const chunks: Buffer[] = [];
  let size = 0;
  request.on('error', () => request.destroy());
  request.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) request.destroy();
    else chunks.push(chunk);
  });
  request.on('end', () => read(Buffer.concat(chunks)));
}

function parseRequest(body: Buffer): Readonly<Record<string, unknown>> | undefined {
  try {
    return JSON.parse(body.toString()) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

/** Calls `read` with the body with which the response is ended. */
function onAnswer(response: ServerResponse, read: (answer: string) => void): void {
  const end = response.end.bind(response) as (body: unknown) => ServerResponse;
  response.end = ((body: unknown) => {
    read(String(body));
    return end(body);
  }) as typeof response.end;
}

/** A write whose condition fails is billed, too. */
function readCapacity(target: string, answer: string): Omit<UsedCapacity, 'table' | 'at'> {
  // the answer of a query has a megabyte, so it is not parsed; in its strings, these quotes would have a backslash
  const units = /"ConsumedCapacity":\{"CapacityUnits":([\d.]+)/.exec(answer)?.[1];
  const error = units === undefined ? /"__type":"([^"]*)"/.exec(answer)?.[1] : undefined;
  return {
    isWrite: WRITES.has(target.split('.')[1] ?? ''),
    units: Number(units ?? (error?.includes('ConditionalCheckFailed') === true ? 1 : 0)),
    isThrottled: error?.includes('ProvisionedThroughputExceeded') === true,
  };
}

async function createTable(client: DynamoDBClient, table: TableDefinition): Promise<void> {
  try {
    const { Table } = await client.send(new DescribeTableCommand({ TableName: table.name }));
    const has = JSON.stringify(Table?.KeySchema);
    const wants = JSON.stringify(table.keySchema);
    if (has !== wants)
      throw new Error(
        `the table in the data directory has the key ${has}, but the stack needs ${wants}: set another with --data`,
      );
  } catch (error) {
    if (!(error instanceof ResourceNotFoundException)) throw error;
    await client.send(
      new CreateTableCommand({
        TableName: table.name,
        KeySchema: [...table.keySchema],
        AttributeDefinitions: [...table.attributes],
        BillingMode: 'PAY_PER_REQUEST',
      }),
    );
  }
}

/** Deletes expired rows, unless they are renewed meanwhile. */
async function sweep(client: DynamoDBClient, table: TableDefinition): Promise<void> {
  const { ttlAttribute, name, keySchema } = table;
  if (ttlAttribute === undefined) return;
  const expired = {
    ExpressionAttributeNames: { '#expires': ttlAttribute },
    ExpressionAttributeValues: { ':now': { N: String(Math.floor(Date.now() / 1000)) } },
  };
  for await (const page of paginateScan(
    { client },
    { TableName: name, FilterExpression: '#expires < :now', ...expired },
  )) {
    for (const item of page.Items ?? []) {
      const Key = Object.fromEntries(
        keySchema.map(({ AttributeName }) => [AttributeName, item[AttributeName] as { S: string }]),
      );
      await client
        .send(new DeleteItemCommand({ TableName: name, Key, ConditionExpression: '#expires < :now', ...expired }))
        .catch((error: unknown) => {
          if (!(error instanceof Error) || error.name !== 'ConditionalCheckFailedException') throw error;
        });
    }
  }
}
