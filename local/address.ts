import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { writePrivateFile } from './private-file.ts';

/** Where the table of a running instance is, for commands on the same machine. */
interface Address {
  /** The URL of its DynamoDB, for the SDK. */
  readonly endpoint: string;
  readonly table: string;
}

const FILE = 'address.json';

/** Writes the address into the data directory, for its owner alone. */
export async function writeAddress(data: string, address: Address): Promise<void> {
  await writePrivateFile(join(data, FILE), JSON.stringify(address));
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

export async function removeAddress(data: string): Promise<void> {
  await rm(join(data, FILE), { force: true });
}
