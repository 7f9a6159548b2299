import { readdir, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildRelease } from './release/build.ts';

/** Makes the release for one machine in dist/: `npm run package`. */
const archive = await buildRelease(fileURLToPath(new URL('../dist', import.meta.url)));
const folder = archive.replace(/\.tgz$/, '');
const entries = await readdir(folder, { recursive: true, withFileTypes: true });
const files = await Promise.all(
  entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => stat(join(parentPath, name))),
);
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
const unpacked = files.reduce((sum, { size }) => sum + size, 0);
process.stdout.write(
  `${relative('', archive)}: ${megabytes((await stat(archive)).size)}, unpacked ${megabytes(unpacked)}\n`,
);
