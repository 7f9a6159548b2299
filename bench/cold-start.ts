import { spawnSync } from 'node:child_process';
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { ENV } from '../functions/names.ts';
import { readAssembly } from '../local/assembly.ts';
import { type Findings, type Progress, median } from './measure.ts';

/** What a function costs before its first event: the size of its code, and the initialisation of its module. */
const RUNS = 20;
const [BARE, LIMIT] = ['Node, with nothing to import', '@aws-sdk/client-dynamodb alone (the limit)'];
const [INIT, CODE] = ['initialisation beyond bare Node', 'code'];

/** Milliseconds from the start of a Node process that imports a file to its end. */
function start(file: string): number {
  const env = {
    PATH: process.env['PATH'],
    AWS_REGION: 'us-east-1',
    ...Object.fromEntries(Object.values(ENV).map((name) => [name, 'bench'])),
  };
  const began = performance.now();
  const { status, stderr } = spawnSync(process.execPath, [file], {
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
    encoding: 'utf8',
    timeout: 30_000,
  });
  if (status !== 0) throw new Error(`${file} could not be imported: ${stderr}`);
  return performance.now() - began;
}

/** @param assembly the output of cdk synth */
export async function benchColdStart(assembly: string, progress: Progress): Promise<Findings> {
  const directory = await mkdtemp(join(tmpdir(), 'ping-muc-bench-'));
  try {
    const bare = join(directory, 'bare.mjs');
    await writeFile(bare, '');
    const limit = join(directory, 'limit.mjs');
    await build({
      stdin: {
        contents: "import { DynamoDBClient } from '@aws-sdk/client-dynamodb'; new DynamoDBClient({});",
        resolveDir: fileURLToPath(new URL('.', import.meta.url)),
      },
      outfile: limit,
      bundle: true,
      platform: 'node',
      target: 'node24',
      format: 'esm',
      minify: true,
      mainFields: ['module', 'main'],
      logLevel: 'error',
      banner: { js: "import{createRequire}from'node:module';const require=createRequire(import.meta.url);" },
    });
    const { functions } = await readAssembly(assembly);
    const bundles = functions.map(({ name, file }) => ({
      name: name.startsWith('Check') ? 'check function' : 'webhook function',
      file,
    }));
    const all = [{ name: BARE, file: bare }, { name: LIMIT, file: limit }, ...bundles];
    const times = new Map(all.map(({ name }): [string, number[]] => [name, []]));
    for (const { file } of all) start(file); // the file is read once before
    for (let run = 1; run <= RUNS; run += 1) {
      progress(`cold start, ${run} of ${RUNS}`);
      for (const { name, file } of all) times.get(name)?.push(start(file));
    }
    const node = median(times.get(BARE) ?? []);
    const beyond = (name: string): readonly number[] => (times.get(name) ?? []).map((time) => time - node);
    const sizes = await Promise.all(
      bundles.map(async ({ name, file }) => ({ name, bytes: await folderBytes(join(file, '..')) })),
    );
    const slowest = bundles.map(({ name }) => beyond(name)).sort((a, b) => median(b) - median(a))[0] ?? [];
    return {
      budgets: {
        'code of a function, minified': sizes.map(({ bytes }) => bytes / 1000),
        ...(process.version.startsWith('v24.') ? { 'module initialisation, Node 24': slowest } : {}),
      },
      samples: [
        { what: BARE, quantity: INIT, unit: 'ms', values: (times.get(BARE) ?? []).map((time) => time - node) },
        { what: LIMIT, quantity: INIT, unit: 'ms', values: beyond(LIMIT) },
        { what: LIMIT, quantity: CODE, unit: 'kB', values: [(await stat(limit)).size / 1000] },
        ...bundles.map(({ name }) => ({ what: name, quantity: INIT, unit: 'ms', values: beyond(name) })),
        ...sizes.map(({ name, bytes }) => ({ what: name, quantity: CODE, unit: 'kB', values: [bytes / 1000] })),
      ],
      growth: [],
    };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** All that is deployed of a function. */
async function folderBytes(folder: string): Promise<number> {
  const files = await readdir(folder, { withFileTypes: true });
  const sizes = await Promise.all(
    files.filter((file) => file.isFile()).map(async ({ name }) => (await stat(join(folder, name))).size),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}
