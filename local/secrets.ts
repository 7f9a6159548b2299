import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { decodeSecret } from '../functions/core/signature.ts';

/** A secret of this machine cannot be used. The message says where it is and what to set, and never contains it. */
export class SecretSettingError extends Error {
  override readonly name = 'SecretSettingError';
}

/** Where a running instance has its secrets from. */
export function secretSource(data: string, env: NodeJS.ProcessEnv = process.env): string {
  return (env['PING_MUC_SECRET'] ?? '') === '' ? join(data, 'secret') : 'PING_MUC_SECRET';
}

/**
 * The live secrets, current first: from the environment, or from the data directory. Undefined: there is none yet.
 * @throws SecretSettingError, or what the file system throws
 */
export async function readSecrets(data: string): Promise<readonly string[] | undefined> {
  const source = secretSource(data);
  const given = process.env['PING_MUC_SECRET'] ?? '';
  if (given !== '')
    return checked(
      given.split(',').map((secret) => secret.trim()),
      source,
    );
  try {
    return checked([(await readFile(source, 'utf8')).trim()], source);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return undefined;
  }
}

/** Generates a secret, and keeps it in the data directory. */
export async function generateSecret(data: string): Promise<readonly string[]> {
  const generated = `whsec_${randomBytes(32).toString('base64')}`;
  await writeFile(join(data, 'secret'), `${generated}\n`, { mode: 0o600, flag: 'wx' });
  return [generated];
}

function checked(secrets: readonly string[], source: string): readonly string[] {
  if (secrets.length > 2)
    throw new SecretSettingError(
      `${source} must have at most two secrets, the current and the previous one; got ${secrets.length}`,
    );
  try {
    secrets.forEach(decodeSecret);
  } catch (error) {
    throw new SecretSettingError(`${source}: ${error instanceof Error ? error.message : String(error)}`);
  }
  return secrets;
}
