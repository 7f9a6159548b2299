import { join } from 'node:path';
import { DynamoDBClient, QueryCommand } from '@aws-sdk/client-dynamodb';
import { REGION } from '../assembly.ts';
import type { CloudWatch } from '../cloudwatch/cloudwatch.ts';
import type { WriteObserver } from '../dynamodb.ts';
import type { Execution } from '../executions.ts';
import { consolePages } from '../installation.ts';
import { consoleApi } from './api.ts';
import { ConsoleDatabase } from './database.ts';
import { History } from './history.ts';
import { JoinIndex } from './joins.ts';
import { Names } from './names.ts';
import { toAssets } from './pages.ts';
import { startServer } from './server.ts';
import { readChange } from './table-writes.ts';
import { trim } from './trim.ts';
import type { ServerView } from './views.ts';

/** How often what is too old is deleted. */
const TRIM_EVERY_MS = 3_600_000;
/** Rows of servers that are read. */
const MAX_SERVERS = 1000;
/** For one call of the embedded DynamoDB, which may be busy. */
const CALL_TIMEOUT_MS = 15_000;

export interface ConsoleOptions {
  /** 0: any free port. */
  readonly port: number;
  /** The directory for its database. */
  readonly data: string;
  /** The functions' table, and the URL of the embedded DynamoDB. */
  readonly table: string;
  readonly endpoint: string;
  readonly cloudWatch: CloudWatch;
  readonly executions: () => readonly Execution[];
  readonly log: (line: string) => void;
}

/** The console (docs/operating.md). It follows log lines and writes from its creation, and is served once started. */
export class Console {
  readonly #database: ConsoleDatabase;
  readonly #names: Names;
  readonly #history: History;
  readonly #joins: JoinIndex;
  readonly #log: (line: string) => void;
  readonly #ended = new AbortController();
  #port = 0;
  #stop: (() => Promise<void>) | undefined;

  constructor(data: string, log: (line: string) => void) {
    this.#log = log;
    this.#database = new ConsoleDatabase(join(data, 'console.db'), (error) =>
      this.#report('the console could not store what happened', error),
    );
    this.#names = new Names(this.#database);
    this.#history = new History(this.#database, this.#names);
    this.#joins = new JoinIndex(this.#database, this.#names);
  }

  get port(): number {
    return this.#port;
  }

  /** Follows a write of the table. */
  readonly onWrite: WriteObserver = (operation, request) => {
    const change = readChange(operation, request);
    if (change !== undefined) this.#joins.apply(change);
  };

  /** Follows a log line. */
  takeLine(line: string): void {
    this.#history.take(line);
  }

  /** Serves the console, and begins to read the table. @throws if the port is in use */
  async start({ port, table, endpoint, cloudWatch, executions }: Omit<ConsoleOptions, 'data' | 'log'>): Promise<void> {
    const client = new DynamoDBClient({
      endpoint,
      region: REGION,
      credentials: { accessKeyId: 'local', secretAccessKey: 'local' },
      requestHandler: { requestTimeout: CALL_TIMEOUT_MS },
    });
    const assets = consolePages().then(toAssets);
    assets.catch((error: unknown) => this.#report('the pages of the console could not be bundled', error));
    const sources = {
      names: this.#names,
      joins: this.#joins,
      history: this.#history,
      cloudWatch,
      executions,
      heartbeats: () => readHeartbeats(client, table),
    };
    const server = await startServer(port, assets, consoleApi(sources), (error) =>
      this.#report('the console failed to answer', error),
    );
    this.#port = server.port;
    const filled = this.#joins.fill(client, table, this.#ended.signal).catch((error: unknown) => {
      this.#report('the console could not read the table', error);
    });
    const trimNow = (): void => trim(this.#database, this.#names, Date.now());
    const trimmer = setInterval(trimNow, TRIM_EVERY_MS);
    trimNow();
    this.#stop = async () => {
      clearInterval(trimmer);
      await server.close();
      await filled;
      client.destroy();
    };
  }

  async close(): Promise<void> {
    this.#ended.abort();
    await this.#stop?.();
    this.#database.close();
  }

  #report(message: string, error: unknown): void {
    const detail = error instanceof Error ? error.message : String(error);
    this.#log(JSON.stringify({ level: 'ERROR', time: new Date().toISOString(), message, detail }));
  }
}

/** What servers say about themselves: one row for each host. There are none if the servers' module is older. */
async function readHeartbeats(
  client: DynamoDBClient,
  table: string,
): Promise<ReadonlyMap<string, NonNullable<ServerView['heartbeat']>>> {
  const { Items = [] } = await client.send(
    new QueryCommand({
      TableName: table,
      KeyConditionExpression: 'pk = :host',
      ExpressionAttributeValues: { ':host': { S: 'HOST' } },
      Limit: MAX_SERVERS,
    }),
  );
  const number = (item: (typeof Items)[number], name: string): number => Number(item[name]?.N ?? 0);
  return new Map(
    Items.map((item) => [
      item['sk']?.S ?? '',
      { at: number(item, 'last') * 1000, queued: number(item, 'length'), oldest: number(item, 'oldest') * 1000 },
    ]),
  );
}
