import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { commandLine } from '../local/installation.ts';
import { PROSODY_SETTINGS_FILE } from '../local/next-step.ts';

/** Prints the settings for Prosody that `npm start` has written: `npm run settings`. */
const USAGE = `Usage: ${commandLine('settings', '[options]')}

Prints the lines for Prosody's configuration, which contain the secret.

  --data <directory>     the data directory of ${commandLine('start')}  (PING_MUC_DATA, .ping-muc)
  --help
`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      data: { type: 'string', default: process.env['PING_MUC_DATA'] ?? '.ping-muc' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return void process.stdout.write(USAGE);
  const settings = await readFile(join(values.data, PROSODY_SETTINGS_FILE), 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error(`${values.data} has no settings: start ping-muc on it, wait until it listens, or set --data`);
  });
  process.stdout.write(settings);
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
