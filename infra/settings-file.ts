import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Node } from 'constructs';
import { ConfigError } from './config.ts';
import { SETTINGS } from './settings.ts';

/** The file with the operator's settings. It is not part of the repository, so `git pull` leaves it alone. */
export const SETTINGS_FILE = 'ping-muc.config.json';

/** Where `npm run configure` writes, and every cdk command reads: PING_MUC_CONFIG, or the file in this folder. */
export const settingsPath = (): string =>
  process.env['PING_MUC_CONFIG'] ?? fileURLToPath(new URL(`../${SETTINGS_FILE}`, import.meta.url));

/**
 * Reads the settings for the app: from the file, or what a program passed as the context `config`. Settings on the
 * command line are refused: the next deployment would lose them.
 * @throws ConfigError
 */
export function readSettings(node: Node): Readonly<Record<string, unknown>> {
  const context = node.getAllContext() as Record<string, unknown>;
  const misplaced = Object.keys(SETTINGS).find((setting) => setting in context);
  if (misplaced !== undefined)
    throw new ConfigError(
      `${misplaced} is a setting, which the next deployment would lose if it came from the command line or cdk.json; ` +
        `put it into ${SETTINGS_FILE}: "${misplaced}": ${JSON.stringify(context[misplaced])}`,
    );
  const { config } = context;
  return isObject(config) ? config : readSettingsFile(settingsPath());
}

/** The settings come from a program (local/assembly.ts), not from a file. */
export const isRunByProgram = (node: Node): boolean => isObject(node.tryGetContext('config'));

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** @throws ConfigError */
export function readSettingsFile(file: string): Readonly<Record<string, unknown>> {
  const settings = parse(file);
  if (!isObject(settings)) throw new ConfigError(`${file} must contain a JSON object; for example ${EXAMPLE}`);
  return settings;
}

const EXAMPLE = `{ "serverApiUrl": "${SETTINGS.serverApiUrl.example}" }`;

function parse(file: string): unknown {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
      throw new ConfigError(`${file} cannot be read: ${(error as Error).message}`);
    throw new ConfigError(`${basename(file)} does not exist: run npm run configure, or write it: ${EXAMPLE}`);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ConfigError(`${file} is not JSON: ${(error as Error).message}`);
  }
}
