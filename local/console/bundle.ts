import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, stop } from 'esbuild';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const SOURCES = 'local/console/web';

/** The pages, and from what they were made. */
export interface Bundle {
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** Paths from the project's root. */
  readonly sources: readonly string[];
}

/** Bundles the pages: `app.js` and `app.css`, and parts that a page loads when it shows a graph or Markdown. */
export async function bundle(): Promise<Bundle> {
  const { outputFiles, metafile } = await build({
    absWorkingDir: ROOT,
    preserveSymlinks: true, // the names of the parts depend on the paths of their sources
    entryPoints: [`${SOURCES}/app.tsx`, `${SOURCES}/app.css`],
    bundle: true,
    splitting: true,
    format: 'esm',
    target: 'es2022',
    jsx: 'automatic',
    jsxImportSource: 'preact',
    minify: true,
    legalComments: 'none',
    entryNames: '[name]',
    chunkNames: '[name]-[hash]',
    outdir: '/',
    write: false,
    metafile: true,
    logLevel: 'error',
  });
  await stop(); // its process would stay for as long as this one
  const files = await Promise.all(
    ['index.html', 'icon.svg'].map(async (name) => [name, await readFile(`${ROOT}${SOURCES}/${name}`)] as const),
  );
  const bundled = outputFiles.map(({ path, contents }) => [basename(path), contents] as const);
  return { files: new Map([...files, ...bundled]), sources: Object.keys(metafile.inputs) };
}
