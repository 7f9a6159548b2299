import { type ChildProcess, type SpawnOptions, execFile, spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { type Lab, until } from '../lab.ts';

const run = promisify(execFile);

/** Debian's `nobody`: some clients refuse to be run by root, and none should. */
const NOBODY = 65_534;
const isRoot = process.getuid?.() === 0;
/** The prefix for the command of a client. */
export const AS_PERSON: readonly string[] = isRoot
  ? ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--']
  : [];
/** How long a client may take to end cleanly. */
const GOODBYE_MS = 3000;

/** Creates a home directory for a client, with files in it. It is removed when the lab closes. */
export async function makeHome(lab: Lab, files: Readonly<Record<string, string>> = {}): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'ping-muc-home-'));
  lab.keep({ stop: () => rm(home, { recursive: true, force: true, maxRetries: 5 }) });
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(home, path)), { recursive: true });
    await writeFile(join(home, path), content);
  }
  if (isRoot) await run('chown', ['-R', `${NOBODY}:${NOBODY}`, home]);
  return home;
}

/** Variables that keep a client within its home. */
export function within(home: string): NodeJS.ProcessEnv {
  return {
    PATH: '/usr/bin:/bin:/usr/games', // Debian's own Python, for one
    LANG: 'C.UTF-8',
    HOME: home,
    XDG_CONFIG_HOME: join(home, 'config'),
    XDG_DATA_HOME: join(home, 'data'),
    XDG_CACHE_HOME: join(home, 'cache'),
    XDG_RUNTIME_DIR: home,
  };
}

/** Process groups of clients, which must not outlive this process. */
const groups = new Set<number>();
process.once('exit', () => {
  for (const group of groups) signal(group, 'SIGKILL');
});

/** Runs a program as an unprivileged user, in a process group of its own, which ends with the lab. */
export function runAsPerson(lab: Lab, [command = '', ...args]: readonly string[], options: SpawnOptions): ChildProcess {
  const [program = '', ...rest] = [...AS_PERSON, command, ...args];
  const child = spawn(program, rest, { ...options, detached: true });
  child.on('error', (error) => process.stderr.write(`${command} could not be started: ${error.message}\n`));
  if (child.pid !== undefined) endWith(lab, child.pid);
  return child;
}

/** Registers a process group to end with the lab: cleanly, or else with SIGKILL. */
export function endWith(lab: Lab, group: number): void {
  groups.add(group);
  lab.keep({
    stop: async () => {
      signal(group, 'SIGTERM');
      await until('it has ended', () => !signal(group, 0), GOODBYE_MS).catch(() => signal(group, 'SIGKILL'));
      groups.delete(group);
    },
  });
}

/** Sends a signal. Returns whether the process group exists. */
function signal(group: number, name: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(-group, name);
  } catch {
    return false;
  }
}
