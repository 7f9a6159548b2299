import { decodeSecret } from '../../functions/core/signature.ts';
import { readAddress } from '../../local/address.ts';
import { SecretSettingError, readSecrets, secretSource } from '../../local/secrets.ts';
import { type StackTable, openTable } from '../controls.ts';
import { alarmFindings } from './alarms.ts';
import { type Findings, bad, ok } from './finding.ts';
import { nodeVersion } from './node-version.ts';
import { type ServerApi, serverFindings } from './server-api.ts';
import { knownHosts, tableFindings } from './table.ts';
import { type WebhookEndpoint, webhookFinding } from './webhook.ts';

export interface DoctorOptions {
  /** The data directory of npm start. */
  readonly data: string;
  /** The XMPP hosts to test. Empty: those that the table knows. */
  readonly hosts: readonly string[];
  /** The server's stanza API, if it is not the one that the instance uses. */
  readonly serverApi?: string | undefined;
}

/** What is tested: an instance on this machine, or a stack on AWS. */
export interface Installation {
  readonly endpoint: WebhookEndpoint;
  readonly api: ServerApi;
  readonly table: StackTable;
}

/** Tests each link of the way of an instance on this machine, in the order in which they depend on each other. */
export async function* diagnose({ data, hosts, serverApi }: DoctorOptions): Findings {
  yield nodeVersion(process.versions.node);
  const start = `Run npm start -- --data ${data}, or restart it`;
  const secrets = await readSecrets(data).catch((error: unknown) => {
    if (error instanceof SecretSettingError) return error;
    throw error;
  });
  if (secrets instanceof SecretSettingError) return yield bad(`Secret: ${secrets.message}`);
  const address = await readAddress(data);
  if (address === undefined)
    return yield bad(`Data directory: nothing runs on ${data}. ${start}, or name another --data`);
  yield ok(`Data directory: an instance has ${data}`);
  if (secrets === undefined) return yield bad(`Secret: ${secretSource(data)} is missing. ${start}`);
  yield ok(`Secret: ${secretSource(data)} has the right form`);
  const keys = secrets.map(decodeSecret);
  const table = openTable(address);
  try {
    yield* installationFindings(
      {
        endpoint: { url: address.webhookUrl, keys, secretSource: secretSource(data), start },
        api: { base: serverApi ?? address.serverApi, keys },
        table,
      },
      hosts,
    );
    yield* alarmFindings(address.console);
  } finally {
    table.client.destroy();
  }
}

/** Tests both directions for each host, and reads the table. */
export async function* installationFindings(
  { endpoint, api, table }: Installation,
  named: readonly string[],
): Findings {
  const hosts = named.length > 0 ? named : await knownHosts(table).catch(() => []);
  const webhook = await webhookFinding(endpoint, hosts[0] ?? 'example.net');
  yield webhook;
  if (hosts.length === 0 && webhook.mark === 'ok')
    yield bad('XMPP hosts: none has reported yet. Configure Prosody, or name a host: --host example.net');
  const keys = webhook.hasOtherSecret ? undefined : api.keys;
  for (const host of hosts) yield* serverFindings({ ...api, keys }, host);
  try {
    yield* tableFindings(table, hosts);
  } catch (error) {
    // of an instance that does not run: the table goes with the webhook
    if (webhook.mark === 'ok') yield bad(`Table: ${table.name} cannot be read: ${String(error)}`);
  }
}
