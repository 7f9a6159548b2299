import type { Outcomes } from '../lab/population.ts';
import { type Loss, Scale } from '../lab/scale.ts';
import { Collection, type Findings, type Progress } from './measure.ts';
import { BENCH_GLOBAL, BenchModule, benchModules, forgetPeak, peak } from './server.ts';

/**
 * Re-entry of many users (rule 10, docs/rules.md), compared with notices: real servers and rooms, and two witnesses
 * that measure how late live messages are meanwhile. The result for each join is read from its client and the rooms'
 * server.
 */
const JOINS = 5000;
const SIZES = [10, 200];
const FLAPPING_SIZE = 10;
/** How long a check waits for an entry that was lost with its stream. */
const TIMEOUT_SECONDS = 5;
/** The moments at which the streams are cut again, in seconds after the check is due, when some users are back. */
const MOMENTS = [0.5, 1, 2, 4, 8];
/** Cut five times in a row, each time during the check of the previous cut. */
const FIVE_TIMES = [1, 1, 1, 1];

const [BACK, TOLD, WRONG, FORGOTTEN, TWICE, LISTS, LATEST] = [
  'back',
  'notified',
  'wrong',
  'forgotten',
  'twice',
  "lists that are not the room's",
  'a live message is late',
];
const inRooms = (perRoom: number, what: string): string =>
  `${JOINS.toLocaleString('en')} joins in rooms of ${perRoom}, ${what}`;

const all = (): boolean => true;
/** Of eight users, one was notified before, one leaves, two are kept, and four are lost. */
const KINDS = ['lost', 'told before', 'lost', 'kept', 'lost', 'leaves', 'lost', 'kept'];
const kind = (index: number): string => KINDS[index % KINDS.length] as string;

function count(found: Collection, what: string, outcomes: Outcomes, progress: Progress): void {
  const { back, notified, unresolved, wrong, twice, lists, examples } = outcomes;
  for (const [quantity, value] of [
    [BACK, back],
    [TOLD, notified],
    [WRONG, wrong],
    [FORGOTTEN, unresolved],
    [TWICE, twice],
    [LISTS, lists],
  ] as const)
    found.add(what, quantity, '', value);
  for (const example of examples) progress(`${what}: ${example}`);
}

const longest = ({ latency }: Loss): number => Math.max(...[...latency.values()].map((late) => late.longest));

/** One loss, with all its measurements. */
async function play(
  scale: Scale,
  bench: BenchModule,
  what: string,
  found: Collection,
  progress: Progress,
  isLost: (index: number) => boolean,
): Promise<Outcomes> {
  progress(what);
  const before = await bench.held();
  await forgetPeak(scale.home);
  const { value: loss, ...stalls } = await bench.watch(() => scale.lose(isLost));
  const outcomes = await scale.outcomes();
  const seconds = Math.max(loss.lastEntry, loss.lastNotice);
  found.add(what, 'due to the last', 's', seconds);
  count(found, what, outcomes, progress);
  found.add(what, 'presences', '', loss.presences);
  found.add(what, LATEST, 'ms', longest(loss));
  found.add(
    what,
    'lines lost',
    '',
    [...loss.latency.values()].reduce((sum, { lost }) => sum + lost, 0),
  );
  found.add(what, 'longest stall', 'ms', stalls.longest);
  found.add(what, 'longest work', 'ms', stalls.own);
  found.add(what, 'held before', 'MB', before);
  found.add(what, 'held after', 'MB', await bench.held());
  found.add(what, 'most memory', 'MB', await peak(scale.home));
  const lost = scale.population.members.filter((member) => member.isLost).length;
  progress(
    `${what}: of ${lost}, ${outcomes.back} back and ${outcomes.notified} notified in ${seconds.toFixed(1)} s; ` +
      `a live message ${longest(loss)} ms late`,
  );
  return outcomes;
}

async function atSize(perRoom: number, found: Collection, progress: Progress): Promise<void> {
  progress(inRooms(perRoom, 'joining'));
  const scale = await Scale.open({
    joins: JOINS,
    perRoom,
    hasLatencyProbe: true,
    settings: { ping_muc_reenter: true },
    prosody: { global: BENCH_GLOBAL, forHost: benchModules('ping_muc_webhook') },
  });
  try {
    const bench = new BenchModule(scale.home);
    await scale.enter((entered) => progress(inRooms(perRoom, `${entered} have entered`)));
    await play(scale, bench, inRooms(perRoom, REENTRY), found, progress, all);
    await scale.set({ ping_muc_reenter: false });
    await play(scale, bench, inRooms(perRoom, 'notices alone'), found, progress, all);
    await scale.set({ ping_muc_reenter: true }); // from here on the module knows the occupants of rooms
    progress(inRooms(perRoom, 'all enter by themselves'));
    await scale.enter();
    await scale.set({ ping_muc_reenter_limit: 1 });
    await scale.lose((index) => kind(index) === 'told before');
    await scale.population.leave((index) => kind(index) === 'leaves');
    await scale.set({});
    await play(scale, bench, inRooms(perRoom, HALF), found, progress, (index) => kind(index) === 'lost');
  } finally {
    await scale.close();
  }
}
const [REENTRY, HALF] = ['re-entry', 'half of them lost'];

async function flapping(found: Collection, progress: Progress): Promise<void> {
  progress(inRooms(FLAPPING_SIZE, 'a flapping link: joining'));
  const scale = await Scale.open({
    joins: JOINS,
    perRoom: FLAPPING_SIZE,
    timeout: TIMEOUT_SECONDS,
    settings: { ping_muc_reenter: true },
  });
  const once = async (what: string, again: readonly number[], isLost: (index: number) => boolean): Promise<void> => {
    await scale.enter();
    const { superseded, checks } = await scale.flap(isLost, again);
    const outcomes = await scale.outcomes();
    count(found, what, outcomes, progress);
    found.add(what, 'checks', '', checks);
    found.add(what, 'checks superseded', '', superseded);
    progress(
      `${what}, at ${again.join(', ')} s: ${outcomes.back} back, ${outcomes.notified} notified, ` +
        `${outcomes.wrong} wrong, ${outcomes.unresolved} unresolved`,
    );
  };
  try {
    for (const moment of MOMENTS) await once(inRooms(FLAPPING_SIZE, CUT_AGAIN), [moment], all);
    await once(inRooms(FLAPPING_SIZE, FIVE_CUTS), FIVE_TIMES, all);
    await once(inRooms(FLAPPING_SIZE, HALF_FIVE_CUTS), FIVE_TIMES, (index) => index % 2 === 0);
  } finally {
    await scale.close();
  }
}
const [CUT_AGAIN, FIVE_CUTS, HALF_FIVE_CUTS] = [
  'cut again meanwhile',
  'cut five times',
  'half of them lost, cut five times',
];

export async function benchReentry(progress: Progress): Promise<Findings> {
  const found = new Collection();
  for (const perRoom of SIZES) await atSize(perRoom, found, progress);
  await flapping(found, progress);
  const held = SIZES.flatMap((perRoom) => [REENTRY, HALF].map((what) => inRooms(perRoom, what)));
  const broken = [CUT_AGAIN, FIVE_CUTS, HALF_FIVE_CUTS].map((what) => inRooms(FLAPPING_SIZE, what));
  const of = (rows: readonly string[], ...quantities: readonly string[]): readonly number[] =>
    rows.flatMap((row) => quantities.flatMap((quantity) => found.get(row, quantity)));
  return {
    budgets: {
      // while the link holds, all users must be back, each once
      'wrong re-entries, 5,000 joins': [...of(held, WRONG, TOLD, TWICE, LISTS), ...of(broken, WRONG)],
      'forgotten: neither back nor notified, 5,000 joins': of([...held, ...broken], FORGOTTEN),
      'a live message is late while 5,000 are brought back': of(held, LATEST),
    },
    samples: found.all(),
    growth: [],
  };
}
