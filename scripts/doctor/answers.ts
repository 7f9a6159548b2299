import { PROBE_SECONDS, type Reply, type Unanswered } from '../../functions/adapters/probe.ts';
import { TOLERANCE_SECONDS } from '../../functions/core/signature.ts';

/** What answers, and missing ones, say to an operator. */

/**
 * What is wrong with the clocks of both sides, if an endpoint refuses a signature; undefined: nothing.
 * @param ours whose clock signed: that of "this machine", for example
 */
export function clockProblem(reply: Reply, ours: string): string | undefined {
  if (reply.status !== 401 || !/\bclocks?\b/.test(detailOf(reply))) return undefined;
  const { ahead } = reply;
  const how = ahead === undefined ? 'differs from' : `is ${Math.abs(ahead)} s ${ahead > 0 ? 'ahead of' : 'behind'}`;
  return `its clock ${how} the clock of ${ours}, and ${TOLERANCE_SECONDS} s are tolerated. Run timedatectl on both`;
}

/** The detail of a problem document (RFC 9457), or the beginning of another body. */
export function detailOf({ body }: Pick<Reply, 'body'>): string {
  try {
    const { detail } = JSON.parse(body) as { readonly detail?: unknown };
    if (typeof detail === 'string') return detail;
  } catch {
    // another server has answered
  }
  return body.replaceAll(/\s+/g, ' ').slice(0, 200);
}

/** Why there was no answer, and what to do. */
export function describeUnanswered(url: string, { code, message }: Unanswered): string {
  const { origin, hostname } = new URL(url);
  if (code === 'ECONNREFUSED') return `nothing listens at ${origin}`;
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return `the name ${hostname} cannot be resolved: check DNS`;
  if (code === 'TimeoutError' || code === 'ABORT_ERR' || code === 'ETIMEDOUT')
    return `${origin} does not answer within ${PROBE_SECONDS} s: check firewall and routing`;
  return certificateProblem(code, hostname) ?? `${origin} cannot be reached: ${message}`;
}

/** Codes of Node's TLS, which are those of OpenSSL. */
function certificateProblem(code: string, hostname: string): string | undefined {
  if (code === 'CERT_HAS_EXPIRED')
    return `the certificate of ${hostname} has expired: renew it, and restart what serves it`;
  if (code === 'CERT_NOT_YET_VALID') return `the certificate of ${hostname} is not valid yet: check both clocks`;
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return `the certificate is not one of ${hostname}: install one with this name for the HTTP server`;
  if (/SELF_SIGNED|UNABLE_TO_|UNKNOWN_CA/.test(code))
    return (
      `the certificate of ${hostname} is not from an authority that Node trusts: ` +
      `send the whole chain, or name your authority in NODE_EXTRA_CA_CERTS`
    );
  return undefined;
}
