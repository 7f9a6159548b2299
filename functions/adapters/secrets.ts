import type { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { GetSecretValueCommand } from '@aws-sdk/client-secrets-manager';
import { type Key, SecretError, decodeSecret } from '../core/signature.ts';
import { describe, logger } from './telemetry.ts';

/** Seconds for which a fetched secret is used without fetching it again. */
const FRESH_SECONDS = 300;
/** After a failed signature the secret is fetched again, but at most once in so many seconds. */
const LOOK_AGAIN_SECONDS = 15;

/**
 * The live webhook secrets, from one Secrets Manager secret: `{"current": "whsec_…", "previous": "whsec_…"}`.
 * `previous` may be missing or empty.
 */
export class Secrets {
  readonly #client: SecretsManagerClient;
  readonly #arn: string;
  #keys: Promise<readonly Key[]> | undefined;
  #fetchedAt = -Infinity;

  constructor(client: SecretsManagerClient, arn: string) {
    this.#client = client;
    this.#arn = arn;
  }

  /** The live keys, current first. @throws SecretError, or what the SDK throws */
  async keys(): Promise<readonly Key[]> {
    if (this.#keys === undefined || this.#age() > FRESH_SECONDS) this.#fetch();
    return this.#keys as Promise<readonly Key[]>;
  }

  /** Fetches the secret again. Returns undefined if it was fetched only a moment ago. */
  async renewed(): Promise<readonly Key[] | undefined> {
    if (this.#age() < LOOK_AGAIN_SECONDS) return undefined;
    this.#fetch();
    return this.keys();
  }

  #age(): number {
    return (performance.now() - this.#fetchedAt) / 1000;
  }

  #fetch(): void {
    this.#fetchedAt = performance.now();
    const known = this.#keys;
    const fetching = this.#read().catch((error: unknown) => {
      if (known === undefined) throw error;
      logger({}).warn('the secret could not be fetched again; the known one stays in use', describe(error));
      return known;
    });
    this.#keys = fetching;
    fetching.catch(() => {
      if (this.#keys === fetching) this.#keys = undefined; // the caller gets the error; the next call tries again
    });
  }

  async #read(): Promise<readonly Key[]> {
    const { SecretString } = await this.#client.send(new GetSecretValueCommand({ SecretId: this.#arn }));
    let value: unknown;
    try {
      value = JSON.parse(SecretString ?? '');
    } catch {
      throw new SecretError('the secret must be JSON with the fields current and previous');
    }
    const { current, previous } = (value ?? {}) as Record<string, unknown>;
    if (typeof current !== 'string') throw new SecretError('the secret lacks the field current');
    return [current, previous]
      .filter((secret): secret is string => typeof secret === 'string' && secret !== '')
      .map(decodeSecret);
  }
}
