import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Plugin, build } from 'esbuild';
import { bundle as bundlePages } from '../../local/console/bundle.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** dynalite computes the names of the files that it requires. esbuild bundles such files if their extension is named. */
const dynaliteParts: Plugin = {
  name: 'dynalite-parts',
  setup(bundler) {
    bundler.onLoad({ filter: /\/dynalite\/index\.js$/ }, async ({ path }) => {
      const text = await readFile(path, 'utf8');
      const contents = text.replaceAll(/require\(('\.\/\w+\/' \+ \w+)\)/g, "require($1 + '.js')");
      if (contents === text) throw new Error(`${path} requires no computed names any more: remove this plugin`);
      return { contents };
    });
  },
};

/**
 * Bundles what a release runs into `folder`: the command, the functions' thread and the console's pages. The text is
 * not minified, so that names and lines in errors help.
 *
 * @returns the paths of the sources from the project's root
 */
export async function bundleProgram(folder: string): Promise<readonly string[]> {
  const { metafile } = await build({
    absWorkingDir: ROOT,
    preserveSymlinks: true, // the names of the parts depend on the paths of their sources
    entryPoints: ['scripts/ping-muc.ts', 'local/function-worker.ts'],
    bundle: true,
    splitting: true,
    platform: 'node',
    format: 'esm',
    target: 'node22.18',
    mainFields: ['module', 'main'],
    plugins: [dynaliteParts],
    external: ['esbuild'], // bundles the console's pages, which a release contains (local/installation.ts)
    // CommonJS packages need these, which an ES module does not have; __dirname is where prebuilds/ is
    banner: {
      js: "import{createRequire}from'node:module';const require=createRequire(import.meta.url),__filename=import.meta.filename,__dirname=import.meta.dirname;",
    },
    entryNames: '[name]',
    chunkNames: '[name]-[hash]',
    outExtension: { '.js': '.mjs' },
    outdir: folder,
    legalComments: 'none', // THIRD-PARTY-LICENSES.txt has them
    metafile: true,
    logLevel: 'error',
  });
  const { files, sources } = await bundlePages();
  await mkdir(join(folder, 'pages'));
  for (const [name, body] of files) await writeFile(join(folder, 'pages', name), body);
  return [...Object.keys(metafile.inputs), ...sources];
}
