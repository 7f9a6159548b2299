import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Outcomes } from '../../lab/population.ts';
import { Scale } from '../../lab/scale.ts';

/** Rule 10 (docs/rules.md) with 200 joins in rooms of 20. `npm run bench -- reentry` does the same with 5,000. */
const [JOINS, PER_ROOM] = [200, 20];
const ALL = (): boolean => true;
/** Of eight, two are kept, one leaves, one was notified before, and four are lost. */
const KINDS = ['lost', 'kept', 'lost', 'leaves', 'lost', 'notified before', 'lost', 'kept'];
const is =
  (kind: string) =>
  (index: number): boolean =>
    KINDS[index % KINDS.length] === kind;

let scale: Scale;
beforeAll(async () => {
  scale = await Scale.open({ joins: JOINS, perRoom: PER_ROOM, timeout: 5, settings: { ping_muc_reenter: true } });
  await scale.enter();
});
afterAll(() => scale.close());

const right = { unresolved: 0, wrong: 0, twice: 0, lists: 0, examples: [] };

it(
  'all are lost: each is back exactly once, as its room and its client show, with the right list of occupants',
  { timeout: 60_000 },
  async () => {
    const { totals } = await scale.lose(ALL);
    expect(totals).toMatchObject({ pinged: JOINS, left: JOINS, reentered: JOINS, notified: 0 });
    expect(await scale.outcomes()).toEqual({ ...right, back: JOINS, notified: 0 } satisfies Outcomes);
  },
);

it(
  'half are lost, and back: no user enters who had left, was notified before, or is in',
  { timeout: 60_000 },
  async () => {
    await scale.set({ ping_muc_reenter: false });
    expect((await scale.lose(is('notified before'))).notices).toBe(JOINS / 8);
    await scale.population.leave(is('leaves'));
    await scale.set({ ping_muc_reenter: true });
    await scale.lose(is('lost'));
    expect(await scale.outcomes()).toEqual({ ...right, back: JOINS / 2, notified: 0 } satisfies Outcomes);
  },
);

it(
  'the link breaks again during the re-entries: each user is back, or notified once',
  { timeout: 60_000 },
  async () => {
    await scale.enter();
    await scale.flap(ALL, [0.4]);
    const { back, notified, wrong, unresolved, examples } = await scale.outcomes();
    expect({ all: back + notified, wrong, unresolved, examples }).toEqual({
      all: JOINS,
      wrong: 0,
      unresolved: 0,
      examples: [],
    });
  },
);
