import { execFile } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { shifted } from './faketime.ts';

const run = promisify(execFile);

/** Longer than any test, even if the clocks of the two sides differ. */
const DAYS = 2;
const NEW_KEY = [
  'req',
  '-x509',
  '-newkey',
  'ec',
  '-pkeyopt',
  'ec_paramgen_curve:P-256',
  '-nodes',
  '-days',
  String(DAYS),
];

/** A certification authority that only the lab's servers trust (openssl comes with Prosody's package). */
export class Authority {
  /** The authority's own certificate. */
  readonly certificate: string;
  readonly #key: string;

  private constructor(directory: string) {
    this.certificate = join(directory, 'authority.crt');
    this.#key = join(directory, 'authority.key');
  }

  static async open(directory: string): Promise<Authority> {
    const authority = new Authority(directory);
    await run('openssl', [
      ...NEW_KEY,
      '-subj',
      '/CN=authority of the lab',
      '-keyout',
      authority.#key,
      '-out',
      authority.certificate,
    ]);
    return authority;
  }

  /**
   * Writes a certificate for the domains of one server, and its key, where the server looks for them. The domains are
   * addresses: a server compares names all the same (dNSName), and GnuTLS, for one, compares addresses (iPAddress).
   */
  async certify(domains: readonly string[], directory: string, { isExpired = false } = {}): Promise<void> {
    await mkdir(directory, { recursive: true });
    const [certificate, key] = ['crt', 'key'].map((ending) => join(directory, `server.${ending}`)) as [string, string];
    const names = domains.map((domain) => `DNS:${domain},IP:${domain}`).join(',');
    const extensions = ['-addext', `subjectAltName=${names}`, '-addext', 'basicConstraints=critical,CA:FALSE'];
    const clock = isExpired ? shifted(-2 * DAYS * 86_400) : {};
    const authority = ['-CA', this.certificate, '-CAkey', this.#key];
    const files = ['-keyout', key, '-out', certificate];
    await run('openssl', [...NEW_KEY, ...authority, '-subj', `/CN=${domains[0]}`, ...extensions, ...files], {
      env: { ...process.env, ...clock },
    });
  }
}
