import { post } from '../../functions/adapters/probe.ts';
import type { Key } from '../../functions/core/signature.ts';
import { clockProblem, describeUnanswered, detailOf } from './answers.ts';
import { type Finding, bad, ok } from './finding.ts';

/** The functions' webhook, as a server sees it. */
export interface WebhookEndpoint {
  readonly url: string;
  readonly keys: readonly Key[];
  /** Where the keys are from, for people. */
  readonly secretSource: string;
  /** How it is started, or deployed. */
  readonly start: string;
}

interface WebhookFinding extends Finding {
  /** The endpoint has another secret than we. */
  readonly hasOtherSecret?: true;
}

/**
 * Tests the webhook: once unsigned, because refused requests are counted, and signed but without events for each host.
 * @param hosts the XMPP hosts in whose names it asks
 */
export async function webhookFinding(endpoint: WebhookEndpoint, hosts: readonly string[]): Promise<WebhookFinding> {
  const { url, start } = endpoint;
  const unsigned = await post(url, request('example.net'));
  if ('code' in unsigned) return bad(`Webhooks: ${describeUnanswered(url, unsigned)}. ${start}`);
  if (unsigned.status !== 401)
    return bad(`Webhooks: ${url} answers ${unsigned.status} to a request without a signature, and not 401. ${start}`);
  for (const host of hosts) {
    const problem = await signedProblem(endpoint, host);
    if (problem !== undefined) return problem;
  }
  return ok(`Webhooks: ${url} accepts what is signed, and refuses what is not`);
}

const request = (host: string): { readonly type: string; readonly body: string } => ({
  type: 'application/json',
  body: JSON.stringify({ host, events: [] }),
});

async function signedProblem(endpoint: WebhookEndpoint, host: string): Promise<WebhookFinding | undefined> {
  const { url, keys, secretSource, start } = endpoint;
  const signed = await post(url, { ...request(host), keys });
  if ('code' in signed) return bad(`Webhooks: ${describeUnanswered(url, signed)}. ${start}`);
  if (signed.status === 200) return undefined;
  const clock = clockProblem(signed, 'this machine');
  if (clock !== undefined) return bad(`Webhooks: ${url} refuses what is signed: ${clock}`);
  if (signed.status === 401)
    return {
      ...bad(`Webhooks: ${url} does not have the secret of ${secretSource}: it runs with another one. ${start}`),
      hasOtherSecret: true,
    };
  if (signed.status === 400 && detailOf(signed).includes('none of the hosts'))
    return bad(`Webhooks: the stack does not serve ${host}: add it to xmppHosts, and deploy`);
  return bad(`Webhooks: ${url} answers ${signed.status} to a signed request: ${detailOf(signed)}`);
}
