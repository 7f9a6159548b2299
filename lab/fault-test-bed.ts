import { cp, readFile, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DeleteItemCommand, DynamoDBClient, paginateScan } from '@aws-sdk/client-dynamodb';
import { TABLE_KEYS } from '../functions/names.ts';
import { type FunctionDefinition, readAssembly } from '../local/assembly.ts';
import { type Lab, until } from './lab.ts';
import type { Settings } from './printed-settings.ts';
import type { LogLine } from './runtime.ts';
import { ScriptedRooms } from './scripted-rooms.ts';
import { RecordingProxy } from './recording-proxy.ts';

/** From a close to its check, in seconds. */
export const DELAY = 2;
/** Seconds that the server waits for a room's answer. */
const TIMEOUT = 5;
/** Long enough to repeat a ping whose answer a fault has dropped, so that no user who is still in is notified. */
const PATIENCE = 60;

/**
 * The stacks that faults run on: copies of the synthesized one, in which only times differ, and in which a test can end
 * the check function. `brisk` retries an unreachable server after one second instead of 5 to 300. In `brief` the
 * time-out of the check function is also 25 seconds instead of 900, so that a fault can outlast an invocation.
 */
type Stack = 'brisk' | 'brief';
const BRIEF_SECONDS = 25;

/** A row of the table. */
export interface Row {
  readonly pk: string;
  readonly sk: string;
  readonly state: string;
  /** Seconds since the epoch. */
  readonly expires: number;
}

/** The test bed for faults: interceptors between server and functions, and between functions and AWS. */
export class FaultTestBed {
  readonly base: ScriptedRooms;
  /** Between the functions and AWS. */
  readonly aws: RecordingProxy;
  readonly #stacks: Readonly<Record<Stack, string>>;
  readonly #trigger: string;

  private constructor(
    base: ScriptedRooms,
    aws: RecordingProxy,
    stacks: Readonly<Record<Stack, string>>,
    trigger: string,
  ) {
    this.base = base;
    this.aws = aws;
    this.#stacks = stacks;
    this.#trigger = trigger;
  }

  static async open(): Promise<FaultTestBed> {
    const made = Promise.withResolvers<[RecordingProxy, Readonly<Record<Stack, string>>, string]>();
    const settings = { ping_muc_delay: DELAY, ping_muc_timeout: TIMEOUT, ping_muc_patience: PATIENCE };
    const base = await ScriptedRooms.open(settings, 1, {}, async (lab) => {
      const trigger = join(lab.directory, 'die');
      const stacks = { brisk: await copyStack(lab, 'brisk', trigger), brief: await copyStack(lab, 'brief', trigger) };
      const aws = await RecordingProxy.start(lab, lab.address(1), 8790);
      made.resolve([aws, stacks, trigger]);
      return { PING_MUC_AWS_RELAY: aws.url, PING_MUC_ASSEMBLY: stacks.brisk };
    });
    return new FaultTestBed(base, ...(await made.promise));
  }

  /** Restarts the runtime with another stack, if it does not run it already. */
  async use(stack: Stack): Promise<void> {
    const directory = this.#stacks[stack];
    if (this.base.runtime.environment['PING_MUC_ASSEMBLY'] !== directory)
      await this.base.runtime.restart({ PING_MUC_ASSEMBLY: directory });
  }

  /** Ends the process of the check function, whatever it is doing. */
  async killCheckFunction(): Promise<void> {
    await writeFile(this.#trigger, '');
    await until('the function is dead', async () =>
      (await readdir(this.base.lab.directory)).every((file) => file !== 'die'),
    );
  }

  /** The rows of joins in the table. */
  async rows(): Promise<readonly Row[]> {
    const client = this.#table();
    const rows: Row[] = [];
    for await (const page of paginateScan({ client }, { TableName: await this.#tableName() })) {
      for (const item of page.Items ?? []) {
        rows.push({
          pk: item[TABLE_KEYS.partition]?.S ?? '',
          sk: item[TABLE_KEYS.sort]?.S ?? '',
          state: item['state']?.S ?? '',
          expires: Number(item[TABLE_KEYS.expires]?.N),
        });
      }
    }
    client.destroy();
    return rows.filter(({ pk }) => pk.startsWith('JOIN#'));
  }

  async deleteRow({ pk, sk }: Row): Promise<void> {
    const client = this.#table();
    await client.send(
      new DeleteItemCommand({
        TableName: await this.#tableName(),
        Key: { [TABLE_KEYS.partition]: { S: pk }, [TABLE_KEYS.sort]: { S: sk } },
      }),
    );
    client.destroy();
  }

  /** The number of executions with a status, or of all executions. */
  async executions(status?: 'RUNNING' | 'FAILED'): Promise<number> {
    const folder = join(this.base.runtime.data, 'executions');
    const names = (await readdir(folder)).filter((name) => name.endsWith('.json'));
    if (status === undefined) return names.length;
    const files = await Promise.all(names.map((name) => readFile(join(folder, name), 'utf8')));
    return files.filter((text) => text.includes(`"status":"${status}"`)).length;
  }

  /** Log lines of the runtime with a message, without the first `after` lines of the log. */
  lines(message: string, after: number): readonly LogLine[] {
    return this.base.runtime.lines.slice(after).filter((line) => line['message'] === message);
  }

  set(changes: Settings): Promise<void> {
    return this.base.set(changes);
  }

  close(): Promise<void> {
    return this.base.close();
  }

  async #tableName(): Promise<string> {
    return (await readAssembly(this.#stacks.brisk)).tables[0]?.name ?? '';
  }

  /** A client that does not use the proxy. */
  #table(): DynamoDBClient {
    const [host] =
      this.aws.requests
        .findLast(({ headers }) => String(headers['x-amz-target']).startsWith('DynamoDB'))
        ?.path.slice(1)
        .split('/') ?? [];
    return new DynamoDBClient({
      endpoint: `http://${host}`,
      region: 'us-east-1',
      credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    });
  }
}

/** @param trigger the check function ends when this file appears */
async function copyStack(lab: Lab, stack: Stack, trigger: string): Promise<string> {
  const directory = join(lab.directory, stack);
  await cp(process.env['PING_MUC_ASSEMBLY'] ?? '', directory, { recursive: true });
  const { functions } = await readAssembly(directory);
  const check = functions.find(({ name }) => name.startsWith('Check')) as FunctionDefinition;
  const remove = `process.getBuiltinModule('node:fs').unlinkSync(${JSON.stringify(trigger)})`;
  const exitOnTrigger = `setInterval(() => { try { ${remove}; } catch { return; } process.exit(1); }, 5).unref();\n`;
  await writeFile(check.file, exitOnTrigger + (await readFile(check.file, 'utf8')));

  const file = join(directory, 'PingMuc.template.json');
  const template = JSON.parse(await readFile(file, 'utf8')) as {
    Resources: Record<string, { Type: string; Properties: Record<string, unknown> }>;
  };
  if (stack === 'brief')
    (template.Resources[check.name] as { Properties: Record<string, unknown> }).Properties['Timeout'] = BRIEF_SECONDS;
  // the first Retry is for the unreachable server; the total time of its attempts stays the same
  const retry = JSON.stringify('"IntervalSeconds":5,"MaxAttempts":150,"BackoffRate":2,"MaxDelaySeconds":300').slice(
    1,
    -1,
  );
  const text = JSON.stringify(template);
  if (!text.includes(retry))
    throw new Error('the Retry for an unreachable server in the workflow is not the one that this test knows');
  await writeFile(
    file,
    text.replace(retry, retry.replace(':5,', ':1,').replace(':150,', ':50000,').replace(':300', ':1')),
  );
  return directory;
}
