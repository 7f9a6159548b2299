import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { basename, extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, stop } from 'esbuild';

const SOURCES = fileURLToPath(new URL('web', import.meta.url));

/** A file that the console serves. */
export interface Asset {
  readonly type: string;
  readonly body: Buffer;
  readonly etag: string;
}

/**
 * Bundles the pages: `app.js` and `app.css`, and parts that a page loads when it shows a graph or Markdown.
 * @returns the files by name, all in memory: a request cannot name a file of the disk
 */
export async function bundle(): Promise<ReadonlyMap<string, Asset>> {
  const { outputFiles } = await build({
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
    logLevel: 'error',
  });
  await stop(); // its process would stay for as long as this one
  const files = await Promise.all(
    ['index.html', 'icon.svg'].map(async (name) => ({ path: name, contents: await readFile(`${SOURCES}/${name}`) })),
  );
  return new Map([
    ...[...files, ...outputFiles].map(
      ({ path, contents }) => [basename(path), asset(extname(path), Buffer.from(contents))] as const,
    ),
  ]);
}

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

function asset(extension: string, body: Buffer): Asset {
  const digest = createHash('sha256').update(body).digest('hex').slice(0, 24);
  return { type: TYPES[extension] ?? 'application/octet-stream', body, etag: `"${digest}"` };
}
