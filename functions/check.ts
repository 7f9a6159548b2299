import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import type { Context } from 'aws-lambda';
import { AWS_CLIENT, LONGEST_CALL_MS, PATIENT_AWS_CLIENT } from './adapters/aws.ts';
import { requireEnv } from './adapters/environment.ts';
import { Secrets } from './adapters/secrets.ts';
import { ServerBusyError, ServerUnreachableError, StanzaApi } from './adapters/server.ts';
import { Table } from './adapters/table.ts';
import { type Logger, describe, logger } from './adapters/telemetry.ts';
import { Trail } from './adapters/trail.ts';
import { runCheck } from './core/check.ts';
import type { CheckState, StoredJoin, Totals } from './core/check-state.ts';
import { ENV } from './names.ts';

const table = new Table(new DynamoDBClient(PATIENT_AWS_CLIENT), requireEnv(ENV.tableName));
const secrets = new Secrets(new SecretsManagerClient(AWS_CLIENT), requireEnv(ENV.secretArn));
const serverApiUrl = requireEnv(ENV.serverApiUrl);

/**
 * No row is deleted any more when so much of an invocation is left: what is under way then ends in time, with five
 * seconds to spare.
 */
const NO_MORE_DELETES_MS = LONGEST_CALL_MS + 5000;

/** Runs one invocation of a check: pings, decides, notifies, forgets. Its result is the workflow's next state. */
export async function handler(state: CheckState, context: Context): Promise<CheckState> {
  const log = logger({
    requestId: context.awsRequestId,
    checkId: state.id,
    host: state.host,
    remote: state.remote,
    cause: state.cause,
  });
  const began = Date.now();
  const remaining = (): number => context.getRemainingTimeInMillis();
  const api = new StanzaApi(serverApiUrl, secrets, remaining);
  const trail = new Trail();
  const say = (message: string, { user, room, nick, at }: StoredJoin): void =>
    log.info(message, { user, room, nick, at, answers: trail.of(at) });
  try {
    const result = await runCheck(state, {
      readJoins: (close, cursor) => table.readJoins(close, cursor, began / 1000),
      send: async (host, stanzas, timeout) => trail.keep(stanzas, await api.send(host, stanzas, timeout)),
      forget: (join) => {
        say('join ended', join);
        return forget(join, remaining, log);
      },
      markUndecided: (join, checkAt) => {
        say('join undecided', join);
        return table.markUndecided(join, checkAt);
      },
      markDecided: (join, checkAt) => {
        say('join decided', join);
        return table.markDecided(join, checkAt);
      },
      readClose: (close) => table.readClose(close),
      claimClose: (close, seen, oldest) => table.claimClose(close, seen, oldest),
      passOn: (close, oldest) => table.passOn(close, oldest),
      now: () => Date.now(),
      remaining,
    });
    report(log, state, result, began);
    return result;
  } catch (error) {
    const isBusy = error instanceof ServerBusyError;
    const isUnreachable = error instanceof ServerUnreachableError && !isBusy;
    log.measure(
      'check interrupted',
      { ServerUnreachable: isUnreachable ? 1 : 0, ServerBusy: isBusy ? 1 : 0 },
      { ...describe(error), level: 'ERROR' },
    );
    throw error;
  }
}

const OUTCOMES = {
  superseded: 'check superseded by a newer close',
  done: 'check done',
  page: 'check goes on',
  wait: 'check will ask again',
} as const;

/**
 * Deletes a row, if it can be done. To run the invocation again for its sake would ping all others again, and it can
 * wait: the next check of the host pings this join, too, and the server answers that there is no such join; without a
 * check, the row expires.
 */
async function forget(join: StoredJoin, remaining: () => number, log: Logger): Promise<void> {
  try {
    if (remaining() < NO_MORE_DELETES_MS) throw new Error('no time was left for it');
    await table.forget(join);
  } catch (error) {
    log.warn('row not deleted; the next check deletes it', {
      user: join.user,
      room: join.room,
      at: join.at,
      ...describe(error),
    });
  }
}

function report(log: Logger, before: CheckState, after: CheckState, began: number): void {
  if (after.superseded && after.totals.pinged === before.totals.pinged) {
    log.measure(OUTCOMES.superseded, { ChecksSuperseded: 1 });
    return;
  }
  // an execution of a release before this one counted less
  const more = (name: keyof Totals): number => after.totals[name] - ((before.totals as Partial<Totals>)[name] ?? 0);
  const [notified, reentered] = [more('notified'), more('reentered')];
  const isFirst = before.round === 0 && before.cursor === undefined;
  log.measure(
    OUTCOMES[after.superseded ? 'superseded' : after.next],
    {
      PingsSent: more('pinged'),
      VerdictJoined: more('joined'),
      JoinsProved: more('proved'),
      VerdictLeft: more('left'),
      VerdictUndecided: more('undecided'),
      VerdictGone: more('gone'),
      VerdictStale: more('stale'),
      ...(before.dryRun
        ? { DryRunNotices: notified, DryRunReentries: reentered }
        : { Notices: notified, Reentries: reentered }),
      ReentriesRefused: more('refused'),
      HistoryGaps: more('gaps'),
      ...(isFirst ? { CheckLateness: Math.max(0, began - before.due * 1000) } : {}),
      ...(notified > 0 ? { DueToTold: Math.max(0, Date.now() - before.due * 1000) } : {}),
      ...(after.superseded ? { ChecksSuperseded: 1 } : after.next === 'done' ? { ChecksDone: 1 } : {}),
    },
    {
      totals: after.totals,
      open: after.open,
      round: before.round,
      ...(after.room === undefined ? {} : { room: after.room }),
      ...(after.next === 'wait' ? { wait: after.wait } : {}),
    },
  );
}
