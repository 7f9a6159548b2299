import type { DynamoDBClientConfig } from '@aws-sdk/client-dynamodb';
import { keepAlive } from './connections.ts';

type RetryStrategy = Exclude<
  NonNullable<DynamoDBClientConfig['retryStrategy']>,
  { readonly mode?: string; retry: unknown }
>;
type Token = Awaited<ReturnType<RetryStrategy['acquireInitialRetryToken']>>;

/**
 * How the SDK clients call. The SDK tries up to three times: if a connection does not open within two seconds, or if
 * an answer does not begin within five seconds or pauses for five. So a call without an answer fails after 15 seconds.
 * A webhook must answer within 20 seconds, and gives up itself if several calls in a row take longer.
 */
export const AWS_CLIENT = {
  maxAttempts: 3,
  requestHandler: {
    ...keepAlive(50), // the SDK's own agents have as many
    connectionTimeout: 2000,
    // it alone only logs, and covers only the head of the answer; socketTimeout covers the rest
    requestTimeout: 5000,
    throwOnRequestTimeout: true,
    socketTimeout: 5000,
  },
} as const;

/**
 * How long a check waits for a table that throttles: up to 0.1, 0.2, 0.4 … 5 s, each wait a random part of that (full
 * jitter). Nine waits take 21 s at most, and half of it on average. A key of the table takes 1,000 writes a second, and
 * a check has 64 under way. So the 5,000 writes that may wait are done in five seconds, and if two checks and a burst
 * of joins use one key, each gets its turn within seconds.
 */
const THROTTLED = { attempts: 10, firstMs: 100, longestMs: 5000 } as const;

/**
 * The longest time that a call of a check takes before it fails, in milliseconds: all waits, and three missing answers.
 */
export const LONGEST_CALL_MS = 21_300 + 3 * 5000;

/**
 * Repeats throttled calls as above, and others as AWS_CLIENT does. The SDK's own strategy has a budget of 500 for all
 * calls of a client, and each retry takes 5 to 14 of it: 64 throttled calls use it up in a second, and then no call is
 * repeated.
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
    // there is no budget
  }
}

interface CountingToken extends Token {
  /** Tries that failed for another reason than throttling. */
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
