import { randomBytes } from 'node:crypto';
import { type Lab, sleep, until } from '../lab/lab.ts';
import { startSink } from '../lab/sink.ts';
import { type Findings, type Progress, REPETITIONS } from './measure.ts';
import { type Pair, benchModules, openPair } from './server.ts';

/** What the module costs the users' server while nothing is wrong: processor time of joins and leaves, with it and without. */
const JOINS = 10_000;
const ALL = `${JOINS.toLocaleString('en')} joins and leaves`;

/** Processor time of the server, in seconds, while everyone enters and leaves. */
async function inAndOut({ population, bench }: Pair, reported: () => boolean): Promise<number> {
  const before = (await bench.use()).cpu;
  await population.enter();
  await population.leave();
  await until('all have left', async () => (await bench.use()).joins === 0, 60_000);
  await until('all is reported', reported, 60_000);
  return (await bench.use()).cpu - before;
}

export async function benchComfort(progress: Progress): Promise<Findings> {
  const secret = `whsec_${randomBytes(32).toString('base64')}`;
  let events: Awaited<ReturnType<typeof startSink>>['events'] = [];
  const settings = async (lab: Lab): Promise<string> => {
    const sink = await startSink(lab);
    events = sink.events;
    return `${benchModules('ping_muc_webhook')}\nping_muc_webhook_url = "${sink.url}"\nping_muc_secret = "${secret}"\n`;
  };
  progress('comfort: two pairs of servers');
  const ours = await openPair(JOINS, settings);
  const bare = await openPair(JOINS, () => benchModules());
  try {
    const [withOurs, without]: [number[], number[]] = [[], []];
    for (let turn = 0; turn <= REPETITIONS; turn += 1) {
      progress(`comfort: ${ALL}, ${turn === 0 ? 'to warm up' : `${turn} of ${REPETITIONS}`}`);
      const since = events.length;
      const costs = [
        await inAndOut(ours, () => events.slice(since).filter(({ type }) => type === 'muc.left').length >= JOINS),
        await inAndOut(bare, () => true),
      ];
      if (turn === 0) continue; // the first makes the rooms
      withOurs.push(costs[0] ?? 0);
      without.push(costs[1] ?? 0);
    }
    // nobody is in a room any more: a close concerns nobody
    const [eventsBefore, { closes: closesBefore }] = [events.length, await ours.bench.use()];
    for (const server of [ours.home, ours.away]) for (const link of server.links.values()) link.drop();
    await sleep(2000);
    const closes = (await ours.bench.use()).closes - closesBefore;
    if (closes === 0) throw new Error('no connection was there to be closed');
    return {
      budgets: {},
      samples: [
        { what: ALL, quantity: 'with the module', unit: 's of processor time', values: withOurs },
        { what: ALL, quantity: 'without it', unit: 's of processor time', values: without },
        {
          what: 'a join and a leave',
          quantity: 'what the module adds',
          unit: 'ms of processor time',
          values: withOurs.map((value, turn) => ((value - (without[turn] ?? 0)) / JOINS) * 1000),
        },
        {
          what: 'a close that concerns nobody',
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
