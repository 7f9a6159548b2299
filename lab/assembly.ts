import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { synthesize } from '../local/assembly.ts';
import { compileModule } from './ejabberd-module.ts';
import { readCalls, refusedCalls } from './permissions.ts';
import { ROLES } from './servers.ts';

/**
 * Synthesizes the stack once for all tests of a run that need it, and records every AWS call that the functions make
 * during the run. The run fails if the stack does not permit one of these calls. Compiles the module for ejabberd, if
 * that is the users' server.
 */
export default async function setup(): Promise<() => Promise<void>> {
  const directory = await mkdtemp(join(tmpdir(), 'ping-muc-assembly-'));
  const calls = join(directory, 'calls');
  await synthesize(directory, { serverApiUrl: 'http://127.0.0.1:5280/ping_muc' });
  process.env['PING_MUC_ASSEMBLY'] = directory;
  process.env['PING_MUC_RECORD_CALLS'] = calls;
  if (ROLES.users === 'ejabberd') process.env['PING_MUC_BEAMS'] = await compileModule(join(directory, 'beams'));
  return async () => {
    const refused = await refusedCalls(directory, await readCalls(calls));
    await rm(directory, { recursive: true, force: true });
    if (refused.length > 0)
      throw new Error(`the functions made calls that the stack does not permit: ${refused.join('; ')}`);
  };
}
