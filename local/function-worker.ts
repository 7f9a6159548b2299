import { parentPort, workerData } from 'node:worker_threads';
import type { FunctionDefinition } from './assembly.ts';

/** What runs a function's bundle in a thread of its own, with an environment of its own. */
export interface Invocation {
  readonly id: number;
  readonly requestId: string;
  readonly event: unknown;
}

export type Outcome =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: { readonly name: string; readonly message: string } };

if (parentPort) await serve(parentPort);

async function serve(port: NonNullable<typeof parentPort>): Promise<void> {
  const { file, handler, name, timeoutSeconds, memoryMegabytes } = workerData as FunctionDefinition;
  const module = (await import(file)) as Record<string, (event: unknown, context: object) => Promise<unknown>>;
  const handle = module[handler];
  if (handle === undefined) throw new Error(`${file} does not export ${handler}`);
  port.on('message', ({ id, requestId, event }: Invocation) => {
    const ends = Date.now() + timeoutSeconds * 1000;
    const context = {
      awsRequestId: requestId,
      functionName: name,
      memoryLimitInMB: String(memoryMegabytes),
      getRemainingTimeInMillis: () => Math.max(0, ends - Date.now()),
    };
    const answer = (outcome: Outcome): void => port.postMessage(outcome);
    handle(event, context).then(
      (result) => answer({ id, result }),
      (error: unknown) => {
        const { name: errorName, message } = error instanceof Error ? error : new Error(String(error));
        answer({ id, error: { name: errorName, message } });
      },
    );
  });
}
