import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ensurePackages } from '../scripts/debian.ts';

/** What is installed, pinned by versions and hashes: a Go module and an npm package. */
const PINNED = fileURLToPath(new URL('lambda', import.meta.url));
const EMULATOR = 'github.com/aws/aws-lambda-runtime-interface-emulator/cmd/aws-lambda-rie';
/** `npm ci` empties it. */
const CACHE = fileURLToPath(new URL('../node_modules/.cache/ping-muc-lambda', import.meta.url));
/** For each of the two. Both take a minute on two cores. */
const INSTALL_TIMEOUT_MS = 600_000;

/** AWS's own parts of Lambda, once they are installed. */
export const LAMBDA_TOOLS = {
  /** The runtime interface emulator: what Lambda is to the process of a function. */
  emulator: join(CACHE, 'aws-lambda-rie'),
  /** The runtime interface client for Node: the process of a function, which loads its bundle. */
  client: join(CACHE, 'node_modules/aws-lambda-ric/index.mjs'),
} as const;

/** Builds both, if they are missing. Runs before all tests. @throws with what to do */
export default async function installLambdaTools(): Promise<void> {
  const mark = join(CACHE, 'complete');
  if (existsSync(mark)) return;
  ensurePackages(['cmake', 'g++', 'make', 'python3', 'xz-utils']);
  await mkdir(CACHE, { recursive: true });
  run(['go', 'build', '-trimpath', '-o', LAMBDA_TOOLS.emulator, EMULATOR], PINNED);
  for (const file of ['package.json', 'package-lock.json']) await copyFile(join(PINNED, file), join(CACHE, file));
  // its native part is built for this Node, whose package has the headers
  const headers = dirname(dirname(process.execPath));
  run(['npm', 'ci', '--ignore-scripts=false', '--no-progress'], CACHE, { npm_config_nodedir: headers });
  await writeFile(mark, '');
}

function run([command = '', ...args]: readonly string[], cwd: string, environment: NodeJS.ProcessEnv = {}): void {
  const { status, stderr, error } = spawnSync(command, args, {
    cwd,
    env: { ...process.env, ...environment },
    encoding: 'utf8',
    timeout: INSTALL_TIMEOUT_MS,
  });
  if (error !== undefined && 'code' in error && error.code === 'ENOENT')
    throw new Error(`${command} is missing: install it, and run this command again (for go: https://go.dev/dl/)`);
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} failed: ${String(error ?? stderr.slice(-2000))}`);
}
