import { run } from '../local/cli.ts';
import { callRecorder } from './calls.ts';

/**
 * `npm start`, with what only the test bed needs:
 *
 * - PING_MUC_RECORD_CALLS: a file to which the functions' AWS calls are appended, each distinct one once.
 * - PING_MUC_AWS_RELAY: the URL of a relay between the functions and AWS. A request's target is its path:
 *   `/127.0.0.1:8000/`.
 */
const { PING_MUC_RECORD_CALLS: calls, PING_MUC_AWS_RELAY: relay } = process.env;
run({
  ...(calls === undefined ? {} : { recordCall: callRecorder(calls) }),
  ...(relay === undefined ? {} : { awsUrl: (url) => `${relay}/${new URL(url).host}` }),
});
