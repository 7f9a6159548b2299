import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { MODULE_PACKAGES, ensurePackage } from './debian.ts';

/**
 * Runs the end-to-end tests on Prosody 13.0, on any Debian release: `npm run test:prosody-13 [-- <vitest's
 * arguments>]`, as root. It installs Debian 13's packages in a directory tree of their own.
 * `npm run test:prosody-13 -- --clients [client …]` runs the tests with real clients instead (scripts/clients.ts), and
 * `-- --servers [pair …]` those with ejabberd, too (scripts/test-servers.ts). `-- --ejabberd-module` compiles and tests
 * the module for ejabberd (scripts/ejabberd-module.ts).
 *
 * The tree is in memory, in separate namespaces for mounts and processes. When this process ends, even if it is
 * killed, the kernel ends its child processes and removes the mounts, and nothing is left on the disk.
 */
const CHECKOUT = resolve(import.meta.dirname, '..');
/** Where the tree is mounted: an empty folder on every Debian. */
const AREA = '/media';
const TREE = join(AREA, 'tree');
/** For the files of the tests. Servers in the tree see it under the same path. */
const TEMPORARY = join(AREA, 'tmp');
/** The tree takes 400 MB, and the files of a run a few more. */
const AREA_SIZE = '1500m';
/** Slow mirrors take minutes. */
const STEP_MS = 600_000;
/** The tests on Prosody take 4 minutes on two cores; all pairs of servers take half an hour. */
const TESTS_MS = 5_400_000;
const INSIDE = '--inside';
/** Scripts that run instead of all end-to-end tests on Prosody, with the packages that they need beside Prosody. */
const OTHERS: Readonly<Record<string, { readonly script: string; readonly packages: readonly string[] }>> = {
  '--clients': { script: 'clients', packages: [] },
  '--servers': { script: 'test-servers', packages: ['ejabberd'] },
  '--ejabberd-module': { script: 'ejabberd-module', packages: MODULE_PACKAGES },
};

const [first, ...rest] = process.argv.slice(2);
process.exitCode = first === INSIDE ? inside(rest) : outside(process.argv.slice(2));

function outside(args: readonly string[]): number {
  if (process.getuid?.() !== 0) {
    process.stderr.write(
      'Run: sudo npm run test:prosody-13\n' +
        'It needs root, because Prosody 13.0 runs in a directory tree of another Debian.\n',
    );
    return 1;
  }
  if (`${CHECKOUT}/`.startsWith(`${AREA}/`)) {
    process.stderr.write(`Move the checkout out of ${AREA}, which the tests mount over\n`);
    return 1;
  }
  ensurePackage('debootstrap', 'debootstrap');
  const own = ['--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
  const { status } = spawnSync('unshare', [...own, process.execPath, import.meta.filename, INSIDE, ...args], {
    stdio: 'inherit',
  });
  return status ?? 1;
}

/** In the separate namespaces: builds the tree, and runs the tests. */
function inside(args: readonly string[]): number {
  const start = Date.now();
  run('mount', ['-t', 'tmpfs', '-o', `size=${AREA_SIZE},mode=755`, 'tmpfs', AREA]);
  for (const folder of [TREE, TEMPORARY]) mkdirSync(folder);
  run('debootstrap', ['--variant=minbase', 'trixie', TREE]);
  writeFileSync(join(TREE, 'usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n', { mode: 0o755 }); // start no services
  run('chroot', [TREE, 'apt-get', 'update']);
  const [firstArgument = '', ...others] = args;
  const other = OTHERS[firstArgument];
  const packages = ['prosody', ...(other?.packages ?? [])];
  run('chroot', [TREE, 'apt-get', 'install', '-y', '--no-install-recommends', ...packages]);
  // the servers in the tree need their folders, and the module in the checkout
  for (const path of [TEMPORARY, CHECKOUT]) {
    mkdirSync(join(TREE, path), { recursive: true });
    run('mount', ['--bind', path, join(TREE, path)]);
  }
  const format = '--showformat=${Package} ${Version}\\n';
  const versions = run('chroot', [TREE, 'dpkg-query', '--show', format, ...packages])
    .trim()
    .split('\n');
  process.stdout.write(`${versions.join(', ')}: installed in ${Math.round((Date.now() - start) / 1000)} s\n`);
  if (!versions.some((line) => line.startsWith('prosody 13.0.'))) {
    process.stderr.write('These are not the versions that this command is for\n');
    return 1;
  }
  const env = { ...process.env, TMPDIR: TEMPORARY, SERVER_PREFIX: `chroot ${TREE}` };
  const command =
    other === undefined
      ? [join(CHECKOUT, 'node_modules/vitest/vitest.mjs'), 'run', '--project', 'e2e*', ...args]
      : [join(CHECKOUT, `scripts/${other.script}.ts`), ...others];
  return spawnSync(process.execPath, command, { cwd: CHECKOUT, env, stdio: 'inherit', timeout: TESTS_MS }).status ?? 1;
}

/**
 * Runs a step of the preparation, and returns its output. If the step fails, prints the output and ends the process.
 */
function run(command: string, args: readonly string[]): string {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' };
  const { status, stdout, stderr } = spawnSync(command, args, { env, encoding: 'utf8', timeout: STEP_MS });
  if (status === 0) return stdout;
  process.stderr.write(`${stdout}${stderr}\n${command} ${args.join(' ')} failed\n`);
  process.exit(1);
}
