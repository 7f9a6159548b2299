import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { synthesize } from '../local/assembly.ts';
import { ensurePackage, ensureServer } from './debian.ts';
import { type Extent, FAULTS, type FaultResult, LONG_EXTENT, SHORT_EXTENT, TestBedPool } from '../lab/faults.ts';

/**
 * Runs every fault on real servers for minutes, and prints the notices of each:
 * `npm run test:faults [-- --short] [-- --seed n] [-- part of a name …]`.
 */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    short: { type: 'boolean', default: false },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    stages: { type: 'string', default: '4' },
  },
});
const extent: Extent = { ...(values.short ? SHORT_EXTENT : LONG_EXTENT), seed: Number(values.seed) };
const names = Object.keys(FAULTS).filter(
  (name) => positionals.length === 0 || positionals.some((part) => name.includes(part)),
);

const log = (text: string): void => void process.stderr.write(`${text}\n`);
ensureServer('prosody');
ensurePackage('faketime', 'faketime');
const duration = values.short ? '' : ' All of them take about a quarter of an hour.';
log(`Running ${names.length} faults, ${values.stages} at a time, seed ${extent.seed}.${duration}`);
const began = Date.now();
const elapsed = (): string => `${String(Math.round((Date.now() - began) / 1000)).padStart(5)} s`;
const assembly = await mkdtemp(join(tmpdir(), 'ping-muc-faults-'));
process.env['PING_MUC_ASSEMBLY'] = assembly;
const pool = new TestBedPool(Number(values.stages));
let results: readonly (FaultResult | undefined)[];
try {
  await synthesize(assembly, { serverApiUrl: 'http://127.0.0.1:5280/ping_muc' });
  results = await Promise.all(
    names.map((name) =>
      pool.run(name, extent).then(
        (result) => {
          log(`${elapsed()}  ${name}`);
          return result;
        },
        (error: unknown) => {
          log(`${elapsed()}  ${name}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
          return undefined;
        },
      ),
    ),
  );
} finally {
  await pool.close();
  await rm(assembly, { recursive: true, force: true });
}
console.table(
  names.map((fault, index) => {
    const { events, expected, lost, doubled, wrong, seconds } = results[index] ?? {};
    return {
      fault,
      events,
      expected,
      lost,
      duplicate: doubled,
      wrong,
      'seconds to recover': seconds?.toFixed(1) ?? 'did not finish',
    };
  }),
);
const isGood = results.every(
  (result) => result !== undefined && result.lost === 0 && result.doubled === 0 && result.wrong === 0,
);
process.stdout.write(
  isGood
    ? 'No notice was lost, duplicate or wrong.\n'
    : 'A notice was lost, duplicate or wrong, or a fault did not finish; see above.\n',
);
process.exitCode = isGood ? 0 : 1;
