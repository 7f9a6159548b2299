import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { type Notifying, drill, notifying, problems } from '../../lab/alarm-drill.ts';
import { FAULTS } from '../../lab/drill/faults.ts';
import { type Synthesized, readSynthesized } from '../../lab/drill/stack.ts';

/** Each alarm of the synthesized stack, raised by a fault in virtual time. `npm run test:alarms` plays more. */

const LONG = 180_000; // on a machine with other work; alone, all of them take less than a minute
/**
 * One fault for each alarm, all that raise a condition of an alarm that depends on several, and the one that takes a
 * release of the webhook function back.
 */
const DRILLED = FAULTS.filter(
  ({ alarm, fault }, index) =>
    alarm === 'Check function fails' ||
    fault === 'The webhook function dies' ||
    FAULTS.findIndex((other) => other.alarm === alarm) === index,
);

let synthesized: Synthesized;
let alarms: readonly Notifying[];
beforeAll(async () => {
  synthesized = await readSynthesized(process.env['PING_MUC_ASSEMBLY'] ?? '');
  alarms = notifying(synthesized);
});

describe('each alarm', () => {
  it('is raised by its fault, and is over after it', { timeout: LONG }, async () => {
    const drilled = [];
    for (const fault of DRILLED) drilled.push(await drill(synthesized, fault));
    expect(problems(synthesized, drilled, [])).toEqual([]);
  });

  it('has its rows in docs/alarms.md, with its severity and its faults', () => {
    const page = readFileSync(new URL('../../docs/alarms.md', import.meta.url), 'utf8');
    const rows = [...page.matchAll(/^\| (.*?) +\| (high|low) +\| (.*?) +\| +\d+ +\| +\d+ +\|/gm)].map(
      ([, alarm, severity, fault]) => [alarm, severity, fault],
    );
    const severity = (alarm: string): string | undefined => alarms.find(({ title }) => title === alarm)?.severity;
    expect(rows).toEqual(FAULTS.map(({ alarm, fault }) => [alarm, severity(alarm), fault]));
    expect(new Set(rows.map(([alarm]) => alarm))).toEqual(new Set(alarms.map(({ title }) => title)));
  });
});
