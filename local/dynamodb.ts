import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
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

/** Is called after each write that was accepted, with its operation (`UpdateItem`) and its request. */
export type WriteObserver = (operation: string, request: Readonly<Record<string, unknown>>) => void;

export interface Observers {
  /** Is called for each request. */
  readonly recordCall?: CallRecorder | undefined;
  readonly onWrite?: WriteObserver | undefined;
}

const WRITES: ReadonlySet<string> = new Set(['PutItem', 'UpdateItem', 'DeleteItem']);

export interface Database {
  /** Its URL, for the SDK. */
  readonly endpoint: string;
  close(): Promise<void>;
}

/** Starts the embedded DynamoDB on a loopback port, with the tables of the stack. Its data is in `directory`. */
export async function startDynamoDB(
  directory: string,
  tables: readonly TableDefinition[],
  { recordCall, onWrite }: Observers = {},
): Promise<Database> {
  const server = dynalite({ path: directory, createTableMs: 0 });
  if (recordCall !== undefined) server.on('request', (request: IncomingMessage) => observe(request, recordCall));
  if (onWrite !== undefined)
    server.on('request', (request: IncomingMessage, response: ServerResponse) =>
      observeWrites(request, response, onWrite),
    );
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const client = new DynamoDBClient({
    endpoint,
    region: REGION,
    credentials: { accessKeyId: 'local', secretAccessKey: 'local' },
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

/** Records a request that dynalite serves. */
function observe(request: IncomingMessage, record: CallRecorder): void {
  onBody(request, ({ TableName }) =>
    record({
      caller: caller(request),
      action: calledAction(String(request.headers['x-amz-target'])),
      resource: tableArn(String(TableName)),
    }),
  );
}

/** Reports a write once dynalite has answered 200: the condition held, and the row is stored. */
function observeWrites(request: IncomingMessage, response: ServerResponse, onWrite: WriteObserver): void {
  const operation = String(request.headers['x-amz-target']).split('.')[1] ?? '';
  if (!WRITES.has(operation)) return;
  onBody(request, (body) =>
    response.on('finish', () => {
      if (response.statusCode === 200) onWrite(operation, body);
    }),
  );
}

function onBody(request: IncomingMessage, use: (body: Readonly<Record<string, unknown>>) => void): void {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => use(JSON.parse(Buffer.concat(chunks).toString()) as Record<string, unknown>));
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
