import { createHash } from 'node:crypto';
import { ExecutionAlreadyExists, StartExecutionCommand, type SFNClient } from '@aws-sdk/client-sfn';
import { firstState } from '../core/check-state.ts';
import type { CheckRequest } from '../core/events.ts';
import { reportedAfter, waitSeconds } from '../core/time.ts';

/**
 * The name of a close's check. It is the same for each report of the close, so a repeated report starts nothing.
 * 1 to 80 characters of 0-9 A-Z a-z - _ (StartExecution). It begins with the remote host, so operators can find it.
 */
export function executionName(close: CheckRequest): string {
  const of = [close.host, close.remote, ...(close.room === undefined ? [] : [close.room])];
  const digest = createHash('sha256').update(of.join('#')).digest('hex').slice(0, 12);
  return `${close.remote.replace(/[^0-9A-Za-z]+/g, '-').slice(0, 44)}-${close.at}-${digest}`;
}

/** Starts checks. */
export class Workflow {
  readonly #client: SFNClient;
  readonly #stateMachineArn: string;

  constructor(client: SFNClient, stateMachineArn: string) {
    this.#client = client;
    this.#stateMachineArn = stateMachineArn;
  }

  /**
   * Starts the check that follows a close.
   * @param sentSeconds the sender's own timestamp of the report, seconds since the epoch
   * @param nowSeconds our own clock
   * @returns false when an earlier report of the same close has started it
   */
  async start(close: CheckRequest, sentSeconds: number, nowSeconds: number): Promise<boolean> {
    const id = executionName(close);
    const wait = waitSeconds(close, sentSeconds);
    const state = firstState(close, id, wait, nowSeconds, reportedAfter(close, sentSeconds));
    try {
      await this.#client.send(
        new StartExecutionCommand({ stateMachineArn: this.#stateMachineArn, name: id, input: JSON.stringify(state) }),
      );
      return true;
    } catch (error) {
      if (error instanceof ExecutionAlreadyExists) return false;
      throw error;
    }
  }
}
