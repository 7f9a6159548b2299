import { createHash } from 'node:crypto';
import { readFile, readdir } from 'node:fs/promises';
import { extname, join } from 'node:path';

/** A file that the console serves. */
export interface Asset {
  readonly type: string;
  readonly body: Uint8Array;
  readonly etag: string;
}

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** Reads the pages that a release contains. All are kept in memory: a request cannot name a file of the disk. */
export async function readPages(folder: string): Promise<ReadonlyMap<string, Uint8Array>> {
  const names = await readdir(folder);
  return new Map(await Promise.all(names.map(async (name) => [name, await readFile(join(folder, name))] as const)));
}

/** What the console serves, by the names of the files. */
export function toAssets(files: ReadonlyMap<string, Uint8Array>): ReadonlyMap<string, Asset> {
  return new Map([...files].map(([name, body]) => [name, asset(extname(name), body)]));
}

function asset(extension: string, body: Uint8Array): Asset {
  const digest = createHash('sha256').update(body).digest('hex').slice(0, 24);
  return { type: TYPES[extension] ?? 'application/octet-stream', body, etag: `"${digest}"` };
}
