import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { synthesize } from '../local/assembly.ts';
import { ensurePackage } from '../scripts/debian.ts';
import { benchCheck } from './check.ts';
import { benchColdStart } from './cold-start.ts';
import { benchCost } from './counts.ts';
import { benchFlap } from './flap.ts';
import { benchOverhead } from './overhead.ts';
import { BUDGETS, type Budget, type Findings, type Progress, judge } from './measure.ts';
import { picture } from './pictures.ts';
import { type Results, budgetTable, fileOf, growthTable, markdown, sampleTable, unmeasured } from './report.ts';
import { benchReentry } from './reentry.ts';
import { benchWebhook } from './webhook.ts';

/** Measures what is promised, and prints it next to the budgets: `npm run bench [-- part …]`. */
const PARTS: Readonly<Record<string, (assembly: string, progress: Progress) => Promise<Findings>>> = {
  cold: benchColdStart,
  webhook: (_assembly, progress) => benchWebhook(progress),
  overhead: (_assembly, progress) => benchOverhead(progress),
  cost: benchCost,
  check: (_assembly, progress) => benchCheck(progress),
  flap: (_assembly, progress) => benchFlap(progress),
  reentry: (_assembly, progress) => benchReentry(progress),
};
const RESULTS = fileURLToPath(new URL('results/', import.meta.url));

const { positionals } = parseArgs({ allowPositionals: true });
const unknown = positionals.filter((part) => !(part in PARTS));
if (unknown.length > 0) {
  process.stderr.write(`No such part: ${unknown.join(', ')}. Use: ${Object.keys(PARTS).join(', ')}\n`);
  process.exit(1);
}
const parts = positionals.length === 0 ? Object.keys(PARTS) : positionals;

const began = Date.now();
const progress: Progress = (step) => {
  const seconds = String(Math.round((Date.now() - began) / 1000)).padStart(5);
  process.stderr.write(process.stderr.isTTY ? `\r\u001b[K${seconds} s  ${step}` : `${seconds} s  ${step}\n`);
};

ensurePackage('prosody', 'prosody');
const duration = positionals.length === 0 ? ' All parts take about an hour.' : '';
process.stderr.write(`Do not use the machine meanwhile. Measuring ${parts.join(', ')}.${duration}\n`);
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

const growth = findings.flatMap((found) => found.growth);
const measured = Object.assign({}, ...findings.map(({ budgets }) => budgets)) as Findings['budgets'];
const verdicts = (Object.keys(BUDGETS) as Budget[]).flatMap((budget) => {
  const values = measured[budget];
  return values === undefined || values.length === 0 ? [] : [judge(budget, values)];
});
const results: Results = {
  machine: {
    processor: cpus()[0]?.model,
    cores: cpus().length,
    node: process.version,
    prosody: /^Prosody ([\d.]+)/m.exec(
      spawnSync('prosodyctl', ['about'], { encoding: 'utf8', timeout: 30_000 }).stdout,
    )?.[1],
  },
  minutes: (Date.now() - began) / 60_000,
  verdicts,
  samples: Object.fromEntries(parts.map((part, index) => [part, findings[index]?.samples ?? []])),
  growth,
};
const isWhole = positionals.length === 0;
if (isWhole) {
  await mkdir(RESULTS, { recursive: true });
  await writeFile(join(RESULTS, 'bench.json'), `${JSON.stringify(results, undefined, 1)}\n`);
  await writeFile(join(RESULTS, 'README.md'), markdown(results));
  for (const one of growth) await writeFile(join(RESULTS, fileOf(one)), picture(one));
}

for (const samples of Object.values(results.samples)) console.table(sampleTable(samples));
if (growth.length > 0) console.table(growthTable(growth));
if (verdicts.length > 0) console.table(budgetTable(verdicts));
const missed = [
  ...verdicts.filter(({ isMet }) => !isMet).map(({ budget }) => budget),
  ...(isWhole ? unmeasured(verdicts) : []),
];
const summary =
  missed.length === 0
    ? `${isWhole ? 'Every budget is' : `${verdicts.length} budgets were measured, and`} met`
    : `Missed: ${missed.join('; ')}`;
process.stdout.write(`${summary}.${isWhole ? ' Tables and charts: bench/results/' : ''}\n`);
process.exitCode = missed.length === 0 ? 0 : 1;
