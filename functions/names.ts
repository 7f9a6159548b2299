/** Names that the functions share with the constructs that deploy them, so that both always use the same. */

/** The version of the contract with the XMPP server: `info.version` in protocol/openapi.yaml. */
export const CONTRACT_VERSION = '0.1.0';

/** Environment variables. */
export const ENV = {
  tableName: 'TABLE_NAME',
  secretArn: 'SECRET_ARN',
  stateMachineArn: 'STATE_MACHINE_ARN',
  /** The server's stanza API, without `/stanzas`; `{host}` stands for the XMPP host. */
  serverApiUrl: 'SERVER_API_URL',
  /** The XMPP hosts that may use the stack (`requireList`). Empty: every host that knows the secret. */
  xmppHosts: 'XMPP_HOSTS',
  /** The stack's name. It separates the metrics of several stacks in one account. */
  service: 'SERVICE',
} as const;

/**
 * How long a webhook may take. Each value follows from the one before. The contract (protocol/openapi.yaml) states the
 * time limits of both sides, and a test compares the contract, the deployment and the Prosody module.
 */
export const WEBHOOK_TIME = {
  /**
   * After this time the function answers 503 and stores no more. A call to AWS that is never answered fails after 15
   * seconds (adapters/aws.ts).
   */
  answerWithinSeconds: 20,
  /** Then Lambda kills the function. The difference is for the answer, and for a garbage collection. */
  functionTimeoutSeconds: 25,
  /** Then the HTTP API answers 503 itself. A cold start (a second or two) counts here, but not for the function. */
  gatewaySeconds: 30,
  /**
   * A sender waits at least as long. One that gives up earlier repeats a request that is being stored, and slows it.
   */
  senderWaitsSeconds: 35,
} as const;

/** The table's attributes that its definition names. */
export const TABLE_KEYS = { partition: 'pk', sort: 'sk', expires: 'expires' } as const;

/** Errors that the workflow distinguishes by name. */
export const ERRORS = {
  /** The server's API cannot be reached: the workflow tries again for hours. */
  serverUnreachable: 'ServerUnreachableError',
  /** The server's API asks us to wait: the workflow tries again for as long, without an alarm. */
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
  /** From a close to its report, by the sender's clock: how long it waited in the sender's queue. */
  ReportDelay: 'Milliseconds',
  /** Hosts whose last heartbeat is over 15 minutes old. With the next three only in what a heartbeat reports. */
  HostsSilent: 'Count',
  HostsReporting: 'Count',
  /** The longest queue of a host that is not silent, in events, and the age of the oldest event in their queues. */
  QueueLength: 'Count',
  QueueAge: 'Milliseconds',
  JoinsRecorded: 'Count',
  LeavesRecorded: 'Count',
  /** The sum of the next four. Each of these is emitted only if it is not zero, because each emitted metric costs. */
  ChecksStarted: 'Count',
  ChecksByClose: 'Count',
  ChecksByRoomError: 'Count',
  ChecksBySilence: 'Count',
  ChecksByOperator: 'Count',
  ChecksSuperseded: 'Count',
  ChecksDone: 'Count',
  /** 1 for each invocation that finds, or leaves, its check held by the limit of notices. */
  ChecksHeld: 'Count',
  /** Held checks that an operator released. */
  ChecksReleased: 'Count',
  /** Held checks that an operator dropped, or that were held for too long. */
  ChecksDropped: 'Count',
  /** 1 for each invocation that an operator's pause stops. */
  ChecksPaused: 'Count',
  PingsSent: 'Count',
  VerdictJoined: 'Count',
  /** Of the joined: there was a proof, so the room's answer was not needed. */
  JoinsProved: 'Count',
  VerdictLeft: 'Count',
  VerdictUndecided: 'Count',
  VerdictGone: 'Count',
  VerdictStale: 'Count',
  /** Users who are back in their room. */
  Reentries: 'Count',
  DryRunReentries: 'Count',
  /** Users who were to re-enter, and were notified instead: the re-entry was refused, or not answered. */
  ReentriesRefused: 'Count',
  /** Of the re-entered: the room's history did not contain everything that the user had missed. */
  HistoryGaps: 'Count',
  Notices: 'Count',
  DryRunNotices: 'Count',
  /** Users who were told within the time of the objective (docs/rules.md), and later. */
  NoticesInTime: 'Count',
  NoticesLate: 'Count',
  /** From the moment when a check was due to its first answer, once a check. A late report counts. */
  AnswerLateness: 'Milliseconds',
  /** From the close to the last notice or re-entry of an invocation. */
  CloseToNotice: 'Milliseconds',
  /** Invocations that ended in an error, by cause: the server, and everything else. */
  ServerUnreachable: 'Count',
  ServerBusy: 'Count',
  CheckFaults: 'Count',
} as const;

export type Metric = keyof typeof METRICS;
