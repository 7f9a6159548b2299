/**
 * How the SDK clients call: a connection that does not open within two seconds, or an answer that does not come within
 * five, is tried again by the SDK, three times in all.
 */
export const AWS_CLIENT = { maxAttempts: 3, requestHandler: { connectionTimeout: 2000, requestTimeout: 5000 } } as const;
