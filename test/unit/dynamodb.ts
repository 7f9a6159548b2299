import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { CreateTableCommand, DeleteTableCommand, DynamoDBClient } from '@aws-sdk/client-dynamodb';
import dynalite from 'dynalite';
import { TABLE_KEYS } from '../../functions/names.ts';

/** A table with the stack's keys. */
export interface TestTable {
  readonly client: DynamoDBClient;
  readonly endpoint: string;
  readonly name: string;
  close(): Promise<void>;
}

/** A DynamoDB. */
interface Engine {
  readonly endpoint: string;
  close(client: DynamoDBClient, table: string): Promise<unknown>;
}

/** Makes a table: in an embedded DynamoDB, or in that at the URL in DYNAMODB_ENDPOINT. */
export async function startTable(name = `Joins-${randomUUID()}`): Promise<TestTable> {
  const engine = given(process.env['DYNAMODB_ENDPOINT']) ?? (await embedded());
  const { endpoint } = engine;
  const client = new DynamoDBClient({
    endpoint,
    region: 'eu-central-1',
    credentials: { accessKeyId: 'local', secretAccessKey: 'local' },
  });
  const { partition, sort } = TABLE_KEYS;
  await client.send(
    new CreateTableCommand({
      TableName: name,
      KeySchema: [
        { AttributeName: partition, KeyType: 'HASH' },
        { AttributeName: sort, KeyType: 'RANGE' },
      ],
      AttributeDefinitions: [partition, sort].map((AttributeName) => ({ AttributeName, AttributeType: 'S' as const })),
      BillingMode: 'PAY_PER_REQUEST',
    }),
  );
  return {
    client,
    endpoint,
    name,
    async close() {
      await engine.close(client, name);
      client.destroy();
    },
  };
}

function given(endpoint: string | undefined): Engine | undefined {
  if (endpoint === undefined) return undefined;
  return { endpoint, close: (client, table) => client.send(new DeleteTableCommand({ TableName: table })) };
}

async function embedded(): Promise<Engine> {
  const server: Server = dynalite({ createTableMs: 0 });
  server.keepAliveTimeout = 0; // as DynamoDB, which does not say for how long it keeps an idle connection
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async close() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
