import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from '../lab.ts';
import { ROOT } from './rehearsal.ts';

const COMMAND_TIMEOUT_MS = 300_000;

/** A release that is tagged, in a folder of its own. */
export interface Release {
  readonly tag: string;
  readonly tree: string;
}

/**
 * Unpacks the newest release that is tagged before this commit, with its packages.
 * @returns undefined if none is tagged, or if this is no clone with its tags
 */
export function unpackLastRelease(lab: Lab): Release | undefined {
  const words = ['describe', '--tags', '--abbrev=0', '--match', 'v[0-9]*', 'HEAD^'];
  const { status, stdout } = spawnSync('git', words, { cwd: ROOT, encoding: 'utf8', timeout: COMMAND_TIMEOUT_MS });
  if (status !== 0) return undefined;
  const tag = stdout.trim();
  const tree = join(lab.directory, tag);
  mkdirSync(tree);
  const run = (command: string, cwd: string): unknown =>
    execFileSync('sh', ['-c', command], { cwd, stdio: 'ignore', timeout: COMMAND_TIMEOUT_MS });
  run(`git archive ${tag} | tar -x -C "${tree}"`, ROOT);
  if (packagesOf(tree) === packagesOf(ROOT)) symlinkSync(join(ROOT, 'node_modules'), join(tree, 'node_modules'));
  else run('npm ci', tree);
  return { tag, tree };
}

/** The lock file without the version of the project itself. */
function packagesOf(folder: string): string {
  const { packages } = JSON.parse(readFileSync(join(folder, 'package-lock.json'), 'utf8')) as {
    readonly packages: Readonly<Record<string, object>>;
  };
  return JSON.stringify({ ...packages, '': { ...packages[''], version: '' } });
}
