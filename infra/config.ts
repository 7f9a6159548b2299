import type { Node } from 'constructs';
import * as v from 'valibot';

/** What an operator sets: CDK context, in `cdk.json` or as `-c key=value`. */
export interface Config {
  /** The server's stanza API, without `/stanzas`; `{host}` stands for the XMPP host. */
  readonly serverApiUrl: string;
  /** The XMPP hosts that may use the stack; empty: any that knows the secret. */
  readonly xmppHosts: readonly string[];
  readonly stackName: string;
}

/** One line that names the key, what it got, and an example. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

const KEYS = {
  serverApiUrl: {
    example: 'https://xmpp.example.net:5281/ping_muc',
    schema: v.pipe(v.string('must be set'), v.check(isServerUrl, 'must be an https URL without a query (http only to loopback)')),
  },
  xmppHosts: {
    example: 'example.net,example.org',
    schema: v.pipe(
      v.optional(v.string('must be a list separated by commas'), ''),
      v.transform((list) => list.split(',').map((host) => host.trim().toLowerCase()).filter((host) => host !== '')),
      v.check((hosts) => hosts.every((host) => /^[a-z0-9.:[\]-]+$/.test(host)), 'must be host names separated by commas'),
    ),
  },
  stackName: {
    example: 'PingMuc',
    schema: v.pipe(v.optional(v.string('must be a name'), 'PingMuc'), v.regex(/^[A-Za-z][A-Za-z0-9-]{0,63}$/, 'must be letters, digits and hyphens')),
  },
} as const;

function isServerUrl(text: string): boolean {
  const url = URL.parse(text.replaceAll('{host}', 'host.example'));
  if (url === null || url.search !== '' || url.hash !== '' || url.username !== '') return false;
  const isLoopback = text.includes('//{host}') || /^(localhost|127(\.\d+){3}|\[::1\])$/.test(url.hostname);
  return url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback);
}

/** Reads the configuration from the app's context. @throws ConfigError */
export function readConfig(node: Node): Config {
  const read = <Key extends keyof typeof KEYS>(key: Key): v.InferOutput<(typeof KEYS)[Key]['schema']> => {
    const value: unknown = node.tryGetContext(key);
    const parsed = v.safeParse(KEYS[key].schema, value);
    if (parsed.success) return parsed.output;
    const got = value === undefined ? 'nothing' : JSON.stringify(value);
    throw new ConfigError(`${key} ${parsed.issues[0].message}; got ${got}; for example -c ${key}=${KEYS[key].example}`);
  };
  return { serverApiUrl: read('serverApiUrl'), xmppHosts: read('xmppHosts'), stackName: read('stackName') };
}
