import type { Context } from 'aws-lambda';
import type { FunctionDefinition } from '../../local/assembly.ts';
import { invocationMetrics } from '../../local/cloudwatch/aws-metrics.ts';
import type { PointRecorder } from '../../local/cloudwatch/data-point.ts';

/** What is wrong with a function. */
export type FunctionFault =
  /** More invocations than its reserved concurrency, or the account, allows. */
  | 'throttled'
  /** Its process ends before the handler can report anything. */
  | 'dies'
  /** It never ends by itself. */
  | 'hangs';

type Handler = (event: unknown, context: Context) => Promise<unknown>;

/** An error of Lambda itself, under the name that the state machine gets. */
class LambdaError extends Error {
  constructor(name: string, message: string) {
    super(message);
    this.name = name;
  }
}

/** A function of the stack in virtual time: Lambda's time-out, its faults and its metrics around the real handler. */
export class VirtualFunction {
  fault: FunctionFault | undefined;
  readonly #definition: FunctionDefinition;
  readonly #handler: Handler;
  readonly #record: PointRecorder;
  #invocations = 0;

  constructor(definition: FunctionDefinition, handler: Handler, record: PointRecorder) {
    this.#definition = definition;
    this.#handler = handler;
    this.#record = record;
  }

  /** @throws what the handler throws, or an error of Lambda */
  async invoke(event: unknown): Promise<unknown> {
    const { name: functionName, timeoutSeconds } = this.#definition;
    const startedAt = Date.now();
    if (this.fault === 'throttled') {
      const dimensions = { FunctionName: functionName };
      this.#record([{ namespace: 'AWS/Lambda', name: 'Throttles', dimensions, at: startedAt, values: [1] }]);
      throw new LambdaError('Lambda.TooManyRequestsException', 'Rate Exceeded.');
    }
    let isFailed = true;
    let timer: NodeJS.Timeout | undefined;
    const timedOut = new Promise<never>((_, reject) => {
      const error = new LambdaError('Sandbox.Timedout', `no result after ${timeoutSeconds} s`);
      timer = setTimeout(() => reject(error), timeoutSeconds * 1000);
    });
    try {
      const result = await Promise.race([this.#run(event, startedAt + timeoutSeconds * 1000), timedOut]);
      isFailed = false;
      return result;
    } finally {
      clearTimeout(timer);
      const durationMs = Date.now() - startedAt;
      this.#record(invocationMetrics({ functionName, startedAt, durationMs, isFailed }));
    }
  }

  #run(event: unknown, ends: number): Promise<unknown> {
    if (this.fault === 'dies') return Promise.reject(new LambdaError('Runtime.ExitError', 'the process exited'));
    if (this.fault === 'hangs') return new Promise(() => undefined);
    const context = {
      awsRequestId: `request-${(this.#invocations += 1)}`,
      getRemainingTimeInMillis: () => Math.max(0, ends - Date.now()),
    };
    return this.#handler(event, context as Context);
  }
}
