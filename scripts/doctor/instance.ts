import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { probeServer } from '../../functions/adapters/probe.ts';
import { decodeSecret } from '../../functions/core/signature.ts';
import { readAddress } from '../../local/address.ts';
import { SecretSettingError, readSecrets, secretSource } from '../../local/secrets.ts';
import { openTable } from '../controls.ts';
import { alarmFindings } from './alarms.ts';
import { installationFindings } from './diagnosis.ts';
import { type Findings, bad, ok } from './finding.ts';
import { commandLine } from '../../local/installation.ts';
import { SERVERS } from '../../infra/server-settings.ts';

interface InstanceOptions {
  /** The data directory of npm start. */
  readonly data: string;
  /** The XMPP hosts to test. Empty: those that have reported. */
  readonly hosts: readonly string[];
  /** The server's stanza API, if it is not the one that the instance uses; `{host}` stands for the XMPP host. */
  readonly serverApi?: string | undefined;
}

/** Tests an instance on this machine. */
export async function* instanceFindings({ data, hosts, serverApi }: InstanceOptions): Findings {
  const start = `Run ${commandLine('start', `--data ${data}`)}, or restart it`;
  const source = secretSource(data);
  const secrets = await readSecrets(data).catch((error: unknown) => {
    if (error instanceof SecretSettingError) return error;
    throw error;
  });
  if (secrets instanceof SecretSettingError) return yield bad(`Secret: ${secrets.message}`);
  const address = await readAddress(data);
  if (address === undefined)
    return yield bad(`Data directory: nothing runs on ${data}. ${start}, or name another --data`);
  if ((address as Partial<typeof address>).webhookUrl === undefined)
    return yield bad(`Data directory: ${data} is that of an instance of an older release. ${start}`);
  yield ok(`Data directory: an instance has ${data}`);
  if (secrets === undefined)
    return yield bad(
      `Secret: ${source} is missing. If the instance has PING_MUC_SECRET, set it here, too. If not: ${start}`,
    );
  yield ok(`Secret: ${source} has the right form`);
  const keys = secrets.map(decodeSecret);
  const table = openTable(address);
  try {
    const endpoint = { url: address.webhookUrl, keys, secretSource: source, start };
    const askServer = (host: string, isSigned: boolean): ReturnType<typeof probeServer> =>
      probeServer(serverApi ?? address.serverApi, host, isSigned ? keys : undefined);
    // those for the other servers have the same values
    const printed = await readFile(join(data, SERVERS.prosody.file), 'utf8').catch(() => undefined);
    yield* installationFindings({ endpoint, askServer, table, printed }, hosts);
    yield* alarmFindings(address.console);
  } finally {
    table.client.destroy();
  }
}
