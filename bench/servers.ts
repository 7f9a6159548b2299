import { type Kind, ROLES } from '../lab/servers.ts';
import { Scale } from '../lab/scale.ts';
import { SERVERS } from '../infra/server-settings.ts';
import { loseAll } from './check.ts';
import { Collection, type Findings, type Progress, REPETITIONS } from './measure.ts';

/** The same losses with each server as the users' server: all kept, all lost, and a link that breaks again. */
const JOINS = 5000;
/** How long a check waits for a ping that was lost with its stream. */
const TIMEOUT_SECONDS = 5;
/** The moments at which the streams are cut again, in seconds relative to when the check is due. */
const MOMENTS = [0, 0.2, 0.4, 0.8, 1.6];
const FIVE_TIMES = [0.3, 0.3, 0.3, 0.3];
const KINDS: readonly Kind[] = ['prosody', 'ejabberd'];
const CASES = [
  ['all kept', () => false],
  ['every second lost', (index: number) => index % 2 === 0],
] as const;
const [DONE, LAST_NOTICE, WRONG] = ['due to last verdict', 'due to last notice', 'wrong, missed, double'];

const row = (kind: Kind, what: string): string => `${JOINS.toLocaleString('en')} joins, ${what}: ${SERVERS[kind].name}`;
const KEPT = 'all kept';
const LOST = 'all lost';
const FLAPPING = 'cut again during the check';

async function measure(kind: Kind, found: Collection, progress: Progress): Promise<void> {
  progress(`${SERVERS[kind].name}: joining`);
  const scale = await Scale.open({ joins: JOINS, timeout: TIMEOUT_SECONDS, users: kind });
  try {
    for (const [what, isLost] of [
      [KEPT, () => false],
      [LOST, () => true],
    ] as const) {
      for (let turn = 1; turn <= REPETITIONS; turn += 1) {
        await scale.enter();
        progress(`${row(kind, what)}, ${turn} of ${REPETITIONS}`);
        const loss = await loseAll(scale, isLost);
        if (what === LOST) found.add(row(kind, what), LAST_NOTICE, 's', loss.lastNotice);
        else found.add(row(kind, what), DONE, 's', loss.done);
        found.add(row(kind, what), WRONG, '', loss.wrong + loss.missed + loss.double);
      }
    }
    for (const [what, isLost] of CASES) {
      for (const again of [...MOMENTS.map((moment) => [moment]), FIVE_TIMES]) {
        await scale.enter();
        progress(`${row(kind, FLAPPING)}, ${what}, after ${again.join(', ')} s`);
        const { wrong, missed, double } = await scale.flap(isLost, again);
        found.add(row(kind, FLAPPING), WRONG, '', wrong + missed + double);
      }
    }
  } finally {
    await scale.close();
  }
}

export async function benchServers(progress: Progress): Promise<Findings> {
  const found = new Collection();
  if (ROLES.rooms !== 'prosody') throw new Error('the rooms are on Prosody here: unset PING_MUC_SERVERS');
  for (const kind of KINDS) await measure(kind, found, progress);
  return {
    budgets: {
      'wrong notices, 5,000 joins kept, lost and flapping, on each server': KINDS.flatMap((kind) =>
        [KEPT, LOST, FLAPPING].flatMap((what) => found.get(row(kind, what), WRONG)),
      ),
      'from due to the last notice, 5,000 lost, on ejabberd': found.get(row('ejabberd', LOST), LAST_NOTICE),
    },
    samples: found.all(),
    growth: [],
  };
}
