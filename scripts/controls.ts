import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { AWS_CLIENT } from '../functions/adapters/aws.ts';
import { Controls, type PauseRecord } from '../functions/adapters/controls.ts';
import { Hosts } from '../functions/adapters/hosts.ts';
import type { Address } from '../local/address.ts';
import { REGION } from '../local/assembly.ts';
import { commandLine } from '../local/installation.ts';

/** The table of a stack, through which an operator sees and controls checks. */
export interface StackTable {
  readonly client: DynamoDBClient;
  readonly name: string;
  readonly controls: Controls;
  readonly hosts: Hosts;
}

/** @param where the name of a table on AWS, or the address of an instance on this machine */
export function openTable(where: string | Pick<Address, 'endpoint' | 'table'>): StackTable {
  const isLocal = typeof where !== 'string';
  const local = { region: REGION, credentials: { accessKeyId: 'control', secretAccessKey: 'local' } };
  const client = new DynamoDBClient({ ...AWS_CLIENT, ...(isLocal ? { ...local, endpoint: where.endpoint } : {}) });
  const name = isLocal ? where.table : where;
  return { client, name, controls: new Controls(client, name), hosts: new Hosts(client, name) };
}

export const nowSeconds = (): number => Math.floor(Date.now() / 1000);

/** A moment, in seconds since the epoch, for people. */
export const time = (seconds: number): string => new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');

export function describePause(pause: PauseRecord | undefined): string {
  if (pause === undefined) return 'Checks are not paused.';
  const why = pause.reason === '' ? '' : `: ${pause.reason}`;
  const end = pause.until === undefined ? `until ${commandLine('control', 'resume')}` : `until ${time(pause.until)}`;
  return `Checks are paused since ${time(pause.since)} by ${pause.by}, ${end}${why}`;
}
