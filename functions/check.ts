import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import type { Context } from 'aws-lambda';
import { AnswerHistory } from './adapters/answer-history.ts';
import { AWS_CLIENT, LONGEST_CALL_MS, PATIENT_AWS_CLIENT } from './adapters/aws.ts';
import { closeIdleConnections } from './adapters/connections.ts';
import { Controls } from './adapters/controls.ts';
import { requireEnv } from './adapters/environment.ts';
import { type ServerAnswers, probeServer } from './adapters/probe.ts';
import { Secrets } from './adapters/secrets.ts';
import { ServerBusyError, ServerUnreachableError, StanzaApi } from './adapters/server.ts';
import { Table } from './adapters/table.ts';
import { type Logger, describe, logger } from './adapters/telemetry.ts';
import { runCheck } from './core/check.ts';
import type { CheckPorts, CheckState, StoredJoin, Totals } from './core/check-state.ts';
import { Punctuality } from './core/punctuality.ts';
import { ENV, type Metric } from './names.ts';

/**
 * Rows are no longer deleted when so little time of an invocation is left: deletes that are under way then end in time,
 * with five seconds to spare.
 */
const NO_MORE_DELETES_MS = LONGEST_CALL_MS + 5000;

/** What the check function needs of the world. */
export interface CheckHandlerPorts {
  readonly table: Omit<Table, 'record' | 'recordClose'>;
  readonly controls: Pick<Controls, 'readPause' | 'readHold' | 'countTold' | 'recordHold' | 'forgetHold'>;
  readonly secrets: Pick<Secrets, 'keys' | 'renewed'>;
  /** The server's stanza API, without `/stanzas`; `{host}` stands for the XMPP host. */
  readonly serverApiUrl: string;
}

const dynamoDb = new DynamoDBClient(PATIENT_AWS_CLIENT);
const tableName = requireEnv(ENV.tableName);

const world = {
  table: new Table(dynamoDb, tableName),
  controls: new Controls(dynamoDb, tableName),
  secrets: new Secrets(new SecretsManagerClient(AWS_CLIENT), requireEnv(ENV.secretArn)),
  serverApiUrl: requireEnv(ENV.serverApiUrl),
};

const check = checkHandler(world);

/** With it, `npm run doctor` asks whether this function reaches the server's API of an XMPP host. */
export interface ServerProbe {
  readonly probe: string;
}

export const handler = async (
  event: CheckState | ServerProbe,
  context: Context,
): Promise<CheckState | ServerAnswers> => {
  closeIdleConnections();
  if ('probe' in event) return probeServer(world.serverApiUrl, event.probe, await world.secrets.keys());
  return check(event, context);
};

type Handler = (state: CheckState, context: Context) => Promise<CheckState>;

/** Runs one invocation of a check: pings, decides, brings back or notifies. Returns the workflow's next state. */
export function checkHandler(ports: CheckHandlerPorts): Handler {
  return (state, context) => handle(state, context, ports);
}

async function handle(state: CheckState, context: Context, ports: CheckHandlerPorts): Promise<CheckState> {
  const log = logger({
    requestId: context.awsRequestId,
    checkId: state.id,
    host: state.host,
    remote: state.remote,
    cause: state.cause,
  });
  const punctuality = new Punctuality(state, Date.now());
  try {
    const result = await runCheck(
      state,
      checkPorts(ports, log, punctuality, () => context.getRemainingTimeInMillis()),
    );
    report(log, state, result, punctuality);
    return result;
  } catch (error) {
    reportInterruption(log, error);
    throw error;
  }
}

/** Each of the three is emitted, so that a sum of them has no gaps. */
function reportInterruption(log: Logger, error: unknown): void {
  const cause =
    error instanceof ServerBusyError ? 'busy' : error instanceof ServerUnreachableError ? 'unreachable' : 'fault';
  log.measure(
    'check interrupted',
    {
      ServerUnreachable: cause === 'unreachable' ? 1 : 0,
      ServerBusy: cause === 'busy' ? 1 : 0,
      CheckFaults: cause === 'fault' ? 1 : 0,
    },
    { ...describe(error), level: 'ERROR' },
  );
}

/** The world of one invocation. Each write of a join is logged with the answers that led to it. */
function checkPorts(
  { table, controls, secrets, serverApiUrl }: CheckHandlerPorts,
  log: Logger,
  punctuality: Punctuality,
  remaining: () => number,
): CheckPorts {
  const beganSeconds = Date.now() / 1000;
  const api = new StanzaApi(serverApiUrl, secrets, remaining);
  const history = new AnswerHistory();
  const logJoin = (message: string, { user, room, nick, at }: StoredJoin): void =>
    log.info(message, { user, room, nick, at, answers: history.of(at) });
  return {
    readJoins: (close, cursor) => table.readJoins(close, cursor, beganSeconds),
    send: async (host, stanzas, timeout) => {
      const answers = await api.send(host, stanzas, timeout);
      punctuality.answered(Date.now());
      history.add(stanzas, answers);
      return answers;
    },
    deleteJoin: (join) => {
      logJoin('join ended', join);
      return deleteIfPossible(table, join, remaining, log);
    },
    markUndecided: (join, checkAt) => {
      logJoin('join undecided', join);
      return table.markUndecided(join, checkAt);
    },
    markDecided: (join, checkAt) => {
      logJoin('join decided', join);
      return table.markDecided(join, checkAt);
    },
    readClose: (close) => table.readClose(close),
    claimClose: (close, seen, oldest) => table.claimClose(close, seen, oldest),
    passOn: (close, oldest) => table.passOn(close, oldest),
    told: (users) => punctuality.told(users, Date.now()),
    isPaused: async () => (await controls.readPause(Date.now() / 1000)) !== undefined,
    readHold: (id) => controls.readHold(id),
    countTold: (id, count) => controls.countTold(id, count, Date.now() / 1000),
    recordHold: (state) => controls.recordHold(state, Date.now() / 1000),
    forgetHold: (id) => controls.forgetHold(id),
    now: () => Date.now(),
    remaining,
  };
}

/**
 * Deletes a row. If that fails, the row stays: to run the invocation again for it would ping all others again. The next
 * check of the host pings this join, too, and the server answers that there is no such join. Without a check, the row
 * expires.
 */
async function deleteIfPossible(
  table: Pick<Table, 'deleteJoin'>,
  join: StoredJoin,
  remaining: () => number,
  log: Logger,
): Promise<void> {
  try {
    if (remaining() < NO_MORE_DELETES_MS) throw new Error('no time was left for it');
    await table.deleteJoin(join);
  } catch (error) {
    log.warn('row not deleted; the next check deletes it', {
      user: join.user,
      room: join.room,
      at: join.at,
      ...describe(error),
    });
  }
}

const MESSAGES = {
  superseded: 'check superseded by a newer close',
  paused: 'check paused by an operator',
  held: 'check held: it would notify more users than ping_muc_notice_limit',
  dropped: 'check dropped',
  done: 'check done',
  page: 'check continues in the next invocation',
  wait: 'check will ask again',
} as const;

function outcomeOf(state: CheckState): keyof typeof MESSAGES {
  if (state.superseded) return 'superseded';
  if (state.paused) return 'paused';
  if (state.held) return 'held';
  return state.dropped ? 'dropped' : state.next;
}

/** The metrics of how a check stands: each only where it is 1, because each emitted metric costs. */
function standing(before: CheckState, after: CheckState): Partial<Record<Metric, number>> {
  const outcome = outcomeOf(after);
  const isReleased = before.held && !after.held && outcome !== 'dropped' && outcome !== 'superseded';
  return {
    ...(after.paused ? { ChecksPaused: 1 } : {}),
    ...(after.held ? { ChecksHeld: 1 } : {}),
    ...(isReleased ? { ChecksReleased: 1 } : {}),
    ...(outcome === 'dropped' ? { ChecksDropped: 1 } : {}),
    ...(outcome === 'superseded' ? { ChecksSuperseded: 1 } : {}),
    ...(outcome === 'done' ? { ChecksDone: 1 } : {}),
  };
}

/** The check has asked nobody in this invocation, because it is superseded, paused, held or dropped. */
function hasAskedNobody(before: CheckState, after: CheckState): boolean {
  const isAtRest = after.superseded ?? after.paused ?? after.held ?? after.dropped ?? false;
  return isAtRest && after.totals.pinged === before.totals.pinged;
}

function report(log: Logger, before: CheckState, after: CheckState, punctuality: Punctuality): void {
  const message = MESSAGES[outcomeOf(after)];
  if (after.expired)
    log.error('check dropped: it was held for a day, and no operator has decided', { held: before.stoppedAt });
  if (hasAskedNobody(before, after)) {
    log.measure(message, standing(before, after), { totals: after.totals });
    return;
  }
  // the state may come from an earlier release, which counted less
  const more = (name: keyof Totals): number => after.totals[name] - ((before.totals as Partial<Totals>)[name] ?? 0);
  const [notified, reentered] = [more('notified'), more('reentered')];
  const { answerLateness, closeToNotice, inTime, late } = punctuality;
  const isFirstAnswer = before.totals.pinged === 0 && answerLateness !== undefined;
  log.measure(
    message,
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
      ...(isFirstAnswer ? { AnswerLateness: answerLateness } : {}),
      // both or none, so that a share of their sum has no gaps
      ...(closeToNotice === undefined
        ? {}
        : { CloseToNotice: closeToNotice, NoticesInTime: inTime, NoticesLate: late }),
      ...standing(before, after),
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
