import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cp, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { synthesize } from '../../local/assembly.ts';
import { billOfMaterials } from '../bill-of-materials.ts';
import { type Package, packagesOf, productionPackages } from '../packages.ts';
import { bundleProgram } from './bundles.ts';
import { licenceTexts } from './licences.ts';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const COMMAND_TIMEOUT_MS = 60_000;
/** Those for which classic-level has native code, and whose Debian packages of Prosody the tests know. */
const PLATFORMS = ['linux-x64', 'linux-arm64'];
/** Where the functions find the XMPP server is an option at run time (local/runtime.ts), so any URL will do. */
const SERVER_API = 'http://127.0.0.1:5280/ping_muc';

/**
 * Makes a release for one machine: a folder that needs only Node, and the same folder as an archive. The same sources
 * and packages give the same archive.
 *
 * @param out the folder for both
 * @param assembly the output of `cdk synth`; undefined: it is synthesized
 * @returns the path of the archive
 */
export async function buildRelease(out: string, assembly?: string): Promise<string> {
  const manifest = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as Manifest;
  const name = `${manifest.name}-${manifest.version}`;
  const folder = join(out, name);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });

  const sources = await bundleProgram(join(folder, 'app'));
  await copy('scripts/node-version.cjs', join(folder, 'app/node-version.cjs'));
  for (const platform of PLATFORMS)
    await copy(`node_modules/classic-level/prebuilds/${platform}`, join(folder, 'app/prebuilds', platform));
  if (assembly === undefined) await synthesizeInto(join(folder, 'cdk.out'));
  else await copyAssembly(assembly, join(folder, 'cdk.out'));
  for (const server of ['prosody', 'ejabberd'])
    await copy(`${server}/mod_ping_muc_webhook`, join(folder, server, 'mod_ping_muc_webhook'));
  await copy('release', folder);
  for (const page of ['LICENSE', 'CHANGELOG.md']) await copy(page, join(folder, page));
  await writeFile(join(folder, 'package.json'), releaseManifest(manifest));
  const packages = contents(sources);
  await writeFile(join(folder, 'THIRD-PARTY-LICENSES.txt'), licenceTexts(packages));
  await writeFile(join(folder, 'sbom.json'), billOfMaterials(packages));
  return pack(out, name);
}

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly description: string;
  readonly license: string;
  readonly homepage: string;
}

const copy = (from: string, to: string): Promise<void> => cp(join(ROOT, from), to, { recursive: true });

async function synthesizeInto(folder: string): Promise<void> {
  const temporary = await mkdtemp(join(tmpdir(), 'ping-muc-release-'));
  try {
    await synthesize(temporary, { serverApiUrl: SERVER_API });
    await copyAssembly(temporary, folder);
  } finally {
    await rm(temporary, { recursive: true });
  }
}

/** Copies what local/assembly.ts reads. The rest is for a deployment, and names folders of the machine that made it. */
async function copyAssembly(from: string, to: string): Promise<void> {
  const names = (await readdir(from)).filter((name) => name.endsWith('.template.json') || name.startsWith('asset.'));
  for (const name of names) await cp(join(from, name), join(to, name), { recursive: true });
}

/** With its `bin`, `npx --package <archive> ping-muc start` runs it, too. */
function releaseManifest({ name, version, description, license, homepage }: Manifest): string {
  const [os, cpu] = [['linux'], ['x64', 'arm64']];
  const engines = { node: '>=22.18' };
  const bin = { 'ping-muc': 'ping-muc' };
  return `${JSON.stringify({ name, version, description, license, homepage, private: true, bin, engines, os, cpu }, null, 2)}\n`;
}

/** What a release contains: what is bundled into its program, and what may be bundled into the functions. */
function contents(sources: readonly string[]): readonly Package[] {
  const packages = new Map([...packagesOf(sources), ...productionPackages()].map((locked) => [locked.path, locked]));
  return [...packages.values()].sort((one, other) => (one.path < other.path ? -1 : 1));
}

/** Makes the archive, with the time of the last commit, and its checksum beside it. */
async function pack(out: string, name: string): Promise<string> {
  const { stdout: time } = await run('git', ['log', '-1', '--format=%ct'], { cwd: ROOT, timeout: COMMAND_TIMEOUT_MS });
  const archive = `${name}.tgz`;
  const same = ['--sort=name', `--mtime=@${time.trim()}`, '--owner=0', '--group=0', '--numeric-owner', '--format=gnu'];
  const options = { cwd: out, timeout: COMMAND_TIMEOUT_MS };
  await run('tar', [...same, '--mode=u=rwX,go=rX', '--use-compress-program=gzip -n9', '-cf', archive, name], options);
  const digest = createHash('sha256')
    .update(await readFile(join(out, archive)))
    .digest('hex');
  await writeFile(join(out, `${archive}.sha256`), `${digest}  ${archive}\n`);
  return join(out, archive);
}
