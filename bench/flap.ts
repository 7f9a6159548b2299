import { Scale } from '../lab/scale.ts';
import { Collection, type Findings, type Progress } from './measure.ts';

/** A link that breaks again during its check, on real servers and rooms, with the default patience. */
const JOINS = 5000;
/** How long a check waits for a ping that was lost with its stream. */
const TIMEOUT_SECONDS = 5;
/** The moments at which the streams are cut again, in seconds relative to when the check is due. */
const MOMENTS = Array.from({ length: 25 }, (_, index) => -0.2 + index * 0.1);
/** Cut five times in a row, each time during the check of the previous cut. */
const FIVE_TIMES = [0.3, 0.3, 0.3, 0.3];

const SMACKS = [
  ['with stream management', true],
  ['without', false],
] as const;
const CASES = [
  ['all kept', () => false],
  ['every second lost', (index: number) => index % 2 === 0],
] as const;

const [WRONG, MISSED, DOUBLE] = ['wrong notices', 'missed', 'doubled'];

export async function benchFlap(progress: Progress): Promise<Findings> {
  const found = new Collection();
  for (const [management, isManaged] of SMACKS) {
    progress(`flapping link, ${management}: joining`);
    const scale = await Scale.open({ joins: JOINS, timeout: TIMEOUT_SECONDS, isManaged });
    const play = async (name: string, isLost: (index: number) => boolean, again: readonly number[]): Promise<void> => {
      await scale.enter();
      const { wrong, missed, double, pinged, superseded } = await scale.flap(isLost, again);
      progress(`${name}: ${wrong} wrong, ${missed} missed, ${double} doubled`);
      found.add(name, WRONG, '', wrong);
      found.add(name, MISSED, '', missed);
      found.add(name, DOUBLE, '', double);
      found.add(name, 'pings', '', pinged);
      found.add(name, 'checks superseded', '', superseded);
    };
    try {
      for (const [what, isLost] of CASES) {
        for (const [index, moment] of MOMENTS.entries()) {
          progress(`flapping link, ${management}, ${what}: cut again, ${index + 1} of ${MOMENTS.length}`);
          await play(once(what, management), isLost, [moment]);
        }
        progress(`flapping link, ${management}, ${what}: cut five times`);
        await play(fiveTimes(what, management), isLost, FIVE_TIMES);
      }
    } finally {
      await scale.close();
    }
  }
  const wrong = (name: (what: string, management: string) => string): readonly number[] =>
    SMACKS.flatMap(([management]) =>
      CASES.flatMap(([what]) =>
        [WRONG, MISSED, DOUBLE].flatMap((quantity) => found.get(name(what, management), quantity)),
      ),
    );
  return {
    budgets: {
      'wrong notices, 5,000 joins, cut again at 25 moments': wrong(once),
      'wrong notices, 5,000 joins, cut five times': wrong(fiveTimes),
    },
    samples: found.all(),
    growth: [],
  };
}

const once = (what: string, management: string): string =>
  `${JOINS.toLocaleString('en')} joins, ${what}, ${management}: cut again`;
const fiveTimes = (what: string, management: string): string =>
  `${JOINS.toLocaleString('en')} joins, ${what}, ${management}: cut five times`;
