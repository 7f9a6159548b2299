import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { decodeSecret, sign } from '../functions/core/signature.ts';
import { ENV } from '../functions/names.ts';
import { type Assembly, REGION, readAssembly } from '../local/assembly.ts';
import { startAwsEndpoint } from '../local/aws-endpoint.ts';
import { startDynamoDB } from '../local/dynamodb.ts';
import { Executions } from '../local/executions.ts';
import { LocalFunction } from '../local/functions.ts';

/** What AWS would bill, counted while the stack's own bundles run. */
export interface Counts {
  requests: number;
  writeUnits: number;
  readUnits: number;
  transitions: number;
  invocations: number;
  /** Milliseconds in functions, as measured here. */
  functionMs: number;
  /** Bytes of their log lines. */
  logBytes: number;
}

const zero = (): Counts => ({
  requests: 0,
  writeUnits: 0,
  readUnits: 0,
  transitions: 0,
  invocations: 0,
  functionMs: 0,
  logBytes: 0,
});

/** The synthesized stack on this machine. It counts everything that AWS would bill. */
export class CountedStack {
  #counts = zero();
  readonly #secret: string;
  readonly #invoke: (arn: string, event: unknown) => Promise<unknown>;
  readonly #webhookArn: string;
  readonly #executions: Executions;
  readonly #close: () => Promise<void>;

  private constructor(parts: {
    secret: string;
    invoke: (arn: string, event: unknown) => Promise<unknown>;
    webhookArn: string;
    executions: Executions;
    close: () => Promise<void>;
  }) {
    this.#secret = parts.secret;
    this.#invoke = parts.invoke;
    this.#webhookArn = parts.webhookArn;
    this.#executions = parts.executions;
    this.#close = parts.close;
  }

  /** @param assembly the output of cdk synth */
  static async start(assembly: string, serverApi: string): Promise<CountedStack> {
    const { tables, functions, stateMachines, routes, secrets } = await readAssembly(assembly);
    const [machine] = stateMachines;
    const [route] = routes;
    if (machine === undefined || route === undefined) throw new Error('the stack lacks its workflow or its route');
    const directory = await mkdtemp(join(tmpdir(), 'ping-muc-bench-'));
    const database = await startDynamoDB(join(directory, 'dynamodb'), tables, {
      recordCapacity: ({ isWrite, units }) => {
        if (isWrite) stack.#counts.writeUnits += units;
        else stack.#counts.readUnits += units;
      },
    });
    const secret = `whsec_${randomBytes(32).toString('base64')}`;
    const executions = new Map<string, Executions>();
    const value = JSON.stringify({ current: secret, previous: '' });
    const endpoint = await startAwsEndpoint({
      executions,
      secrets: new Map(secrets.map((arn) => [arn, value])),
      record: undefined,
    });
    const services = {
      AWS_REGION: REGION,
      AWS_ACCESS_KEY_ID: 'bench',
      AWS_SECRET_ACCESS_KEY: 'bench',
      AWS_ENDPOINT_URL_DYNAMODB: database.endpoint,
      AWS_ENDPOINT_URL_SFN: endpoint.url,
      AWS_ENDPOINT_URL_SECRETS_MANAGER: endpoint.url,
    };
    const running = startFunctions(functions, services, serverApi, (line) => {
      stack.#counts.logBytes += Buffer.byteLength(line) + 1;
    });
    const invoke = async (arn: string, event: unknown): Promise<unknown> => {
      const began = performance.now();
      stack.#counts.invocations += 1;
      try {
        return await running.get(arn)?.invoke(event);
      } finally {
        stack.#counts.functionMs += performance.now() - began;
      }
    };
    const open = await Executions.open(machine, join(directory, 'executions'), invoke);
    executions.set(machine.arn, open);
    const stack: CountedStack = new CountedStack({
      secret,
      invoke,
      webhookArn: route.functionArn,
      executions: open,
      async close() {
        await open.close();
        await Promise.all([...running.values()].map((local) => local.close()));
        await endpoint.close();
        await database.close();
        await rm(directory, { recursive: true, force: true });
      },
    });
    return stack;
  }

  /** Sends one signed webhook, perhaps a heartbeat. @throws unless all of its events are accepted */
  async send(host: string, events: readonly object[], queue?: object): Promise<void> {
    const body = JSON.stringify({ host, queue, events });
    const headers = sign(
      [decodeSecret(this.#secret)],
      `msg_${randomUUID()}`,
      Math.floor(Date.now() / 1000),
      Buffer.from(body),
    );
    this.#counts.requests += 1;
    const answer = (await this.#invoke(this.#webhookArn, { headers, body, isBase64Encoded: false })) as {
      statusCode: number;
      body: string;
    };
    const { rejected } = JSON.parse(answer.body) as { rejected?: readonly unknown[] };
    if (answer.statusCode !== 200 || rejected?.length !== 0)
      throw new Error(`the webhook answered ${answer.statusCode}: ${answer.body}`);
  }

  /** Waits until no check runs. */
  async settled(): Promise<void> {
    while (this.#executions.list('RUNNING').length > 0) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  /** What was counted since the last call. */
  take(): Counts {
    const counts = {
      ...this.#counts,
      transitions: this.#executions.list().reduce((sum, { transitions }) => sum + transitions, 0) - this.#taken,
    };
    this.#taken += counts.transitions;
    this.#counts = zero();
    return counts;
  }

  #taken = 0;

  close(): Promise<void> {
    return this.#close();
  }
}

function startFunctions(
  functions: Assembly['functions'],
  services: Readonly<Record<string, string>>,
  serverApi: string,
  log: (line: string) => void,
): ReadonlyMap<string, LocalFunction> {
  return new Map(
    functions.map((definition) => {
      const environment = { ...definition.environment };
      if (ENV.serverApiUrl in environment) environment[ENV.serverApiUrl] = serverApi;
      return [definition.arn, new LocalFunction({ ...definition, environment }, services, log)];
    }),
  );
}
