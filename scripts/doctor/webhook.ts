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

const JSON_TYPE = 'application/json';

/** Tests the webhook: unsigned, and signed but without events. @param host the XMPP host in whose name it asks */
export async function webhookFinding(endpoint: WebhookEndpoint, host: string): Promise<WebhookFinding> {
  const { url, keys, secretSource, start } = endpoint;
  const body = JSON.stringify({ host, events: [] });
  const unsigned = await post(url, { type: JSON_TYPE, body });
  if ('code' in unsigned) return bad(`Webhooks: ${describeUnanswered(url, unsigned)}. ${start}`);
  if (unsigned.status !== 401)
    return bad(`Webhooks: ${url} answers ${unsigned.status} to a request without a signature, and not 401. ${start}`);
  const signed = await post(url, { type: JSON_TYPE, body, keys });
  if ('code' in signed) return bad(`Webhooks: ${describeUnanswered(url, signed)}. ${start}`);
  if (signed.status === 200) return ok(`Webhooks: ${url} accepts what is signed, and refuses what is not`);
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
