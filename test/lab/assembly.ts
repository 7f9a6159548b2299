import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { synthesize } from '../../local/assembly.ts';

/** Synthesizes the stack once for all end-to-end tests of a run. */
export default async function setup(): Promise<() => Promise<void>> {
  const directory = await mkdtemp(join(tmpdir(), 'ping-muc-assembly-'));
  await synthesize(directory, { serverApiUrl: 'http://127.0.0.1:5280/ping_muc' });
  process.env['PING_MUC_ASSEMBLY'] = directory;
  return () => rm(directory, { recursive: true, force: true });
}
