import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { synthesize } from '../local/assembly.ts';
import { ensurePackage } from '../test/debian.ts';
import { playScale } from '../test/lab/scale.ts';

/** Prints what a loss does at size: who was told wrongly, not at all or twice, and how long it took. */
const SIZES = process.argv.slice(2).map(Number);
const CASES = [
  ['all kept', () => false],
  ['all lost', () => true],
  ['half lost', (index: number) => index % 2 === 0],
] as const;

ensurePackage('prosody', 'prosody');
process.stderr.write('Each line is one loss between real servers; 50,000 joins take some minutes to be made.\n');
const assembly = await mkdtemp(join(tmpdir(), 'ping-muc-bench-'));
process.env['PING_MUC_ASSEMBLY'] = assembly;
const rows: Record<string, string | number>[] = [];
try {
  await synthesize(assembly, { serverApiUrl: 'http://127.0.0.1:5280/ping_muc' });
  for (const joins of SIZES.length > 0 ? SIZES : [5000, 50_000]) {
    for (const [name, isLost] of CASES) {
      const result = await playScale(joins, isLost, (step) => process.stderr.write(`\r\u001b[K${joins} joins, ${name}: ${step}`));
      process.stderr.write('\r\u001b[K');
      const { totals: _totals, seconds, ...counts } = result;
      rows.push({ case: name, ...counts, seconds: Number(seconds.toFixed(2)) });
    }
  }
} finally {
  await rm(assembly, { recursive: true, force: true });
}
console.table(rows);
const failed = rows.some(({ wrong, missed, double }) => wrong !== 0 || missed !== 0 || double !== 0);
process.stdout.write(failed ? 'Someone was told wrongly, not at all, or twice.\n' : 'Nobody was told wrongly, nobody was missed, nobody was told twice.\n');
process.exitCode = failed ? 1 : 0;
