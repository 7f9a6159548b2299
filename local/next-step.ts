import { join } from 'node:path';
import { commandLine } from './installation.ts';

/** In the data directory: the settings for Prosody, with the secret. */
export const PROSODY_SETTINGS_FILE = 'prosody-settings.lua';

interface Started {
  /** Whether the output goes to a terminal. */
  readonly isTerminal: boolean;
  /** The data directory. */
  readonly data: string;
  /** The settings for Prosody. */
  readonly settings: string;
  /** The console's URL, if it is served. */
  readonly console: string | undefined;
}

/**
 * What `npm start` prints: what to do next. The settings contain the secret, so they are printed on a terminal alone.
 * Anything else may keep them, as systemd's journal does.
 */
export function nextStep({ isTerminal, data, settings, console }: Started): string {
  const file = join(data, PROSODY_SETTINGS_FILE);
  const see = console === undefined ? '' : `See what happens at ${console}\n`;
  if (isTerminal)
    return `Next: add the lines below, which are also in ${file}, to Prosody's configuration, and restart Prosody.\n${see}\n${settings}\n`;
  const show = commandLine('settings', `--data ${data}`);
  return `Next: add the lines of ${file} to Prosody's configuration, and restart Prosody. To see them: ${show}\n${see}`;
}
