import { type Counts, CountedStack } from './counted-stack.ts';
import type { Findings, Progress } from './measure.ts';
import { startFakeServer } from './fake-server.ts';

/** What AWS would bill for each kind of event, counted on the stack's own bundles. */

/** The size from which the cost of one join is computed. */
export const SAMPLE = 1000;
/** Joins in one request, at most. */
const BATCH = 1000;
/** The size of a room that is checked for silence, and the name of that row. */
const SMALL = 10;
export const SILENT_ROOM = `a silent room of ${SMALL}, all joined`;
/** The name of that row. It also reads the heartbeats of all hosts, here of one. */
export const HEARTBEAT = 'a heartbeat, alone in its request';
const SIZES = [SMALL, SAMPLE, 50_000];

const HOST = 'example.net';
let last = Date.now() * 1000;
const at = (): number => (last += 1);
const user = (index: number): string => `user${index}@${HOST}/phone`;
const joined = (remote: string, index: number): object => ({
  type: 'muc.joined',
  at: at(),
  user: user(index),
  room: `room@${remote}`,
  nick: `nick ${index}`,
});
const closed = (remote: string): object => ({
  type: 's2s.closed',
  at: at(),
  remote,
  direction: 'outgoing',
  delay: 1,
  timeout: 60,
  patience: 0,
  dry_run: false,
});
const silent = (remote: string): object => ({
  ...closed(remote),
  type: 'check.requested',
  room: `room@${remote}`,
  cause: 'silence',
  delay: 0,
});
const check = (size: number, verdict: 'joined' | 'left'): string => `a close and a check of ${size}, all ${verdict}`;

/** @param sizes of checks, in joins, with SAMPLE among them */
export async function countCosts(
  assembly: string,
  sizes: readonly number[],
  progress: Progress,
): Promise<Record<string, Counts>> {
  const server = await startFakeServer();
  const stack = await CountedStack.start(assembly, server.url);
  const count = async (act: () => Promise<void>): Promise<Counts> => {
    await stack.settled();
    stack.take();
    await act();
    await stack.settled();
    return stack.take();
  };
  const counted: Record<string, Counts> = {};
  try {
    await stack.send(HOST, [joined('warm.example', 0)]);
    await stack.send(HOST, [closed('warm.example')]);
    counted['a join, alone in its request'] = await count(() => stack.send(HOST, [joined('one.example', 1)]));
    counted['a leave, alone in its request'] = await count(() =>
      stack.send(HOST, [{ type: 'muc.left', at: at(), user: user(1), room: 'room@one.example' }]),
    );
    counted[HEARTBEAT] = await count(() => stack.send(HOST, [], { length: 0, oldest: 0 }));
    counted['a close and a check that finds nobody'] = await count(() => stack.send(HOST, [closed('none.example')]));
    for (const size of sizes) {
      progress(`costs: ${size.toLocaleString('en')} joins`);
      const remote = `with-${size}.example`;
      const joins = await count(async () => {
        for (let first = 0; first < size; first += BATCH) {
          await stack.send(
            HOST,
            Array.from({ length: Math.min(BATCH, size - first) }, (_, index) => joined(remote, first + index)),
          );
        }
      });
      if (size === SAMPLE) counted[`${SAMPLE} joins in one request`] = joins;
      for (const verdict of ['joined', 'left'] as const) {
        progress(`costs: a check of ${size.toLocaleString('en')}, all ${verdict}`);
        server.answers = verdict;
        counted[check(size, verdict)] = await count(() => stack.send(HOST, [closed(remote)]));
        if (size === SMALL && verdict === 'joined')
          counted[SILENT_ROOM] = await count(() => stack.send(HOST, [silent(remote)]));
      }
    }
    return counted;
  } finally {
    await stack.close();
    await server.close();
  }
}

export async function benchCost(assembly: string, progress: Progress): Promise<Findings> {
  const counted = await countCosts(assembly, SIZES, progress);
  const units = {
    requests: 'requests',
    writeUnits: 'write units',
    readUnits: 'read units',
    transitions: 'transitions',
    invocations: 'invocations',
    functionMs: 'function ms',
    logBytes: 'log bytes',
  };
  const samples = Object.entries(counted).flatMap(([what, counts]) =>
    Object.entries(units).map(([key, quantity]) => ({
      what,
      quantity,
      unit: '',
      values: [counts[key as keyof Counts]],
    })),
  );
  const grows = (key: keyof Counts, verdict: 'joined' | 'left'): readonly (readonly [number, number])[] =>
    SIZES.map((size) => [size, counted[check(size, verdict)]?.[key] ?? 0] as const);
  return {
    budgets: {
      'write units for a recorded join': [
        counted['a join, alone in its request']?.writeUnits ?? Infinity,
        (counted[`${SAMPLE} joins in one request`]?.writeUnits ?? Infinity) / SAMPLE,
      ],
    },
    samples,
    growth: [
      {
        title: 'What is billed for a check',
        x: 'joins',
        y: 'units',
        lines: [
          { name: 'write units, all lost', points: grows('writeUnits', 'left') },
          { name: 'write units, all kept', points: grows('writeUnits', 'joined') },
          { name: 'read units, all kept', points: grows('readUnits', 'joined') },
          { name: 'state transitions', points: grows('transitions', 'joined') },
        ],
      },
    ],
  };
}
