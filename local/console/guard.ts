import type { IncomingHttpHeaders } from 'node:http';

/** Characters of a request's path and query: a search for the longest JID, encoded, fits. */
const MAX_URL = 12_000;

export interface Refusal {
  readonly status: 400 | 403 | 405 | 414 | 421;
  readonly message: string;
}

/** The sites from which a browser may ask: this one, or none, which means that a person typed or opened the address. */
const OWN_SITES: ReadonlySet<string> = new Set(['same-origin', 'none']);

/** The names of the console, for Host and Origin. */
function ownHosts(port: number): readonly string[] {
  return [`127.0.0.1:${port}`, `localhost:${port}`, `[::1]:${port}`];
}

/**
 * Whether a request must be refused. The console listens on loopback only, but any web page that is open in a browser
 * on this machine can send requests to loopback.
 *
 * - Another name in Host: a page has its own name resolve to 127.0.0.1 (DNS rebinding).
 * - Another Origin or Sec-Fetch-Site (Fetch Metadata Request Headers, W3C): a page elsewhere asks.
 */
export function refusal(method: string, url: string, headers: IncomingHttpHeaders, port: number): Refusal | undefined {
  const hosts = ownHosts(port);
  if (!hosts.includes(headers.host?.toLowerCase() ?? ''))
    return { status: 421, message: `Open http://${hosts[0]}/. This server does not answer to another name.` };
  const { origin, 'sec-fetch-site': site } = headers;
  if (origin !== undefined && !hosts.some((host) => origin === `http://${host}`))
    return { status: 403, message: 'A page of another origin may not read the console.' };
  if (typeof site === 'string' && !OWN_SITES.has(site))
    return { status: 403, message: `Another site may not ask. Type http://${hosts[0]}/ into the address bar.` };
  if (method !== 'GET' && method !== 'HEAD')
    return { status: 405, message: 'The console can only be read: GET or HEAD.' };
  if (headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0)
    return { status: 400, message: 'A request may have no body.' };
  if (url.length > MAX_URL) return { status: 414, message: `The address may have ${MAX_URL} characters.` };
  return undefined;
}
