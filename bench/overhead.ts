import { randomBytes } from 'node:crypto';
import { type Lab, sleep, until } from '../lab/lab.ts';
import { startSink } from '../lab/sink.ts';
import { type Findings, type Progress, REPETITIONS } from './measure.ts';
import { type Pair, benchModules, openPair } from './server.ts';

/**
 * The module's overhead on the users' server without any loss: processor time of joins and leaves, with and without
 * it.
 */
const JOINS = 10_000;
const ALL = `${JOINS.toLocaleString('en')} joins and leaves`;

/** Processor time of the server, in seconds, while everyone enters and leaves. */
async function enterAndLeave({ population, bench }: Pair, reported: () => boolean): Promise<number> {
  const before = (await bench.use()).cpu;
  await population.enter();
  await population.leave();
  await until('all have left', async () => (await bench.use()).joins === 0, 60_000);
  await until('all is reported', reported, 60_000);
  return (await bench.use()).cpu - before;
}

export async function benchOverhead(progress: Progress): Promise<Findings> {
  const secret = `whsec_${randomBytes(32).toString('base64')}`;
  let events: Awaited<ReturnType<typeof startSink>>['events'] = [];
  const settings = async (lab: Lab): Promise<string> => {
    const sink = await startSink(lab);
    events = sink.events;
    return `${benchModules('ping_muc_webhook')}\nping_muc_webhook_url = "${sink.url}"\nping_muc_secret = "${secret}"\n`;
  };
  progress('overhead: starting two pairs of servers');
  const ours = await openPair(JOINS, settings);
  const bare = await openPair(JOINS, () => benchModules());
  try {
    const [withOurs, without]: [number[], number[]] = [[], []];
    for (let turn = 0; turn <= REPETITIONS; turn += 1) {
      progress(`overhead: ${ALL}, ${turn === 0 ? 'warm-up' : `${turn} of ${REPETITIONS}`}`);
      await ours.home.restartModule(); // otherwise joins that change again and again are reported late (folds.lib)
      const since = events.length;
      const costs = [
        await enterAndLeave(ours, () => events.slice(since).filter(({ type }) => type === 'muc.left').length >= JOINS),
        await enterAndLeave(bare, () => true),
      ];
      if (turn === 0) continue; // the first turn creates the rooms
      withOurs.push(costs[0] ?? 0);
      without.push(costs[1] ?? 0);
    }
    // no user is in a room now, so a close affects no user
    const [eventsBefore, { closes: closesBefore }] = [events.length, await ours.bench.use()];
    for (const server of [ours.home, ours.away]) for (const link of server.links.values()) link.drop();
    await sleep(2000);
    const closes = (await ours.bench.use()).closes - closesBefore;
    if (closes === 0) throw new Error('no connection was open');
    return {
      budgets: {},
      samples: [
        { what: ALL, quantity: 'with the module', unit: 's of processor time', values: withOurs },
        { what: ALL, quantity: 'without the module', unit: 's of processor time', values: without },
        {
          what: 'a join and a leave',
          quantity: 'what the module adds',
          unit: 'ms of processor time',
          values: withOurs.map((value, turn) => ((value - (without[turn] ?? 0)) / JOINS) * 1000),
        },
        {
          what: 'a close that affects no user',
          quantity: 'events reported',
          unit: '',
          values: [events.length - eventsBefore],
        },
      ],
      growth: [],
    };
  } finally {
    await ours.lab.close();
    await bare.lab.close();
  }
}
