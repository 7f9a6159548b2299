import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const SCRIPT = fileURLToPath(new URL('../scripts/control.ts', import.meta.url));

/** `npm run control` on a runtime's data directory. Returns what it prints. @throws with what it complains about */
export async function control(data: string, ...words: readonly string[]): Promise<string> {
  const { stdout } = await run(process.execPath, [SCRIPT, ...words, '--data', data], { timeout: 60_000 });
  return stdout;
}
