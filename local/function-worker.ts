import { PerformanceObserver, constants } from 'node:perf_hooks';
import { parentPort, workerData } from 'node:worker_threads';
import type { FunctionDefinition } from './assembly.ts';

/** This module runs a function's bundle in its own thread, with its own environment. */
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
  // the heap after a full collection is what the function holds; before it, the heap contains garbage, too
  let heldBytes = process.memoryUsage().heapUsed;
  new PerformanceObserver((list) => {
    const collections = list.getEntries() as unknown as readonly { detail: { kind: number } }[];
    const full = collections.some(({ detail }) => detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR);
    if (full) heldBytes = Math.max(heldBytes, process.memoryUsage().heapUsed);
  }).observe({ entryTypes: ['gc'] });
  port.on('message', ({ id, requestId, event }: Invocation) => {
    const began = Date.now();
    const ends = Date.now() + timeoutSeconds * 1000;
    const context = {
      awsRequestId: requestId,
      functionName: name,
      memoryLimitInMB: String(memoryMegabytes),
      getRemainingTimeInMillis: () => Math.max(0, ends - Date.now()),
    };
    const answer = (outcome: Outcome): void => {
      port.postMessage(outcome);
      const report = {
        level: 'DEBUG',
        message: 'REPORT',
        function: name,
        requestId,
        durationMs: Date.now() - began,
        heldMb: Math.round(heldBytes / 1e6),
      };
      process.stdout.write(`${JSON.stringify(report)}\n`); // like Lambda's REPORT line
    };
    handle(event, context).then(
      (result) => answer({ id, result }),
      (error: unknown) => {
        const { name: errorName, message } = error instanceof Error ? error : new Error(String(error));
        answer({ id, error: { name: errorName, message } });
      },
    );
  });
}
