/** How much an invocation of a check does at the same time, and how much of its time it keeps for the end. */

/** Stanzas that may be in flight to one remote host: pings and re-entries. */
const STANZAS_TO_HOST = 1000;
/** Re-entries of these. One request holds at most as many. */
export const REENTRIES_TO_HOST = 16;
/** Requests with pings in flight. */
export const REQUESTS_IN_FLIGHT = 4;
/**
 * Joins in a batch: the pings of one request. The server needs about 20 ms to send them. The notices and results of
 * re-entries are handled in as many at a time.
 */
export const BATCH_SIZE = (STANZAS_TO_HOST - REENTRIES_TO_HOST) / REQUESTS_IN_FLIGHT;
/** Users waiting for re-entry before reading stops. The next invocation reads the rest. */
export const MAX_WAITING_FOR_REENTRY = 4000;

/** Writes in flight for the results of one batch, and batches that are written at the same time. */
export const WRITES_IN_FLIGHT = 16;
export const WRITTEN_AT_A_TIME = 4;
/**
 * Batches whose results may wait to be written, because notices go first. With the batches in flight and the first join
 * these are about 6,000 joins.
 */
export const WAITING_TO_BE_WRITTEN = 20;

/**
 * Time kept for the end of an invocation, in milliseconds: for the notices of the last batches, and for all writes that
 * may be waiting. These are 6,000 results, and 4,000 of users who could not re-enter in time: 100 a second are enough.
 */
export const CLOSING_MS = 120_000;
