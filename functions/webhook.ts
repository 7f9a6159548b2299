import { isUtf8 } from 'node:buffer';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { SFNClient } from '@aws-sdk/client-sfn';
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import type { APIGatewayProxyEventV2, APIGatewayProxyStructuredResultV2, Context } from 'aws-lambda';
import { AWS_CLIENT } from './adapters/aws.ts';
import { closeIdleConnections } from './adapters/connections.ts';
import { requireEnv, requireList } from './adapters/environment.ts';
import { HostWatch } from './adapters/host-watch.ts';
import { Hosts } from './adapters/hosts.ts';
import { RowRefusedError } from './adapters/items.ts';
import { Secrets } from './adapters/secrets.ts';
import { Table } from './adapters/table.ts';
import { type Logger, describe, logger } from './adapters/telemetry.ts';
import { Workflow } from './adapters/workflow.ts';
import { inParallel } from './core/concurrency.ts';
import {
  type CheckRequest,
  MAX_BODY_BYTES,
  type Rejected,
  type Webhook,
  WebhookError,
  readWebhook,
} from './core/events.ts';
import { SignatureError, verify } from './core/signature.ts';
import { CONTRACT_VERSION, ENV, WEBHOOK_TIME } from './names.ts';

/** Table writes in flight for one request. */
const WRITES_IN_FLIGHT = 32;
/** After how many seconds a sender whose events could not be stored is asked to try again. */
const RETRY_AFTER_SECONDS = 5;
/** Events of one kind that a log line names. */
const MAX_LOGGED = 10;
/** The time that is left to the function when it gives up. */
const SPARE_MS = (WEBHOOK_TIME.functionTimeoutSeconds - WEBHOOK_TIME.answerWithinSeconds) * 1000;

/** What the webhook function needs from the world. */
export interface WebhookPorts {
  readonly table: Pick<Table, 'record' | 'recordClose'>;
  readonly watch: Pick<HostWatch, 'hear'>;
  readonly workflow: Pick<Workflow, 'start'>;
  readonly secrets: Pick<Secrets, 'keys' | 'renewed'>;
  /** The XMPP hosts that may report. Empty: every host that knows the secret. */
  readonly hosts: ReadonlySet<string>;
}

const dynamoDb = new DynamoDBClient(AWS_CLIENT);
const tableName = requireEnv(ENV.tableName);
const hosts = new Set(requireList(ENV.xmppHosts));

const webhook = webhookHandler({
  table: new Table(dynamoDb, tableName),
  watch: new HostWatch(new Hosts(dynamoDb, tableName), hosts),
  workflow: new Workflow(new SFNClient(AWS_CLIENT), requireEnv(ENV.stateMachineArn)),
  secrets: new Secrets(new SecretsManagerClient(AWS_CLIENT), requireEnv(ENV.secretArn)),
  hosts,
});

export const handler: Handler = (event, context) => {
  closeIdleConnections();
  return webhook(event, context);
};

type Handler = (event: APIGatewayProxyEventV2, context: Context) => Promise<APIGatewayProxyStructuredResultV2>;

/** Verifies webhooks, records their joins and leaves, and starts the checks of their closes. */
export function webhookHandler(ports: WebhookPorts): Handler {
  return (event, context) => handle(event, context, ports);
}

async function handle(
  event: APIGatewayProxyEventV2,
  context: Context,
  ports: WebhookPorts,
): Promise<APIGatewayProxyStructuredResultV2> {
  const log = logger({ requestId: context.awsRequestId, webhookId: event.headers['webhook-id']?.slice(0, 255) });
  const [text, encoding] = [event.body ?? '', event.isBase64Encoded ? 'base64' : 'utf8'] as const;
  const bytes = Buffer.byteLength(text, encoding); // before anything else, as HTTP APIs cannot refuse a large body
  if (bytes > MAX_BODY_BYTES) return refuse(log, 413, `the body may take ${MAX_BODY_BYTES} bytes, got ${bytes}`);
  const body = Buffer.from(text, encoding);
  try {
    return await inTime(context.getRemainingTimeInMillis() - SPARE_MS, async (over) => {
      const { timestamp } = await authenticate(event.headers, body, ports.secrets);
      // decoding would replace wrong bytes, and so change the names
      if (!isUtf8(body)) return refuse(log, 400, 'the body must be JSON in UTF-8');
      const webhook = readWebhook(body.toString(), timestamp);
      if (ports.hosts.size > 0 && !ports.hosts.has(webhook.host))
        return refuse(log, 400, `host: ${webhook.host} is none of the hosts that this stack serves`);
      const refused = await store(webhook, timestamp, log, ports, over);
      if (!over.aborted) await ports.watch.hear(webhook, timestamp, Date.now() / 1000, log);
      const rejected = [...webhook.rejected, ...refused].sort((one, other) => one.index - other.index);
      const accepted = webhook.accepted - refused.length;
      return answer(200, 'application/json', { accepted, rejected, version: CONTRACT_VERSION });
    });
  } catch (error) {
    if (error instanceof SignatureError) return refuse(log, 401, error.message);
    if (error instanceof WebhookError) return refuse(log, 400, error.message);
    log.error('webhook not stored; the sender is asked to send it again', describe(error));
    return problem(503, 'the events could not be stored; send them again', {
      'retry-after': String(RETRY_AFTER_SECONDS),
    });
  }
}

/** The time for the answer is over. */
class OutOfTimeError extends Error {
  override readonly name = 'OutOfTimeError';
}

/**
 * Ends in time, even if its work does not. What is under way may end after the answer, which does no harm.
 * @param work must begin nothing more after the signal
 * @throws OutOfTimeError
 */
async function inTime<Result>(milliseconds: number, work: (over: AbortSignal) => Promise<Result>): Promise<Result> {
  const controller = new AbortController();
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    reject(new OutOfTimeError(`not all was stored within ${Math.round(milliseconds / 1000)} s`));
    controller.abort();
  }, milliseconds);
  try {
    return await Promise.race([work(controller.signal), promise]);
  } finally {
    clearTimeout(timer);
  }
}

async function authenticate(
  headers: APIGatewayProxyEventV2['headers'],
  body: Buffer,
  secrets: WebhookPorts['secrets'],
): Promise<{ timestamp: number }> {
  const now = Date.now() / 1000;
  try {
    return verify(await secrets.keys(), headers, body, now);
  } catch (error) {
    if (!(error instanceof SignatureError) || error.reason !== 'mismatch') throw error;
    const renewed = await secrets.renewed(); // the secret may have been rotated a moment ago
    if (renewed === undefined) throw error;
    return verify(renewed, headers, body, now);
  }
}

/** What was stored of a webhook. */
interface Stored {
  /** Events that the table does not accept. */
  readonly refused: Rejected[];
  joined: number;
  left: number;
  /** Checks started, by cause. */
  readonly started: Record<CheckRequest['cause'], number>;
}

/**
 * Stores joins before closes, so that a check never misses a join that came with its close.
 * @param over after this signal, nothing more begins
 * @returns the events that the table does not accept
 */
async function store(
  webhook: Webhook,
  sentSeconds: number,
  log: Logger,
  { table, workflow }: WebhookPorts,
  over: AbortSignal,
): Promise<readonly Rejected[]> {
  const now = Date.now() / 1000;
  const stored: Stored = {
    refused: [],
    joined: 0,
    left: 0,
    started: { close: 0, 'room-error': 0, silence: 0, operator: 0 },
  };
  const unlessRefused = (index: number, write: () => Promise<void>) => async (): Promise<void> => {
    if (over.aborted) return;
    try {
      await write();
    } catch (error) {
      if (!(error instanceof RowRefusedError)) throw error;
      stored.refused.push({ index, error: `the table does not take it: ${error.message}` });
    }
  };
  await inParallel(
    webhook.joins.map(({ index, event }) =>
      unlessRefused(index, async () => {
        if (!(await table.record(event, now))) return;
        if (event.type === 'muc.joined') stored.joined += 1;
        else stored.left += 1;
      }),
    ),
    WRITES_IN_FLIGHT,
  );
  await inParallel(
    webhook.closes.map(({ index, event: close }) =>
      unlessRefused(index, async () => {
        await table.recordClose(close, now);
        if (await workflow.start(close, sentSeconds, now)) stored.started[close.cause] += 1;
      }),
    ),
    WRITES_IN_FLIGHT,
  );
  if (over.aborted) return []; // the request has been answered
  report(log, webhook, sentSeconds, stored);
  return stored.refused;
}

/** From the oldest of the closes to their report, in milliseconds: how long they waited in the sender's queue. */
function reportDelay(closes: readonly CheckRequest[], sentSeconds: number): number {
  return Math.max(0, sentSeconds * 1000 - Math.min(...closes.map(({ at }) => at / 1000)));
}

function report(log: Logger, webhook: Webhook, sentSeconds: number, stored: Stored): void {
  const { refused, joined, left, started } = stored;
  const rejected = [...webhook.rejected, ...refused];
  const unstored = new Set(refused.map(({ index }) => index));
  const closes = webhook.closes.filter(({ index }) => !unstored.has(index)).map(({ event }) => event);
  const ofStreams = closes.filter(({ cause }) => cause === 'close');
  const closed = ofStreams.map(({ remote }) => remote);
  const requested = closes
    .filter(({ cause }) => cause !== 'close')
    .map(({ remote, room, cause }) => ({ remote, room, cause }));
  log.measure(
    'webhook stored',
    {
      WebhooksAccepted: 1,
      EventsRejected: rejected.length,
      JoinsRecorded: joined,
      LeavesRecorded: left,
      ChecksStarted: Object.values(started).reduce((sum, count) => sum + count),
      ...(started.close > 0 ? { ChecksByClose: started.close } : {}),
      ...(started['room-error'] > 0 ? { ChecksByRoomError: started['room-error'] } : {}),
      ...(started.silence > 0 ? { ChecksBySilence: started.silence } : {}),
      ...(started.operator > 0 ? { ChecksByOperator: started.operator } : {}),
      ...(ofStreams.length > 0 ? { ReportDelay: reportDelay(ofStreams, sentSeconds) } : {}),
    },
    {
      host: webhook.host,
      events: webhook.accepted - refused.length,
      ...(rejected.length > 0 ? { rejected: rejected.slice(0, MAX_LOGGED) } : {}),
      ...(closed.length > 0 ? { closed: closed.slice(0, MAX_LOGGED) } : {}),
      ...(requested.length > 0 ? { requested: requested.slice(0, MAX_LOGGED) } : {}),
    },
  );
}

function refuse(log: Logger, status: 400 | 401 | 413, detail: string): APIGatewayProxyStructuredResultV2 {
  log.measure('webhook refused', status === 401 ? { WebhooksUnauthorized: 1 } : { WebhooksMalformed: 1 }, {
    status,
    detail,
  });
  return problem(status, detail);
}

const TITLES = {
  400: 'Bad Request',
  401: 'Unauthorized',
  413: 'Content Too Large',
  503: 'Service Unavailable',
} as const;

/** RFC 9457. */
function problem(
  status: keyof typeof TITLES,
  detail: string,
  headers: Record<string, string> = {},
): APIGatewayProxyStructuredResultV2 {
  return answer(
    status,
    'application/problem+json',
    { type: 'about:blank', title: TITLES[status], status, detail },
    headers,
  );
}

function answer(
  status: number,
  type: string,
  body: object,
  headers: Record<string, string> = {},
): APIGatewayProxyStructuredResultV2 {
  return { statusCode: status, headers: { 'content-type': type, ...headers }, body: JSON.stringify(body) };
}
