import { join } from 'node:path';
import { SERVERS, type ServerName } from '../infra/server-settings.ts';
import { commandLine } from './installation.ts';

interface Started {
  /** Whether the output goes to a terminal. */
  readonly isTerminal: boolean;
  /** The data directory. */
  readonly data: string;
  /** The server that is to be configured, and the settings for it. */
  readonly server: ServerName;
  readonly settings: string;
  /** The console's URL, if it is served. */
  readonly console: string | undefined;
}

/**
 * What `npm start` prints: what to do next. The settings contain the secret, so they are printed on a terminal alone.
 * Anything else may keep them, as systemd's journal does.
 */
export function nextStep({ isTerminal, data, server, settings, console }: Started): string {
  const { name, file: fileName } = SERVERS[server];
  const file = join(data, fileName);
  const see = console === undefined ? '' : `See what happens at ${console}\n`;
  if (isTerminal)
    return `Next: add the lines below, which are also in ${file}, to ${name}'s configuration, and restart ${name}.\n${see}\n${settings}\n`;
  const show = commandLine('settings', `--data ${data}${server === 'prosody' ? '' : ` --for ${server}`}`);
  return `Next: add the lines of ${file} to ${name}'s configuration, and restart ${name}. To see them: ${show}\n${see}`;
}
