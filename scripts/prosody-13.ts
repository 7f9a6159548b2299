import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { ensurePackage } from './debian.ts';

/**
 * Plays the end-to-end tests on Prosody 13.0, from Debian 13's packages in a tree of their own, whatever Debian this is:
 * `npm run test:prosody-13 [-- <vitest's arguments>]`, as root.
 *
 * All of it is in memory, and what runs is in namespaces of its own for mounts and processes: when this process ends, even
 * killed, the kernel ends what it started and takes the mounts away, and nothing is left on the disk.
 */
const CHECKOUT = resolve(import.meta.dirname, '..');
/** Where the tree is mounted: an empty folder of every Debian. */
const AREA = '/media';
const TREE = join(AREA, 'tree');
/** For what the tests write: servers in the tree find it under the same name. */
const TEMPORARY = join(AREA, 'tmp');
/** The tree takes 400 MB, a run's files a few more. */
const AREA_SIZE = '1500m';
/** Mirrors that are slow take minutes. */
const STEP_MS = 600_000;
/** The tests themselves take 4 minutes on two cores. */
const TESTS_MS = 900_000;
const INSIDE = '--inside';

const [first, ...rest] = process.argv.slice(2);
process.exitCode = first === INSIDE ? inside(rest) : outside(process.argv.slice(2));

function outside(args: readonly string[]): number {
  if (process.getuid?.() !== 0) {
    process.stderr.write(
      'Prosody 13.0 runs in a tree of another Debian, which needs root. Run: sudo npm run test:prosody-13\n',
    );
    return 1;
  }
  if (`${CHECKOUT}/`.startsWith(`${AREA}/`)) {
    process.stderr.write(`This hides ${AREA} from itself: move the checkout out of it\n`);
    return 1;
  }
  ensurePackage('debootstrap', 'debootstrap');
  const own = ['--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
  const { status } = spawnSync('unshare', [...own, process.execPath, import.meta.filename, INSIDE, ...args], {
    stdio: 'inherit',
  });
  return status ?? 1;
}

/** In namespaces of its own: makes the tree and plays the tests. */
function inside(args: readonly string[]): number {
  const start = Date.now();
  run('mount', ['-t', 'tmpfs', '-o', `size=${AREA_SIZE},mode=755`, 'tmpfs', AREA]);
  for (const folder of [TREE, TEMPORARY]) mkdirSync(folder);
  run('debootstrap', ['--variant=minbase', 'trixie', TREE]);
  writeFileSync(join(TREE, 'usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n', { mode: 0o755 }); // no service is started
  run('chroot', [TREE, 'apt-get', 'update']);
  run('chroot', [TREE, 'apt-get', 'install', '-y', '--no-install-recommends', 'prosody']);
  // what servers are given the names of: their folders, and the module in the checkout
  for (const path of [TEMPORARY, CHECKOUT]) {
    mkdirSync(join(TREE, path), { recursive: true });
    run('mount', ['--bind', path, join(TREE, path)]);
  }
  const version = run('chroot', [TREE, 'dpkg-query', '--show', '--showformat=${Version}', 'prosody']);
  process.stdout.write(`Prosody ${version}, installed in ${Math.round((Date.now() - start) / 1000)} s\n`);
  if (!version.startsWith('13.0.')) return 1;
  const env = { ...process.env, TMPDIR: TEMPORARY, PROSODY_PREFIX: `chroot ${TREE}` };
  const vitest = join(CHECKOUT, 'node_modules/vitest/vitest.mjs');
  const { status } = spawnSync(process.execPath, [vitest, 'run', '--project', 'e2e*', ...args], {
    cwd: CHECKOUT,
    env,
    stdio: 'inherit',
    timeout: TESTS_MS,
  });
  return status ?? 1;
}

/** Runs a step of the preparation, and returns what it said; where it fails, that is printed, and the run ends. */
function run(command: string, args: readonly string[]): string {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' };
  const { status, stdout, stderr } = spawnSync(command, args, { env, encoding: 'utf8', timeout: STEP_MS });
  if (status === 0) return stdout;
  process.stderr.write(`${stdout}${stderr}\n${command} ${args.join(' ')} failed\n`);
  process.exit(1);
}
