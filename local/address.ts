import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { writePrivateFile } from './private-file.ts';

/** Where a running instance is, for commands on the same machine. */
export interface Address {
  /** The URL of its DynamoDB, for the SDK. */
  readonly endpoint: string;
  readonly table: string;
  /** Where it takes webhooks. */
  readonly webhookUrl: string;
  /** The server's stanza API that it uses; `{host}` stands for the XMPP host. */
  readonly serverApi: string;
  /** The console's port on loopback, if there is a console. */
  readonly console?: number | undefined;
}

const FILE = 'address.json';

/** @param host the address on which an instance listens */
export function webhookUrl(host: string, port: number): string {
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}/webhooks`;
}

/** Writes the address into the data directory, for its owner alone. Returns how to remove it. */
export async function writeAddress(data: string, address: Address): Promise<{ close(): Promise<void> }> {
  const file = join(data, FILE);
  await writePrivateFile(file, JSON.stringify(address));
  return { close: () => rm(file, { force: true }) };
}

/** Reads the address. Undefined: no instance runs on this directory. */
export async function readAddress(data: string): Promise<Address | undefined> {
  try {
    return JSON.parse(await readFile(join(data, FILE), 'utf8')) as Address;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
