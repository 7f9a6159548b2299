import type { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { GetSecretValueCommand } from '@aws-sdk/client-secrets-manager';
import { type Key, SecretError, decodeSecret } from '../core/signature.ts';
import { describe, logger } from './telemetry.ts';

/** Seconds for which a fetched secret is used without looking again. */
const FRESH_SECONDS = 300;
/** A failed signature makes us look again, but not more often than once in so many seconds. */
const LOOK_AGAIN_SECONDS = 15;

/**
 * The live webhook secrets, from one Secrets Manager secret: `{"current": "whsec_…", "previous": "whsec_…"}`, of which
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

  /** Looks again, if the last look is not too recent. Returns undefined where it is. */
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
      logger({}).warn('the secret could not be looked at again; the one that is known goes on', describe(error));
      return known;
    });
    this.#keys = fetching;
    fetching.catch(() => {
      if (this.#keys === fetching) this.#keys = undefined; // whoever asked has the error; who asks next tries anew
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
