import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const SCRIPT = fileURLToPath(new URL('../scripts/doctor.ts', import.meta.url));

/** How `npm run doctor` ended, and what it printed. */
export interface Visit {
  readonly status: number;
  readonly output: string;
}

/** Runs `npm run doctor` on a runtime's data directory. @param environment in addition to that of this process */
export function doctor(data: string, words: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<Visit> {
  const options = { timeout: 60_000, env: { ...process.env, ...environment } };
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [SCRIPT, '--data', data, ...words], options, (_error, stdout, stderr) =>
      resolve({ status: child.exitCode ?? -1, output: `${stdout}${stderr}` }),
    );
  });
}
