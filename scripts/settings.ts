import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { SERVERS, isServerName } from '../infra/server-settings.ts';
import { commandLine } from '../local/installation.ts';

/** Prints the settings for an XMPP server that `npm start` has written: `npm run settings`. */
const USAGE = `Usage: ${commandLine('settings', '[options]')}

Prints the lines for the configuration of the XMPP server, which contain the secret.

  --data <directory>     the data directory of ${commandLine('start')}  (PING_MUC_DATA, .ping-muc)
  --for <server>         prosody or ejabberd                (PING_MUC_FOR, prosody)
  --help
`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      data: { type: 'string', default: process.env['PING_MUC_DATA'] ?? '.ping-muc' },
      for: { type: 'string', default: process.env['PING_MUC_FOR'] ?? 'prosody' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return void process.stdout.write(USAGE);
  const { for: server } = values;
  if (!isServerName(server)) throw new Error(`--for must be ${Object.keys(SERVERS).join(' or ')}; got ${server}`);
  const settings = await readFile(join(values.data, SERVERS[server].file), 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error(`${values.data} has no settings: start ping-muc on it, wait until it listens, or set --data`);
  });
  process.stdout.write(settings);
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
