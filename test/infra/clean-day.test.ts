import { expect, it } from 'vitest';
import { problems } from '../../lab/alarm-drill.ts';
import { SMALL_DAY, cleanDay } from '../../lab/drill/clean-day.ts';
import { readSynthesized } from '../../lab/drill/stack.ts';

/** A day on which nothing is wrong, in virtual time. `npm run test:alarms` plays one with 100,000 joins, too. */

const LONG = 180_000; // on a machine with other work; alone, it takes some ten seconds

it('on a clean day, no alarm is raised', { timeout: LONG }, async () => {
  const synthesized = await readSynthesized(process.env['PING_MUC_ASSEMBLY'] ?? '');
  const day = await cleanDay(synthesized, SMALL_DAY);
  expect(problems(synthesized, [], [day]).filter((problem) => problem.includes('clean day'))).toEqual([]);
  expect([...day.counts.keys()]).toEqual(expect.arrayContaining(['Notices', 'ChecksSuperseded', 'ServerUnreachable']));
  expect(day.counts.get('NoticesLate')).toBe(0);
});
