import { DatabaseSync } from 'node:sqlite';
import { ExecutionAlreadyExists, type SFNClient } from '@aws-sdk/client-sfn';
import { StateMachine } from 'aws-local-stepfunctions';
import { Controls } from '../../functions/adapters/controls.ts';
import type { HostWatch } from '../../functions/adapters/host-watch.ts';
import { Hosts } from '../../functions/adapters/hosts.ts';
import { Table } from '../../functions/adapters/table.ts';
import { Workflow } from '../../functions/adapters/workflow.ts';
import type { checkHandler } from '../../functions/check.ts';
import { type Key, decodeSecret } from '../../functions/core/signature.ts';
import { ENV } from '../../functions/names.ts';
import type { webhookHandler } from '../../functions/webhook.ts';
import { type Assembly, readAssembly, readResources } from '../../local/assembly.ts';
import { evaluateAlarms } from '../../local/cloudwatch/alarm-evaluator.ts';
import { AlarmLog } from '../../local/cloudwatch/alarm-log.ts';
import { capacityMetrics, executionMetrics, requestMetrics } from '../../local/cloudwatch/aws-metrics.ts';
import { readMetrics } from '../../local/cloudwatch/emf.ts';
import { MetricStore } from '../../local/cloudwatch/metric-store.ts';
import { type Monitoring, readMonitoring } from '../../local/cloudwatch/template.ts';
import type { Transition } from '../../local/cloudwatch/views.ts';
import { MemoryDynamoDB } from './memory-dynamodb.ts';
import type { Delivery } from './sender.ts';
import type { VirtualClock } from './virtual-clock.ts';
import { VirtualFunction } from './virtual-function.ts';
import { XmppServer } from './xmpp-server.ts';

/** How the functions' DynamoDB clients repeat calls: the SDK's default, and the times of functions/adapters/aws.ts. */
const AWS_CLIENT = { attempts: 3, firstMs: 100, longestMs: 20_000 };
const PATIENT_AWS_CLIENT = { attempts: 10, firstMs: 100, longestMs: 5000 };
/** Alarms are evaluated so long after the end of each minute, as on one machine (local/cloudwatch/cloudwatch.ts). */
const EVALUATE_AFTER_MS = 2000;
const MINUTE = 60_000;
/** The secret that the servers and the functions share. */
export const KEYS: readonly Key[] = [decodeSecret(Buffer.alloc(32, 1).toString('base64'))];

/** The synthesized stack, and the handlers of its functions. */
export interface Synthesized {
  readonly assembly: Assembly;
  readonly monitoring: Monitoring;
  readonly code: Code;
}

/**
 * What is imported late, because it reads its environment when it is imported: the name of the stack, under which it
 * emits metrics.
 */
interface Code {
  readonly webhookHandler: typeof webhookHandler;
  readonly checkHandler: typeof checkHandler;
  readonly HostWatch: typeof HostWatch;
}

/** @param directory the output of `cdk synth` */
export async function readSynthesized(directory: string): Promise<Synthesized> {
  const assembly = await readAssembly(directory);
  const monitoring = readMonitoring(await readResources(directory));
  for (const { environment } of assembly.functions) Object.assign(process.env, environment);
  process.env['AWS_REGION'] ??= 'us-east-1';
  const [{ webhookHandler }, { checkHandler }, { HostWatch }] = await Promise.all([
    import('../../functions/webhook.ts'),
    import('../../functions/check.ts'),
    import('../../functions/adapters/host-watch.ts'),
  ]);
  return { assembly, monitoring, code: { webhookHandler, checkHandler, HostWatch } };
}

const tableOf = ({ tables: [table] }: Assembly): string => table?.name ?? '';

/**
 * The stack in virtual time: its handlers, its state machine and its alarms are the real ones. The table is in memory.
 * What AWS adds to them is done here as the interpreter does it (local/), with the same metrics and time stamps.
 */
export class VirtualStack {
  readonly clock: VirtualClock;
  readonly server: XmppServer;
  readonly dynamoDb: MemoryDynamoDB;
  readonly webhook: VirtualFunction;
  readonly check: VirtualFunction;
  /** What operators do by `npm run control`. */
  readonly controls: Controls;
  readonly transitions: Transition[] = [];
  /** Data points by metric, and log lines of the levels WARN and ERROR by message: what happened. */
  readonly counts = new Map<string, number>();
  readonly #store: MetricStore;
  readonly #alarms: AlarmLog;
  readonly #synthesized: Synthesized;
  readonly #executions = new Map<string, () => void>();
  readonly #stdout = process.stdout.write.bind(process.stdout);

  private constructor(synthesized: Synthesized, clock: VirtualClock, server: XmppServer, database: DatabaseSync) {
    this.#synthesized = synthesized;
    this.clock = clock;
    this.server = server;
    this.#store = new MetricStore(
      database,
      () => clock.now,
      (message, detail) => {
        throw new Error(`${message}: ${detail}`);
      },
    );
    this.#alarms = new AlarmLog(database);
    process.stdout.write = (text: string) => this.#onOutput(text);
    this.dynamoDb = new MemoryDynamoDB((used) => this.#store.record(capacityMetrics(used)));
    this.controls = new Controls(this.dynamoDb.client('control', AWS_CLIENT), tableOf(synthesized.assembly));
    const [webhook, check] = this.#functions();
    this.webhook = webhook;
    this.check = check;
    void this.#evaluateEveryMinute();
  }

  static async open(synthesized: Synthesized, clock: VirtualClock): Promise<VirtualStack> {
    return new VirtualStack(synthesized, clock, await XmppServer.start(clock), new DatabaseSync(':memory:'));
  }

  /** Ends everything. The clock must not be used any more. */
  async close(): Promise<void> {
    process.stdout.write = this.#stdout;
    for (const abort of this.#executions.values()) abort();
    this.#store.close();
    await this.server.close();
  }

  /** A request to the HTTP API. */
  readonly deliver: Delivery = async (headers, body) => {
    const at = this.clock.now;
    const answer = await this.webhook
      .invoke({ headers, body, isBase64Encoded: false })
      .catch(() => ({ statusCode: 503, headers: {} })); // as HTTP APIs answer when an integration fails
    const { statusCode: status, headers: answered = {} } = answer as {
      statusCode: number;
      headers?: Record<string, string>;
    };
    for (const stage of this.#synthesized.assembly.stages)
      this.#store.record(requestMetrics(stage, { status, at, latencyMs: this.clock.now - at }));
    const retryAfter = answered['retry-after'];
    return { status, ...(retryAfter === undefined ? {} : { retryAfter: Number(retryAfter) }) };
  };

  #functions(): readonly [VirtualFunction, VirtualFunction] {
    const { assembly, code } = this.#synthesized;
    const { dynamoDb } = this;
    const secrets = { keys: () => Promise.resolve(KEYS), renewed: () => Promise.resolve(undefined) };
    const client = dynamoDb.client('webhook', AWS_CLIENT);
    const table = tableOf(assembly);
    const webhook = code.webhookHandler({
      table: new Table(client, table),
      watch: new code.HostWatch(new Hosts(client, table), new Set()),
      workflow: new Workflow({ send: this.#startExecution } as unknown as SFNClient, ''),
      secrets,
      hosts: new Set(),
    });
    const patient = dynamoDb.client('check', PATIENT_AWS_CLIENT);
    const check = code.checkHandler({
      table: new Table(patient, table),
      controls: new Controls(patient, table),
      secrets,
      serverApiUrl: this.server.url,
    });
    const runs = (
      isIt: (environment: Readonly<Record<string, string>>) => boolean,
      handler: unknown,
    ): VirtualFunction => {
      const definition = assembly.functions.find(({ environment }) => isIt(environment));
      if (definition === undefined) throw new Error('the stack has not the functions that are expected');
      return new VirtualFunction(definition, handler as never, (points) => this.#store.record(points));
    };
    return [
      runs((environment) => ENV.stateMachineArn in environment, webhook),
      runs((environment) => ENV.serverApiUrl in environment, check),
    ];
  }

  readonly #startExecution = ({ input }: { input: { name: string; input: string } }): Promise<unknown> => {
    if (this.#executions.has(input.name))
      return Promise.reject(new ExecutionAlreadyExists({ message: input.name, $metadata: {} }));
    const [machine] = this.#synthesized.assembly.stateMachines;
    if (machine === undefined) return Promise.reject(new Error('the stack has no state machine'));
    const { definition, arn } = machine;
    const startedAt = this.clock.now;
    const observe = (status: Parameters<typeof executionMetrics>[1]['status']): void =>
      this.#store.record(executionMetrics(arn, { status, startedAt, at: this.clock.now }));
    const states = Object.entries(definition['States'] as Record<string, { Type: string }>);
    const invoke = async (parameters: unknown): Promise<unknown> => ({
      StatusCode: 200,
      Payload: await this.check.invoke((parameters as { Payload: unknown }).Payload),
    });
    const run = new StateMachine(definition as never, { validationOptions: { noValidate: true } }).run(
      JSON.parse(input.input) as never,
      {
        overrides: {
          taskResourceLocalHandlers: Object.fromEntries(
            states.filter(([, { Type }]) => Type === 'Task').map(([name]) => [name, invoke as never]),
          ),
        },
      },
    );
    observe('RUNNING');
    this.#executions.set(input.name, run.abort);
    run.result.then(
      () => observe('SUCCEEDED'),
      (error: unknown) => observe((error as Error).name === 'ExecutionTimeoutError' ? 'TIMED_OUT' : 'FAILED'),
    );
    return Promise.resolve({});
  };

  /** The functions log to standard output. */
  #onOutput(text: string): boolean {
    const points = readMetrics(text);
    this.#store.record(points);
    for (const { name, values } of points) this.#count(name, values[0] ?? 0);
    if (points.length > 0 || text.startsWith('{"level":"INFO"')) return true;
    if (!text.startsWith('{"level":')) return this.#stdout(text);
    this.#count(String((JSON.parse(text) as { message: unknown }).message), 1);
    return true;
  }

  #count(name: string, more: number): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + more);
  }

  async #evaluateEveryMinute(): Promise<void> {
    const { monitoring } = this.#synthesized;
    const read: MetricStore['series'] = (...query) => this.#store.series(...query);
    for (;;) {
      await this.clock.sleep(MINUTE - (this.clock.now % MINUTE) + EVALUATE_AFTER_MS);
      this.transitions.push(...evaluateAlarms(monitoring, read, this.#alarms, this.clock.now));
    }
  }
}
