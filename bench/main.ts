import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { synthesize } from '../local/assembly.ts';
import { ensurePackage } from '../test/debian.ts';
import { benchCheck } from './check.ts';
import { benchColdStart } from './cold-start.ts';
import { benchComfort } from './comfort.ts';
import { benchCost } from './counts.ts';
import { BUDGETS, type Budget, type Findings, type Progress, type Sample, type Verdict, judge, median } from './measure.ts';
import { picture, slope } from './pictures.ts';
import { benchWebhook } from './webhook.ts';

/** Measures what the design promises, and prints it beside the promises: `npm run bench [-- part …]`. */
const PARTS: Readonly<Record<string, (assembly: string, progress: Progress) => Promise<Findings>>> = {
  cold: benchColdStart,
  webhook: (_assembly, progress) => benchWebhook(progress),
  comfort: (_assembly, progress) => benchComfort(progress),
  cost: benchCost,
  check: (_assembly, progress) => benchCheck(progress),
};
const RESULTS = fileURLToPath(new URL('results/', import.meta.url));

const { positionals } = parseArgs({ allowPositionals: true });
const unknown = positionals.filter((part) => !(part in PARTS));
if (unknown.length > 0) {
  process.stderr.write(`No such part: ${unknown.join(', ')}. There are: ${Object.keys(PARTS).join(', ')}\n`);
  process.exit(1);
}
const parts = positionals.length === 0 ? Object.keys(PARTS) : positionals;

const round = (value: number): number => Number(value.toPrecision(4));
const rounded = (value: number): string => (Number.isInteger(value) ? value.toLocaleString('en') : String(round(value)));
const spread = (least: number, most: number): string => (least === most ? '' : `${rounded(least)} – ${rounded(most)}`);

function budgetRow({ budget, limit, measured, ratio, least, most, isMet }: Verdict): Record<string, string> {
  const bound = limit.most !== undefined ? `≤ ${limit.most}` : `≥ ${limit.least}`;
  return { budget, limit: `${bound} ${limit.unit}`, measured: `${rounded(measured)} ${limit.unit}`, ratio: ratio?.toFixed(2) ?? '', spread: spread(least, most), '': isMet ? 'met' : 'MISSED' };
}

/** A part's table: a row for each thing, a column for each quantity, in each cell the median and the spread. */
function table(samples: readonly Sample[]): Record<string, Record<string, string>> {
  const rows: Record<string, Record<string, string>> = {};
  for (const { what, quantity, unit, values } of samples) {
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const range = least === most ? '' : ` (${spread(least, most)})`;
    rows[what] = { ...rows[what], [quantity]: `${rounded(median(values))} ${unit}${range}`.trim() };
  }
  return rows;
}

const began = Date.now();
const progress: Progress = (step) => {
  const seconds = String(Math.round((Date.now() - began) / 1000)).padStart(5);
  process.stderr.write(process.stderr.isTTY ? `\r\u001b[K${seconds} s  ${step}` : `${seconds} s  ${step}\n`);
};

ensurePackage('prosody', 'prosody');
process.stderr.write(`Measuring ${parts.join(', ')}${positionals.length === 0 ? '. All of it takes about half an hour; leave the machine alone meanwhile' : ''}.\n`);
const assembly = await mkdtemp(join(tmpdir(), 'ping-muc-bench-'));
process.env['PING_MUC_ASSEMBLY'] = assembly;
const findings: Findings[] = [];
try {
  await synthesize(assembly, { serverApiUrl: 'http://127.0.0.1:5280/ping_muc' });
  for (const part of parts) findings.push((await PARTS[part]?.(assembly, progress)) as Findings);
} finally {
  await rm(assembly, { recursive: true, force: true });
}
if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');

const samples = findings.flatMap((found) => found.samples);
const growth = findings.flatMap((found) => found.growth);
const measured = Object.assign({}, ...findings.map(({ budgets }) => budgets)) as Findings['budgets'];
const verdicts = (Object.keys(BUDGETS) as Budget[]).flatMap((budget) => {
  const values = measured[budget];
  return values === undefined || values.length === 0 ? [] : [judge(budget, values)];
});
const machine = {
  processor: cpus()[0]?.model,
  cores: cpus().length,
  node: process.version,
  prosody: /^Prosody ([\d.]+)/m.exec(spawnSync('prosodyctl', ['about'], { encoding: 'utf8', timeout: 30_000 }).stdout)?.[1],
};
await mkdir(RESULTS, { recursive: true });
await writeFile(join(RESULTS, positionals.length === 0 ? 'bench.json' : `bench-${parts.join('-')}.json`), `${JSON.stringify({ machine, minutes: round((Date.now() - began) / 60_000), verdicts, samples, growth }, null, 1)}\n`);
for (const one of growth) await writeFile(join(RESULTS, `${one.title.toLowerCase().replace(/[^a-z]+/g, '-')}.svg`), picture(one));

for (const found of findings) console.table(table(found.samples));
if (growth.length > 0) console.table(growth.flatMap(({ title, lines }) => lines.map(({ name, points }) => ({ 'how it grows': title, line: name, slope: slope(points) }))));
if (verdicts.length > 0) console.table(verdicts.map(budgetRow));
const missed = verdicts.filter(({ isMet }) => !isMet);
process.stdout.write(
  `${missed.length === 0 ? `All ${verdicts.length} budgets measured are met` : `Missed: ${missed.map(({ budget }) => budget).join('; ')}`}. Numbers and pictures: bench/results/\n`,
);
process.exitCode = missed.length === 0 ? 0 : 1;
