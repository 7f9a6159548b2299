import { spawnSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { DIFFERENCES_TABLE, differencesTable } from '../lab/differences.ts';
import { isKind } from '../lab/servers.ts';
import { ensurePackage, ensureServer } from './debian.ts';

/**
 * Runs the end-to-end tests with other servers: `npm run test:servers [-- <pair …> <vitest's arguments>]`. A pair names
 * the users' server and the rooms' server: `ejabberd,prosody`.
 *
 * `--debian-13` runs them with the servers of Debian 13 (scripts/prosody-13.ts). `--differences` writes the table of the
 * tests that are left out (lab/differences.ts) into docs/servers.md, and runs none.
 */
const CHECKOUT = resolve(import.meta.dirname, '..');
const PAGE = join(CHECKOUT, 'docs/servers.md');
/** Without that of all other commands. */
const PAIRS = ['prosody,ejabberd', 'ejabberd,prosody', 'ejabberd,ejabberd'];
/** For one pair. */
const TESTS_MS = 1_800_000;

const words = process.argv.slice(2);
if (words.includes('--differences')) await writeTable();
else if (words.includes('--debian-13')) process.exitCode = inTree(words.filter((word) => word !== '--debian-13'));
else process.exitCode = test(words);

function isPair(word: string): boolean {
  const names = word.split(',');
  return names.length === 2 && names.every(isKind);
}

/** Runs the tests with each pair. Returns the status of the process. */
function test(args: readonly string[]): number {
  const named = args.filter(isPair);
  const others = args.filter((word) => !isPair(word));
  if (process.env['SERVER_PREFIX'] === undefined) {
    ensureServer('prosody');
    ensureServer('ejabberd');
  }
  ensurePackage('faketime', 'faketime');
  const results = (named.length > 0 ? named : PAIRS).map((pair) => {
    const [users, rooms] = pair.split(',');
    process.stdout.write(`\nUsers on ${users}, rooms on ${rooms}\n`);
    const command = [join(CHECKOUT, 'node_modules/vitest/vitest.mjs'), 'run', '--project', 'e2e*', ...others];
    const env = { ...process.env, PING_MUC_SERVERS: pair };
    return {
      pair,
      status: spawnSync(process.execPath, command, { cwd: CHECKOUT, env, stdio: 'inherit', timeout: TESTS_MS }).status,
    };
  });
  for (const { pair, status } of results) process.stdout.write(`${pair}: ${status === 0 ? 'passed' : 'failed'}\n`);
  return results.every(({ status }) => status === 0) ? 0 : 1;
}

function inTree(args: readonly string[]): number {
  const command = [join(CHECKOUT, 'scripts/prosody-13.ts'), '--servers', ...args];
  return spawnSync(process.execPath, command, { stdio: 'inherit' }).status ?? 1;
}

async function writeTable(): Promise<void> {
  const page = await readFile(PAGE, 'utf8');
  await writeFile(PAGE, page.replace(DIFFERENCES_TABLE, `${differencesTable()}\n`));
}
