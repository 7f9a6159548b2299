/**
 * XMPP addresses (RFC 7622).
 *
 * We split addresses and fold ASCII case. The server has done all other normalisation before it sends us an address.
 * Folding more would be wrong: a key that differs from the server's own form would address a session that does not
 * exist. For the same reason `@xmpp/jid` is not used: it rewrites a single backslash in a localpart (XEP-0106), which
 * turns one room into another.
 */
export interface Jid {
  readonly local: string;
  readonly domain: string;
  readonly resource: string;
  /** `local@domain`, or `domain` if there is no localpart. */
  readonly bare: string;
  /** The whole address, normalised. */
  readonly full: string;
}

/** Each part of an address takes 1 to 1,023 bytes of UTF-8 (RFC 7622 §3.1). */
const MAX_PART_BYTES = 1023;

/** Characters that no XML 1.0 document can contain (XML 1.0 §2.2), and so no address either. */
const NOT_XML = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/u;

/** RFC 7622 §3.3.1; white space is excluded from localparts by the PRECIS IdentifierClass. */
const NOT_LOCAL = /["&'/:<>@\s]/u;

/** Whether a text can be written into XML and read back unchanged. */
export function isXmlText(text: string): boolean {
  return text.isWellFormed() && !NOT_XML.test(text);
}

function asciiLower(text: string): string {
  return text.replace(/[A-Z]+/g, (upper) => upper.toLowerCase());
}

/** No part contains control characters (RFC 8264 §9.11). In an attribute, some of them would be read as spaces. */
const CONTROL = /[\u0000-\u001f\u007f]/u;

function isPart(text: string): boolean {
  return text.length > 0 && Buffer.byteLength(text) <= MAX_PART_BYTES && isXmlText(text) && !CONTROL.test(text);
}

/** Parses and normalises a host name. Returns undefined if it is not one. */
export function parseHost(text: string): string | undefined {
  const host = asciiLower(text);
  return isPart(host) && !/["&'/<>@#\s]/u.test(host) ? host : undefined;
}

/**
 * Parses and normalises an address. Returns undefined if it is not one.
 * The resource begins at the first `/` (RFC 7622 §3.2).
 */
export function parseJid(text: string): Jid | undefined {
  const slash = text.indexOf('/');
  const address = slash < 0 ? text : text.slice(0, slash);
  const resource = slash < 0 ? '' : text.slice(slash + 1);
  const at = address.indexOf('@');
  const local = asciiLower(at < 0 ? '' : address.slice(0, at));
  const domain = parseHost(address.slice(at + 1));
  if (domain === undefined) return undefined;
  if (at >= 0 && (!isPart(local) || NOT_LOCAL.test(local))) return undefined;
  if (slash >= 0 && !isPart(resource)) return undefined;
  const bare = local === '' ? domain : `${local}@${domain}`;
  return { local, domain, resource, bare, full: resource === '' ? bare : `${bare}/${resource}` };
}

/** Whether a text can be the nick of an occupant: the resource of an address. */
export function isNick(text: string): boolean {
  return isPart(text);
}
