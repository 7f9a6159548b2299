import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

/** Slow mirrors take minutes for package lists and packages. */
const TIMEOUT_MS = 600_000;
/** Another command may install packages at the same time: apt-get waits for it, for so many seconds. */
const WAIT_FOR_LOCK = ['-o', 'DPkg::Lock::Timeout=300'];

/** Services that would listen on all addresses, and occupy the ports of the test servers, by the package. */
const SERVICES: Readonly<Record<string, readonly string[]>> = {
  prosody: ['prosody.service'],
  ejabberd: ['ejabberd.service', 'epmd.socket', 'epmd.service'],
};

/** To compile the module for ejabberd, to test it, and to look for errors of types. */
export const MODULE_PACKAGES = ['ejabberd', 'erlang-dev', 'erlang-eunit', 'erlang-dialyzer'] as const;

/** Makes sure that an XMPP server is installed; its service does not run. */
export function ensureServer(name: 'prosody' | 'ejabberd'): void {
  if (name === 'prosody') ensurePackage('prosody', 'prosody');
  else ensurePackages(['ejabberd', 'openssl']);
}

/**
 * Makes sure that a command is available. If it is missing, prints that, and installs its Debian package. Without the
 * permission to do so, prints what to run, and ends the process.
 */
export function ensurePackage(command: string, debianPackage: string): void {
  ensure(command, [debianPackage], () => succeeds('sh', '-c', `command -v ${command}`));
}

/** Makes sure in the same way that Debian packages are installed. */
export function ensurePackages(packages: readonly string[]): void {
  const isInstalled = (name: string): boolean => succeeds('dpkg', '--status', name);
  const missing = packages.filter((name) => !isInstalled(name));
  if (missing.length > 0) ensure(missing.join(', '), missing, () => missing.every(isInstalled));
}

/** The upstream version of an installed Debian package. */
export function debianVersion(name: string): string {
  const { stdout } = spawnSync('dpkg-query', ['--show', '--showformat', '${Version}', name], { encoding: 'utf8' });
  return stdout.replace(/-[^-]*$/, '');
}

/** @param what the name of what may be missing, for messages */
function ensure(what: string, packages: readonly string[], isThere: () => boolean): void {
  if (isThere()) return;
  const names = packages.join(' ');
  const isRoot = process.getuid?.() === 0;
  const sudo = isRoot ? [] : ['sudo', '-n'];
  const install = [...sudo, 'apt-get', ...WAIT_FOR_LOCK, 'install', '-y', '--no-install-recommends', ...packages];
  if (!succeeds('sh', '-c', 'command -v apt-get') || !(isRoot || run(['sudo', '-n', 'true']) === 0)) {
    process.stderr.write(`Install ${what}, and run this command again:\n\n  sudo apt-get install ${names}\n`);
    process.exit(1);
  }
  const kind = packages.length === 1 ? 'Debian package' : 'Debian packages';
  const services = packages.flatMap((name) => SERVICES[name] ?? []);
  const service = services.length > 0 ? ', with the service disabled' : '';
  process.stderr.write(`Installing the ${kind} ${names}${service}, because ${what} is missing\n`);
  const hasServices = services.length > 0 && existsSync('/run/systemd/system');
  const systemctl = (...words: readonly string[]): void => {
    if (hasServices) run([...sudo, 'systemctl', ...words, ...services]);
  };
  systemctl('mask', '--runtime'); // so that it is not started
  if (run(install) !== 0) {
    run([...sudo, 'apt-get', 'update']); // the package lists may be outdated or empty
    run(install, 'inherit');
  }
  systemctl('unmask', '--runtime');
  systemctl('disable');
  if (!isThere()) {
    process.stderr.write(`${names} could not be installed. Try: sudo apt-get install ${names}\n`);
    process.exit(1);
  }
}

function succeeds(command: string, ...args: readonly string[]): boolean {
  return spawnSync(command, args).status === 0;
}

function run([command = '', ...args]: readonly string[], output: 'ignore' | 'inherit' = 'ignore'): number | null {
  // without systemd, no service is started in runlevel 1 (invoke-rc.d)
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  return spawnSync(command, args, { stdio: ['ignore', output, output], env, timeout: TIMEOUT_MS }).status;
}
