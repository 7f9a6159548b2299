import { randomBytes } from 'node:crypto';
import { requestBody, ping, readAnswers } from '../functions/core/stanzas.ts';
import type { NoticeCounts } from '../lab/population.ts';
import { sleep, until } from '../lab/lab.ts';
import { post } from '../lab/requests.ts';
import { type Loss, Scale } from '../lab/scale.ts';
import { startSink } from '../lab/sink.ts';
import { Collection, type Findings, type Progress, REPETITIONS, median } from './measure.ts';
import { BENCH_GLOBAL, BenchModule, type Pair, benchModules, openPair } from './server.ts';

/**
 * A check, compared with the limit (the same pings, sent by the smallest possible amount of code) and with the existing
 * in-server approach. They take turns on the same machine, so that other load affects all three.
 */
const SIZES = [1000, 5000, 20_000];
/** The size for which there are budgets. */
const BUDGETED = 5000;
const WRONG_AT = 50_000;
/** Repetitions of the in-server approach, by size. Its time grows with the square of the joins. */
const TODAY_TURNS: Readonly<Record<string, Readonly<Record<number, number>>>> = {
  kept: { 1000: REPETITIONS, 5000: 1, 20_000: 1 },
  lost: { 1000: REPETITIONS, 5000: 1 },
};
/** The time after which it is given up. */
const TODAY_SECONDS = 60;
/** Duplicate and late notices have arrived by then. */
const AFTERMATH_MS = 1000;

const CASES = [
  ['kept', () => false],
  ['lost', () => true],
] as const;

/** One loss with the existing in-server approach. It is given up after TODAY_SECONDS. */
async function loseInServer(
  { home, away, population, bench }: Pair,
  isLost: () => boolean,
): Promise<NoticeCounts & { readonly due: number; readonly doneAt: number; readonly seconds: number | undefined }> {
  await population.lose(isLost);
  const due = Date.now() + 1000;
  for (const server of [home, away]) for (const link of server.links.values()) link.drop();
  await sleep(1500); // the delay, and some time so that the previous check is not taken for this one
  let state = await bench.inServer();
  while (!state.done && Date.now() < due + TODAY_SECONDS * 1000) {
    await sleep(250);
    state = await bench.inServer();
  }
  const seconds = state.done ? state.seconds : undefined;
  const doneAt = seconds === undefined ? Date.now() : due + seconds * 1000;
  await sleep(AFTERMATH_MS);
  return { ...population.noticeCounts(), due, doneAt, seconds };
}

/** One loss with ping-muc. @throws unless every join was decided, so that each figure is of a complete check */
export async function loseAll(scale: Scale, isLost: (index: number) => boolean): Promise<Loss> {
  const loss = await scale.lose(isLost);
  const lost = scale.population.members.filter(({ isLost: is }) => is).length;
  const { pinged, joined, left } = loss.totals;
  const joins = scale.population.members.length;
  if (pinged !== joins || joined !== joins - lost || left !== lost || loss.missed > 0) {
    throw new Error(
      `of ${joins} joins, of which ${lost} were lost, ${pinged} were pinged, ${joined} had the verdict joined, ` +
        `${left} the verdict left, and ${loss.missed} missed their notice`,
    );
  }
  return loss;
}

const row = (joins: number, name: string, whose: string): string =>
  `${joins.toLocaleString('en')} joins, all ${name}: ${whose}`;
const [OURS, LIMIT, TODAY] = ['ours', 'the limit', "today's in-server way"];
const [MULTIPLE, STALL_MULTIPLE, NOTICE_MULTIPLE] = [
  'verdicts, of the limit',
  'stall, of the limit',
  'last notice, of the limit',
];
const [DONE, LAST_NOTICE, RATE, NOTICES, MOST, WRONG, STALL] = [
  'due to last verdict',
  'due to last notice',
  'pings',
  'notices',
  'most for one loss',
  'wrong, missed, double',
  'longest stall',
];

/** Selects Lua 5.4's generational garbage collector instead of Prosody's default, the incremental one. */
const GENERATIONAL = 'gc = { mode = "generational" }';

/** Measures ping-muc and the limit with the generational collector, to show what an operator gains by it. */
async function withGenerational(joins: number, found: Collection, progress: Progress): Promise<void> {
  const ours = await Scale.open({
    joins,
    prosody: { global: `${BENCH_GLOBAL}\n${GENERATIONAL}`, forHost: benchModules('ping_muc_webhook') },
  });
  try {
    const bench = new BenchModule(ours.home);
    for (const [name, isLost] of CASES) {
      const mine = row(joins, `${name}, generational`, OURS);
      for (let turn = 1; turn <= REPETITIONS; turn += 1) {
        progress(`check of ${joins}, all ${name}, with the generational collector, ${turn} of ${REPETITIONS}`);
        await ours.enter();
        const { value: loss, ...stalls } = await bench.watch(() => loseAll(ours, isLost));
        if (name === 'lost') found.add(mine, LAST_NOTICE, 's', loss.lastNotice);
        else found.add(mine, DONE, 's', loss.done);
        found.add(mine, STALL, 'ms', stalls.longest);
        if (name === 'kept')
          found.add(row(joins, `${name}, generational`, LIMIT), DONE, 's', (await bench.pings()).seconds);
      }
    }
  } finally {
    await ours.close();
  }
}

/** The limit: raw pings for all joins. */
async function measureLimit(
  bench: BenchModule,
  limit: string,
  joins: number,
  found: Collection,
): Promise<{ readonly seconds: number; readonly longest: number }> {
  const { value: raw, ...stalls } = await bench.watch(async () => {
    const due = Date.now();
    return { ...(await bench.pings()), due, doneAt: Date.now() };
  });
  if (raw.results !== joins) throw new Error(`the rooms confirmed ${raw.results} of ${joins} raw pings`);
  found.add(limit, DONE, 's', raw.seconds);
  found.add(limit, RATE, '/s', joins / raw.seconds);
  for (const kind of ['median', 'p99'] as const) found.add(limit, `${kind} stall`, 'ms', stalls[kind]);
  found.add(limit, STALL, 'ms', stalls.longest);
  found.add(limit, 'longest work', 'ms', stalls.own);
  return { seconds: raw.seconds, longest: stalls.longest };
}

/** The existing in-server approach: one loss. */
async function measureInServer(pair: Pair, isLost: () => boolean, what: string, found: Collection): Promise<void> {
  // the remains of its previous check would slow this one down
  await pair.home.shell(`module:reload("bench", "${pair.home.host}")`);
  const { value: loss, ...stalls } = await pair.bench.watch(() => loseInServer(pair, isLost));
  if (loss.seconds === undefined) found.add(what, 'given up after', 's', TODAY_SECONDS);
  else found.add(what, DONE, 's', loss.seconds);
  found.add(what, NOTICES, '', loss.notices);
  found.add(what, WRONG, '', loss.wrong + loss.missed + loss.double);
  found.add(what, STALL, 'ms', stalls.longest);
  found.add(what, 'longest work', 'ms', stalls.own);
}

async function compareAt(joins: number, found: Collection, progress: Progress): Promise<void> {
  const label = joins.toLocaleString('en');
  progress(`check of ${label}: joining`);
  const ours = await Scale.open({
    joins,
    prosody: { global: BENCH_GLOBAL, forHost: benchModules('ping_muc_webhook') },
  });
  const today = await openPair(joins, () => `${benchModules()}\nbench_in_server = true\nbench_delay = 1\n`);
  try {
    const bench = new BenchModule(ours.home);
    await ours.enter();
    await today.population.enter();
    for (const [name, isLost] of CASES) {
      for (let turn = 1; turn <= REPETITIONS; turn += 1) {
        const step = `check of ${label}, all ${name}, ${turn} of ${REPETITIONS}`;
        progress(`${step}: ours`);
        const { value: loss, ...stalls } = await bench.watch(() => loseAll(ours, isLost));
        const mine = row(joins, name, OURS);
        if (name === 'lost') {
          found.add(mine, LAST_NOTICE, 's', loss.lastNotice);
          found.add(mine, NOTICE_MULTIPLE, '×', loss.lastNotice / median(found.get(row(joins, 'kept', LIMIT), DONE)));
          found.add(mine, 'due to last row deleted', 's', loss.done);
          found.add(mine, MOST, '', loss.most);
        } else {
          found.add(mine, DONE, 's', loss.done);
          found.add(mine, RATE, '/s', joins / loss.done);
        }
        found.add(mine, NOTICES, '', loss.notices);
        found.add(mine, WRONG, '', loss.wrong + loss.missed + loss.double);
        for (const kind of ['median', 'p99'] as const) found.add(mine, `${kind} stall`, 'ms', stalls[kind]);
        found.add(mine, STALL, 'ms', stalls.longest);
        found.add(mine, 'longest work', 'ms', stalls.own);

        if (name === 'kept') {
          progress(`${step}: the limit`);
          const raw = await measureLimit(bench, row(joins, name, LIMIT), joins, found);
          found.add(mine, MULTIPLE, '×', loss.done / raw.seconds);
          found.add(mine, STALL_MULTIPLE, '×', stalls.longest / raw.longest);
        }

        if (turn <= (TODAY_TURNS[name]?.[joins] ?? 0)) {
          progress(`${step}: today's in-server way`);
          await measureInServer(today, isLost, row(joins, name, TODAY), found);
        }

        if (name === 'lost' && turn < REPETITIONS) {
          progress(`${step}: joining again`);
          await ours.enter();
          if (turn < (TODAY_TURNS[name]?.[joins] ?? 0)) await today.population.enter();
        }
      }
    }
  } finally {
    await ours.close();
    await today.lab.close();
  }
}

/** 50,000 joins: first no user is lost, then exactly every second one. */
async function wrongNotices(found: Collection, progress: Progress): Promise<void> {
  const label = WRONG_AT.toLocaleString('en');
  progress(`${label} joins are made`);
  const scale = await Scale.open({ joins: WRONG_AT });
  try {
    await scale.enter((entered) => progress(`${entered.toLocaleString('en')} of ${label} joins are made`));
    for (const [name, isLost] of [
      ['kept', () => false],
      ['half lost', (index: number) => index % 2 === 0],
    ] as const) {
      progress(`check of ${label}, ${name}`);
      const loss = await loseAll(scale, isLost);
      const mine = row(WRONG_AT, name, OURS);
      found.add(mine, DONE, 's', loss.done);
      found.add(mine, RATE, '/s', WRONG_AT / loss.done);
      found.add(mine, NOTICES, '', loss.notices);
      found.add(mine, WRONG, '', loss.wrong + loss.missed + loss.double);
      found.add(mine, 'held by the function', 'MB', loss.heldMb);
    }
  } finally {
    await scale.close();
  }
}

const THROUGH_API = `${BUDGETED.toLocaleString('en')} pings through the stanza API, without the functions`;

/** Pings through the stanza API alone, from a client without the functions. */
async function throughApi(found: Collection, progress: Progress): Promise<void> {
  const [perRequest, inFlight] = [250, 4];
  const secret = `whsec_${randomBytes(32).toString('base64')}`;
  let events: Awaited<ReturnType<typeof startSink>>['events'] = [];
  const pair = await openPair(BUDGETED, async (lab) => {
    const sink = await startSink(lab);
    events = sink.events;
    return `${benchModules('ping_muc_webhook')}\nping_muc_webhook_url = "${sink.url}"\nping_muc_secret = "${secret}"\n`;
  });
  try {
    progress('stanza API: joining');
    await pair.population.enter();
    const joins = await until(
      'all joins are reported',
      () => events.filter(({ type }) => type === 'muc.joined').length === BUDGETED && events,
      30_000,
    );
    const stanzas = joins.map(({ at, user = '', room = '', nick = '' }) =>
      ping({ host: pair.home.host, remote: '', at, user, room, nick }),
    );
    for (let turn = 1; turn <= REPETITIONS; turn += 1) {
      progress(`stanza API, ${turn} of ${REPETITIONS}`);
      const began = performance.now();
      let [next, results] = [0, 0];
      const worker = async (): Promise<void> => {
        while (next < stanzas.length) {
          const body = requestBody(stanzas.slice(next, (next += perRequest)), 60);
          const reply = await post({
            url: `http://${pair.home.host}:5280/ping_muc/stanzas`,
            secret,
            body,
            type: 'application/xmpp+xml',
          });
          if (reply.status !== 200)
            throw new Error(`the stanza API answered ${reply.status}: ${reply.body.slice(0, 200)}`);
          results += [...readAnswers(reply.body).values()].filter(({ kind }) => kind === 'result').length;
        }
      };
      await Promise.all(Array.from({ length: inFlight }, worker));
      if (results !== BUDGETED) throw new Error(`${results} of ${BUDGETED} pings were answered by their rooms`);
      found.add(THROUGH_API, RATE, '/s', BUDGETED / ((performance.now() - began) / 1000));
    }
  } finally {
    await pair.lab.close();
  }
}

/** The values of the case with the longer median: a budget must be met in both. */
const worse = (one: readonly number[], other: readonly number[]): readonly number[] =>
  median(one) > median(other) ? one : other;

export async function benchCheck(progress: Progress): Promise<Findings> {
  const found = new Collection();
  await throughApi(found, progress);
  for (const joins of SIZES) await compareAt(joins, found, progress);
  await withGenerational(BUDGETED, found, progress);
  await wrongNotices(found, progress);
  const line = (name: string, whose: string, quantity: string) => ({
    name: `${whose}, all ${name}: ${quantity}`,
    points: SIZES.filter((size) => found.has(row(size, name, whose), quantity)).map(
      (size) => [size, median(found.get(row(size, name, whose), quantity))] as const,
    ),
  });
  return {
    budgets: {
      'wrong notices, 50,000 joins, both streams cut': ['kept', 'half lost'].flatMap((name) =>
        found.get(row(WRONG_AT, name, OURS), WRONG),
      ),
      'notices for one loss': SIZES.flatMap((size) => found.get(row(size, 'lost', OURS), MOST)),
      'longest stall of the event loop, check of 5,000': worse(
        found.get(row(BUDGETED, 'kept', OURS), STALL),
        found.get(row(BUDGETED, 'lost', OURS), STALL),
      ),
      "the same, as a multiple of the limit's own": found.get(row(BUDGETED, 'kept', OURS), STALL_MULTIPLE),
      'from due to the last verdict, 5,000 joins, as a multiple of the limit': found.get(
        row(BUDGETED, 'kept', OURS),
        MULTIPLE,
      ),
      'from due to the last notice, 5,000 lost': found.get(row(BUDGETED, 'lost', OURS), LAST_NOTICE),
      'pings through the stanza API': found.get(THROUGH_API, RATE),
    },
    samples: found.all(),
    growth: [
      {
        title: 'A check',
        x: 'joins',
        y: 'seconds',
        lines: [
          line('kept', OURS, DONE),
          line('lost', OURS, LAST_NOTICE),
          line('kept', LIMIT, DONE),
          line('kept', TODAY, DONE),
        ],
      },
      {
        title: 'The longest stall of the event loop during a check',
        x: 'joins',
        y: 'milliseconds',
        lines: [line('kept', OURS, STALL), line('lost', OURS, STALL), line('kept', TODAY, STALL)],
      },
    ],
  };
}
