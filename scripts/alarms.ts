import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Drilled, drill, problems } from '../lab/alarm-drill.ts';
import { type CleanDay, LARGE_DAY, SMALL_DAY, cleanDay } from '../lab/drill/clean-day.ts';
import { FAULTS } from '../lab/drill/faults.ts';
import { alarmsPage } from '../lab/drill/page.ts';
import { readSynthesized } from '../lab/drill/stack.ts';
import { synthesize } from '../local/assembly.ts';

/** `npm run test:alarms`: raises each alarm by a fault, plays clean days, and writes docs/alarms.md. Ten minutes. */
const PAGE = fileURLToPath(new URL('../docs/alarms.md', import.meta.url));
const directory = await mkdtemp(join(tmpdir(), 'ping-muc-alarms-'));
const log = (text: string): void => {
  process.stderr.write(`${String(Math.round(performance.now() / 1000)).padStart(5)} s  ${text}\n`);
};
try {
  await synthesize(directory, { serverApiUrl: 'http://127.0.0.1:5280/ping_muc' });
  const synthesized = await readSynthesized(directory);
  const drilled: Drilled[] = [];
  for (const fault of FAULTS) {
    log(`${fault.alarm}: ${fault.fault}`);
    drilled.push(await drill(synthesized, fault));
  }
  const days: CleanDay[] = [];
  for (const day of [SMALL_DAY, LARGE_DAY])
    days.push(
      await cleanDay(synthesized, day, (hour) => log(`A clean day with ${day.joins} joins: hour ${hour} of 24`)),
    );
  await writeFile(PAGE, await alarmsPage(PAGE, drilled, synthesized, days));
  const wrong = problems(synthesized, drilled, days);
  for (const problem of wrong) log(problem);
  console.table(
    drilled.map(({ alarm, fault, rangAfter, clearedAfter }) => ({ alarm, fault, rangAfter, clearedAfter })),
  );
  process.stdout.write(wrong.length === 0 ? 'All alarms ring, and no clean day raises any.\n' : 'See above.\n');
  process.exitCode = wrong.length === 0 ? 0 : 1;
} finally {
  await rm(directory, { recursive: true, force: true });
}
