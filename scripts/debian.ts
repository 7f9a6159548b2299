import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

/** Package lists and packages come from mirrors: slow ones take minutes. */
const TIMEOUT_MS = 600_000;

/**
 * Makes sure that a command is there: where it is missing, installs its Debian package, having said so. Where it may not,
 * says what to run, and ends the process.
 */
export function ensurePackage(command: string, debianPackage: string): void {
  ensure(command, [debianPackage], () => succeeds('sh', '-c', `command -v ${command}`));
}

/** Makes sure, likewise, that Debian packages are installed, whatever they bring. */
export function ensurePackages(packages: readonly string[]): void {
  const isInstalled = (name: string): boolean => succeeds('dpkg', '--status', name);
  const missing = packages.filter((name) => !isInstalled(name));
  if (missing.length > 0) ensure(missing.join(', '), missing, () => missing.every(isInstalled));
}

/** The version of an installed Debian package, as its authors count. */
export function debianVersion(name: string): string {
  const { stdout } = spawnSync('dpkg-query', ['--show', '--showformat', '${Version}', name], { encoding: 'utf8' });
  return stdout.replace(/-[^-]*$/, '');
}

/** @param what is missing, in words */
function ensure(what: string, packages: readonly string[], isThere: () => boolean): void {
  if (isThere()) return;
  const names = packages.join(' ');
  const isRoot = process.getuid?.() === 0;
  const sudo = isRoot ? [] : ['sudo', '-n'];
  const install = [...sudo, 'apt-get', 'install', '-y', '--no-install-recommends', ...packages];
  if (!succeeds('sh', '-c', 'command -v apt-get') || !(isRoot || run(['sudo', '-n', 'true']) === 0)) {
    process.stderr.write(`${what}: missing. Install it, and run this again:\n\n  sudo apt-get install ${names}\n`);
    process.exit(1);
  }
  const off = packages.includes('prosody') ? ', with its service switched off' : '';
  process.stderr.write(
    `${what}: missing; ${packages.length === 1 ? 'the Debian package' : 'the Debian packages'} ${names} will be installed${off}\n`,
  );
  if (run(install) !== 0) {
    run([...sudo, 'apt-get', 'update']); // the lists may be old, or empty
    run(install, 'inherit');
  }
  // a service that listens on every address would take the ports of the private ones
  if (packages.includes('prosody') && existsSync('/run/systemd/system'))
    run([...sudo, 'systemctl', 'disable', '--now', 'prosody']);
  if (!isThere()) {
    process.stderr.write(`${names} could not be installed. Try: sudo apt-get install ${names}\n`);
    process.exit(1);
  }
}

function succeeds(command: string, ...args: readonly string[]): boolean {
  return spawnSync(command, args).status === 0;
}

function run([command = '', ...args]: readonly string[], output: 'ignore' | 'inherit' = 'ignore'): number | null {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  return spawnSync(command, args, { stdio: ['ignore', output, output], env, timeout: TIMEOUT_MS }).status;
}
