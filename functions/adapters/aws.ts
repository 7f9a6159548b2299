import type { DynamoDBClientConfig } from '@aws-sdk/client-dynamodb';

type RetryStrategy = Exclude<
  NonNullable<DynamoDBClientConfig['retryStrategy']>,
  { readonly mode?: string; retry: unknown }
>;
type Token = Awaited<ReturnType<RetryStrategy['acquireInitialRetryToken']>>;

/**
 * How the SDK clients call. A connection that does not open within two seconds, an answer that does not begin within
 * five, or that stops coming for five, is tried again by the SDK, three times in all: what nobody answers fails after
 * 15 seconds. A webhook has 20 for its own answer, and gives up by itself if several calls in a row use them up.
 */
export const AWS_CLIENT = {
  maxAttempts: 3,
  // requestTimeout alone only logs, and covers the answer's head; socketTimeout, the rest
  requestHandler: { connectionTimeout: 2000, requestTimeout: 5000, throwOnRequestTimeout: true, socketTimeout: 5000 },
} as const;

/**
 * A check's patience with a table that throttles: 0.1, 0.2, 0.4 … 5 s, each drawn anew between 0 and that (full
 * jitter), so nine waits are 21 s at the most, and half of it on average. A key of the table takes 1,000 writes a
 * second, and a check has 64 under way: the 5,000 that may be behind a check are done in five seconds, and of two
 * checks and a burst of joins on one key, each has its turn within seconds.
 */
const THROTTLED = { attempts: 10, firstMs: 100, longestMs: 5000 } as const;

/**
 * The longest that one call of a check takes before it fails, in milliseconds: all waits, and three answers that do not
 * come.
 */
export const LONGEST_CALL_MS = 21_300 + 3 * 5000;

/**
 * Tries again what was throttled, as above, and all else as AWS_CLIENT does. The SDK's own strategy has one purse of
 * 500 for all calls of a client, of which each new try takes 5 to 14: 64 throttled calls empty it in a second, and then
 * none is tried again.
 */
class PatientRetries implements RetryStrategy {
  acquireInitialRetryToken(): Promise<Token> {
    return Promise.resolve(token(0, 0, 0));
  }

  refreshRetryTokenForRetry(before: Token, { errorType }: { readonly errorType: string }): Promise<Token> {
    const { failures } = before as CountingToken;
    const retries = before.getRetryCount() + 1;
    const isThrottled = errorType === 'THROTTLING';
    const failed = isThrottled ? failures : failures + 1;
    const mayTry =
      retries < THROTTLED.attempts && failed < AWS_CLIENT.maxAttempts && (isThrottled || errorType === 'TRANSIENT');
    if (!mayTry) return Promise.reject(new Error('no further try'));
    return Promise.resolve(
      token(retries, failed, Math.random() * Math.min(THROTTLED.longestMs, THROTTLED.firstMs * 2 ** (retries - 1))),
    );
  }

  recordSuccess(): void {
    // there is no purse
  }
}

interface CountingToken extends Token {
  /** Tries that failed, and were not throttled. */
  readonly failures: number;
}

function token(retries: number, failures: number, delayMs: number): CountingToken {
  return { failures, getRetryCount: () => retries, getRetryDelay: () => delayMs };
}

/** How a check calls its table. */
export const PATIENT_AWS_CLIENT = {
  ...AWS_CLIENT,
  maxAttempts: THROTTLED.attempts,
  retryStrategy: new PatientRetries(),
} as const;
