/** Names that the functions share with the constructs that deploy them, so that neither can drift from the other. */

/** Environment variables. */
export const ENV = {
  tableName: 'TABLE_NAME',
  secretArn: 'SECRET_ARN',
  stateMachineArn: 'STATE_MACHINE_ARN',
  /** The server's stanza API, without `/stanzas`; `{host}` stands for the XMPP host. */
  serverApiUrl: 'SERVER_API_URL',
  /** The XMPP hosts that may use the stack, separated by commas; empty: any that knows the secret. */
  xmppHosts: 'XMPP_HOSTS',
  /** The stack's name: it keeps the metrics of several stacks in one account apart. */
  service: 'SERVICE',
} as const;

/**
 * How long a webhook may take: each follows from the one before. The contract states what the two sides owe each other
 * (protocol/openapi.yaml), and a test holds the two, the deployment and the module of Prosody against each other.
 */
export const WEBHOOK_TIME = {
  /**
   * Then the function answers 503 and stores no more. A call to AWS that is never answered fails after 15
   * (adapters/aws.ts).
   */
  answerWithinSeconds: 20,
  /** Then Lambda kills it: what is left is for the answer, and for a collection of garbage in between. */
  functionTimeoutSeconds: 25,
  /** Then the HTTP API answers 503 by itself. A cold start, a second or two, counts here, and not for the function. */
  gatewaySeconds: 30,
  /**
   * The least that a sender waits: whoever gives up earlier sends again what is just being stored, and slows it down.
   */
  senderWaitsSeconds: 35,
} as const;

/** The table's attributes that its definition names. */
export const TABLE_KEYS = { partition: 'pk', sort: 'sk', expires: 'expires' } as const;

/** Errors that the workflow tells apart by name. */
export const ERRORS = {
  /** The server's API can't be reached: worth hours of patience. */
  serverUnreachable: 'ServerUnreachableError',
  /** The server's API asks us to wait: worth the same patience, and no alarm. */
  serverBusy: 'ServerBusyError',
} as const;

export const METRIC_NAMESPACE = 'PingMuc';
/** The one dimension of every metric; its value is the stack's name. */
export const METRIC_DIMENSION = 'service';

/** Metrics by name, each with its CloudWatch unit. None has a JID, a room or a host as a dimension. */
export const METRICS = {
  WebhooksAccepted: 'Count',
  WebhooksUnauthorized: 'Count',
  WebhooksMalformed: 'Count',
  EventsRejected: 'Count',
  JoinsRecorded: 'Count',
  LeavesRecorded: 'Count',
  /** The sum of the four that follow, each of which is emitted only where there is one: a metric is paid for while it is. */
  ChecksStarted: 'Count',
  ChecksByClose: 'Count',
  ChecksByRoomError: 'Count',
  ChecksBySilence: 'Count',
  ChecksByOperator: 'Count',
  ChecksSuperseded: 'Count',
  ChecksDone: 'Count',
  PingsSent: 'Count',
  VerdictJoined: 'Count',
  /** Of the joined: proved by what the room had sent, so that its answer was not needed. */
  JoinsProved: 'Count',
  VerdictLeft: 'Count',
  VerdictUndecided: 'Count',
  VerdictGone: 'Count',
  VerdictStale: 'Count',
  /** Users who are back in their room, without having noticed. */
  Reentries: 'Count',
  DryRunReentries: 'Count',
  /** Users who were to re-enter, and were notified instead: the re-entry was refused, or not answered. */
  ReentriesRefused: 'Count',
  /** Of the re-entered: the room's history did not bring all that they had missed. */
  HistoryGaps: 'Count',
  Notices: 'Count',
  DryRunNotices: 'Count',
  /** From the moment a check is due to its first ping. */
  CheckLateness: 'Milliseconds',
  /** From the moment a check is due to the end of an invocation that notified a user. */
  DueToNotified: 'Milliseconds',
  ServerUnreachable: 'Count',
  ServerBusy: 'Count',
} as const;

export type Metric = keyof typeof METRICS;
