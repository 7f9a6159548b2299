import type { ServerAnswers } from '../../functions/adapters/probe.ts';
import type { StackTable } from '../controls.ts';
import { type Findings, bad } from './finding.ts';
import { serverFindings } from './server-api.ts';
import { knownHosts, tableFindings } from './table.ts';
import { type WebhookEndpoint, webhookFinding } from './webhook.ts';

/** What is tested: an instance on this machine, or a stack on AWS. */
export interface Installation {
  readonly endpoint: WebhookEndpoint;
  /**
   * Asks the server's stanza API of a host, from where the functions are.
   * May fail.
   * @param isSigned false: only without a signature, because the secret is known to be wrong
   */
  readonly askServer: (host: string, isSigned: boolean) => Promise<ServerAnswers>;
  readonly table: StackTable;
  /** The settings that were printed for the server; undefined: not known. */
  readonly printed: string | undefined;
}

/**
 * Tests both directions for each host, and reads the table.
 * @param named the XMPP hosts. Empty: those that the table knows
 */
export async function* installationFindings(
  { endpoint, askServer, table, printed }: Installation,
  named: readonly string[],
): Findings {
  const hosts = named.length > 0 ? named : await knownHosts(table).catch(() => []);
  const webhook = await webhookFinding(endpoint, hosts.length > 0 ? hosts : ['example.net']);
  yield webhook;
  if (hosts.length === 0 && webhook.mark === 'ok')
    yield bad('XMPP hosts: none has reported yet. Configure the XMPP server, or name a host: --host example.net');
  for (const host of hosts) {
    const answers = await askServer(host, !webhook.hasOtherSecret).catch(String);
    if (typeof answers === 'string') yield bad(`Server API of ${host}: it cannot be asked: ${answers}`);
    else yield* serverFindings(answers, host, printed);
  }
  try {
    yield* tableFindings(table, hosts);
  } catch (error) {
    // of an instance that does not run: the table goes with the webhook
    if (webhook.mark === 'ok') yield bad(`Table: ${table.name} cannot be read: ${String(error)}`);
  }
}
