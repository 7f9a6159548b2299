import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

/** Package lists and packages come from mirrors: slow ones take minutes. */
const TIMEOUT_MS = 600_000;

/**
 * Makes sure that a command is there: where it is missing, installs its Debian package, having said so. Where it may not,
 * says what to run, and ends the process.
 */
export function ensurePackage(command: string, debianPackage: string): void {
  if (exists(command)) return;
  const isRoot = process.getuid?.() === 0;
  const sudo = isRoot ? [] : ['sudo', '-n'];
  const install = [...sudo, 'apt-get', 'install', '-y', '--no-install-recommends', debianPackage];
  if (!exists('apt-get') || !(isRoot || run(['sudo', '-n', 'true']) === 0)) {
    process.stderr.write(`${command} is missing. Install it, and run this again:\n\n  sudo apt-get install ${debianPackage}\n`);
    process.exit(1);
  }
  process.stderr.write(`${command} is missing: installing the Debian package ${debianPackage}${debianPackage === 'prosody' ? ', with its service switched off' : ''}\n`);
  if (run(install) !== 0) {
    run([...sudo, 'apt-get', 'update']); // the lists may be old, or empty
    run(install, 'inherit');
  }
  // a service that listens on every address would take the ports of the private ones
  if (debianPackage === 'prosody' && existsSync('/run/systemd/system')) run([...sudo, 'systemctl', 'disable', '--now', 'prosody']);
  if (!exists(command)) {
    process.stderr.write(`The package ${debianPackage} could not be installed. Try: sudo apt-get install ${debianPackage}\n`);
    process.exit(1);
  }
}

function exists(command: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${command}`]).status === 0;
}

function run([command = '', ...args]: readonly string[], output: 'ignore' | 'inherit' = 'ignore'): number | null {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  return spawnSync(command, args, { stdio: ['ignore', output, output], env, timeout: TIMEOUT_MS }).status;
}
