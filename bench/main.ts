import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { synthesize } from '../local/assembly.ts';
import { ensureServer } from '../scripts/debian.ts';
import { benchCheck } from './check.ts';
import { benchColdStart } from './cold-start.ts';
import { benchCost } from './counts.ts';
import { benchFlap } from './flap.ts';
import { benchOverhead } from './overhead.ts';
import type { Findings, Progress } from './measure.ts';
import { picture } from './pictures.ts';
import {
  type Results,
  budgetTable,
  fileOf,
  growthTable,
  markdown,
  sampleTable,
  unmeasured,
  verdictsOf,
} from './report.ts';
import { benchReentry } from './reentry.ts';
import { benchServers } from './servers.ts';
import { benchWebhook } from './webhook.ts';

/** Measures what is promised, and prints it next to the budgets: `npm run bench [-- part …]`. */
const PARTS: Readonly<Record<string, (assembly: string, progress: Progress) => Promise<Findings>>> = {
  cold: benchColdStart,
  webhook: (_assembly, progress) => benchWebhook(progress),
  overhead: (_assembly, progress) => benchOverhead(progress),
  cost: benchCost,
  check: (_assembly, progress) => benchCheck(progress),
  servers: (_assembly, progress) => benchServers(progress),
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

for (const name of ['prosody', 'ejabberd'] as const) ensureServer(name);
const duration = positionals.length === 0 ? ' All parts take about an hour.' : '';
process.stderr.write(`Do not use the machine meanwhile. Measuring ${parts.join(', ')}.${duration}\n`);
const assembly = await mkdtemp(join(tmpdir(), 'ping-muc-bench-'));
process.env['PING_MUC_ASSEMBLY'] = assembly;
let results: Results = {};
try {
  await synthesize(assembly, { serverApiUrl: 'http://127.0.0.1:5280/ping_muc' });
  for (const part of parts) {
    const start = Date.now();
    const findings = (await PARTS[part]?.(assembly, progress)) as Findings;
    const day = new Date(start).toISOString().slice(0, 10);
    results = { ...results, [part]: { day, minutes: (Date.now() - start) / 60_000, machine: machine(), ...findings } };
    await store(results);
  }
} finally {
  await rm(assembly, { recursive: true, force: true });
}
if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');

function machine(): Readonly<Record<string, string | number | undefined>> {
  const about = spawnSync('prosodyctl', ['about'], { encoding: 'utf8', timeout: 30_000 }).stdout;
  return {
    processor: cpus()[0]?.model,
    cores: cpus().length,
    node: process.version,
    prosody: /^Prosody ([\d.]+)/m.exec(about)?.[1],
  };
}

/** Replaces the stored results of the parts that were measured. */
async function store(measured: Results): Promise<void> {
  await mkdir(RESULTS, { recursive: true });
  const file = join(RESULTS, 'bench.json');
  const stored = await readFile(file, 'utf8').catch(() => '{}');
  const merged = { ...(JSON.parse(stored) as Results), ...measured };
  const all = Object.fromEntries(Object.keys(PARTS).flatMap((part) => (merged[part] ? [[part, merged[part]]] : [])));
  await writeFile(file, `${JSON.stringify(all, undefined, 1)}\n`);
  await writeFile(join(RESULTS, 'README.md'), markdown(all));
  for (const one of Object.values(all).flatMap(({ growth }) => growth))
    await writeFile(join(RESULTS, fileOf(one)), picture(one));
}

for (const { samples } of Object.values(results)) console.table(sampleTable(samples));
const growth = Object.values(results).flatMap((part) => part.growth);
if (growth.length > 0) console.table(growthTable(growth));
const verdicts = verdictsOf(results);
if (verdicts.length > 0) console.table(budgetTable(verdicts));
const isWhole = positionals.length === 0;
const missed = [
  ...verdicts.filter(({ isMet }) => !isMet).map(({ budget }) => budget),
  ...(isWhole ? unmeasured(verdicts) : []),
];
const summary =
  missed.length === 0
    ? `${isWhole ? 'Every budget is' : `${verdicts.length} budgets were measured, and`} met`
    : `Missed: ${missed.join('; ')}`;
process.stdout.write(`${summary}. Tables and charts: bench/results/\n`);
process.exitCode = missed.length === 0 ? 0 : 1;
