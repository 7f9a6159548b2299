import { RetentionDays } from 'aws-cdk-lib/aws-logs';
import type { Node } from 'constructs';
import * as v from 'valibot';
import { MODULE_DEFAULTS } from './prosody-settings.ts';

/** The operator's settings: CDK context, in `cdk.json` or as `-c key=value`. A quantity has its unit in its name. */
export interface Config {
  /** The server's stanza API, without `/stanzas`; `{host}` stands for the XMPP host. */
  readonly serverApiUrl: string;
  /** The XMPP hosts that may use the stack; empty: any host that has the secret. */
  readonly xmppHosts: readonly string[];
  /** `ping_muc_delay`, `ping_muc_timeout` and `ping_muc_patience` in the settings that are printed for Prosody. */
  readonly defaultDelaySeconds: number;
  readonly defaultTimeoutSeconds: number;
  readonly defaultPatienceSeconds: number;
  /** The address that is notified of alarms; undefined: none, until somebody subscribes to the topic. */
  readonly alarmEmail: string | undefined;
  /** Existing SNS topics that are notified, too: each of the alarms of one severity. */
  readonly alarmTopicArns: AlarmTopicArns;
  /** The page that alarms link to. An alarm's name is the anchor of its section. */
  readonly runbookUrl: string;
  readonly logRetentionDays: RetentionDays;
  /** What happens to the table, the secret and the logs when the stack is deleted. */
  readonly removalPolicy: 'retain' | 'destroy';
  /** The network in which the check function runs, for a server without a public address; undefined: no VPC. */
  readonly network: Network | undefined;
  /** Reserved concurrency of the webhook function; 0 stops it; undefined: none is reserved. */
  readonly webhookConcurrency: number | undefined;
  /** Reserved concurrency of the check function, likewise. */
  readonly checkConcurrency: number | undefined;
  readonly stackName: string;
  readonly tags: Readonly<Record<string, string>>;
}

export interface AlarmTopicArns {
  readonly high?: string | undefined;
  readonly low?: string | undefined;
}

export interface Network {
  readonly vpcId: string;
  /** These must reach both the XMPP server and AWS (DynamoDB, Secrets Manager). */
  readonly subnetIds: readonly string[];
}

/** Its message is one line that names the key, the value that it got, and an example. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

/** The retention periods that CloudWatch Logs accepts, except for unlimited retention. */
const RETENTION_DAYS = Object.values(RetentionDays).filter(
  (days) => typeof days === 'number' && days <= RetentionDays.TEN_YEARS,
);

/** A list: an array in `cdk.json`, or text separated by commas. */
const list = (matches: RegExp, message: string): v.GenericSchema<unknown, readonly string[]> =>
  v.pipe(
    v.optional(
      v.union(
        [
          v.pipe(
            v.string(),
            v.transform((text) => text.split(',')),
          ),
          v.array(v.string()),
        ],
        message,
      ),
      [],
    ),
    v.transform((items) => items.map((item) => item.trim()).filter((item) => item !== '')),
    v.check((items) => items.every((item) => matches.test(item)), message),
  );

/** A whole number: a number in `cdk.json`, or text. */
const whole = (minimum: number, maximum: number, unit: string): v.GenericSchema<unknown, number> => {
  const message = `must be a whole number of ${unit} from ${minimum} to ${maximum}`;
  return v.pipe(
    v.union([v.number(), v.pipe(v.string(), v.regex(/^\d{1,9}$/), v.transform(Number))], message),
    v.integer(message),
    v.minValue(minimum, message),
    v.maxValue(maximum, message),
  );
};

/** Reserved concurrency of one function: a number in `cdk.json`, or text. To Lambda it is a limit and a reservation. */
const concurrency = v.union(
  [
    v.pipe(
      v.literal('unreserved'),
      v.transform(() => undefined),
    ),
    whole(0, 1000, 'invocations at a time'),
  ],
  'must be a whole number of invocations at a time from 0 to 1000, or unreserved',
);

/**
 * Checks at a time. An account runs 1,000 invocations at a time (a new account 10), so 900 are left for webhooks,
 * however many checks are due. After an outage that cut off 500 hosts, each of which does not answer for a minute, the
 * last check begins five minutes late.
 */
const CHECK_CONCURRENCY = 100;

/** The runbook of this version. */
const RUNBOOK_URL = 'https://github.com/ping-muc/ping-muc/blob/main/docs/runbook.md';

const RUNBOOK_MESSAGE = 'must be an https URL of a page, without an anchor, of at most 500 characters';

const TOPICS_MESSAGE = 'must be ARNs of SNS topics by severity, high and low or one of them';
const topicArn = v.optional(
  v.pipe(
    v.string(TOPICS_MESSAGE),
    v.regex(/^arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}$/, TOPICS_MESSAGE),
  ),
);

/** Topics by severity: an object in `cdk.json`, or text like `high=ARN,low=ARN`. */
const topicArns = v.optional(
  v.pipe(
    v.union([
      v.pipe(
        v.string(),
        v.transform((text): unknown => Object.fromEntries(text.split(',').map((pair) => pair.trim().split('=', 2)))),
      ),
      v.unknown(),
    ]),
    v.strictObject({ high: topicArn, low: topicArn }, TOPICS_MESSAGE),
    v.check(({ high, low }) => high !== undefined || low !== undefined, TOPICS_MESSAGE),
  ),
  undefined,
);

const KEYS = {
  serverApiUrl: {
    example: 'https://xmpp.example.net:5281/ping_muc',
    schema: v.pipe(
      v.string('must be set'),
      v.check(isServerUrl, 'must be an https URL without a query (http only to loopback)'),
    ),
  },
  xmppHosts: {
    example: 'example.net,example.org',
    schema: v.pipe(
      list(/^[A-Za-z0-9.:[\]-]+$/, 'must be host names separated by commas'),
      v.transform((hosts) => hosts.map((host) => host.toLowerCase())),
    ),
  },
  // the bounds are those of the contract (protocol/)
  defaultDelaySeconds: { example: '60', schema: v.optional(whole(1, 86_400, 'seconds'), MODULE_DEFAULTS.delaySeconds) },
  defaultTimeoutSeconds: {
    example: '60',
    schema: v.optional(whole(1, 300, 'seconds'), MODULE_DEFAULTS.timeoutSeconds),
  },
  defaultPatienceSeconds: {
    example: '300',
    schema: v.optional(whole(0, 86_400, 'seconds'), MODULE_DEFAULTS.patienceSeconds),
  },
  alarmEmail: {
    example: 'operator@example.net',
    schema: v.optional(
      v.pipe(v.string('must be an e-mail address'), v.regex(/^[^\s@]+@[^\s@]+$/, 'must be an e-mail address')),
    ),
  },
  alarmTopicArns: {
    example: 'high=arn:aws:sns:eu-central-1:123456789012:pager,low=arn:aws:sns:eu-central-1:123456789012:tickets',
    schema: topicArns,
  },
  runbookUrl: {
    example: 'https://wiki.example.net/ping-muc',
    schema: v.optional(v.pipe(v.string(RUNBOOK_MESSAGE), v.check(isPageUrl, RUNBOOK_MESSAGE)), RUNBOOK_URL),
  },
  logRetentionDays: {
    example: '30',
    schema: v.pipe(
      v.optional(whole(1, RetentionDays.TEN_YEARS, 'days'), RetentionDays.ONE_MONTH),
      v.enum(RetentionDays, `must be a number of days that CloudWatch Logs accepts: ${RETENTION_DAYS.join(', ')}`),
    ),
  },
  removalPolicy: {
    example: 'retain',
    schema: v.optional(v.picklist(['retain', 'destroy'], 'must be retain or destroy'), 'retain'),
  },
  vpcId: {
    example: 'vpc-0123456789abcdef0',
    schema: v.optional(
      v.pipe(v.string('must be the id of a VPC'), v.regex(/^vpc-[0-9a-f]{8,17}$/, 'must be the id of a VPC')),
    ),
  },
  subnetIds: {
    example: 'subnet-0123456789abcdef0,subnet-0123456789abcdef1',
    schema: list(/^subnet-[0-9a-f]{8,17}$/, 'must be the ids of subnets separated by commas'),
  },
  webhookConcurrency: { example: '20', schema: v.optional(concurrency) },
  checkConcurrency: { example: '100', schema: v.optional(concurrency, CHECK_CONCURRENCY) },
  stackName: {
    example: 'PingMuc',
    schema: v.pipe(
      v.optional(v.string('must be a name'), 'PingMuc'),
      v.regex(/^[A-Za-z][A-Za-z0-9-]{0,63}$/, 'must be 1 to 64 letters, digits and hyphens'),
    ),
  },
  tags: {
    example: 'team=xmpp,stage=production',
    schema: v.pipe(
      list(/^[^=,]{1,128}=[^,]{0,256}$/, 'must be name=value pairs separated by commas'),
      v.transform((pairs) => Object.fromEntries(pairs.map((pair) => pair.split(/=(.*)/s, 2) as [string, string]))),
    ),
  },
} as const;

type Key = keyof typeof KEYS;

function isServerUrl(text: string): boolean {
  const url = URL.parse(text.replaceAll('{host}', 'host.example'));
  if (url === null || url.search !== '' || url.hash !== '' || url.username !== '') return false;
  const isLoopback = /^(localhost|127(\.\d+){3}|\[::1\])$/.test(url.hostname);
  return url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback);
}

/** A page to which an anchor can be added. CloudWatch takes 1,024 characters for the description that holds it. */
function isPageUrl(text: string): boolean {
  return URL.parse(text)?.protocol === 'https:' && !text.includes('#') && !/\s/.test(text) && text.length <= 500;
}

function refuse(key: Key, wrong: string, value: unknown, example: string = KEYS[key].example): never {
  const got = value === undefined ? 'nothing' : JSON.stringify(value);
  throw new ConfigError(`${key} ${wrong}; got ${got}; for example -c ${key}=${example}`);
}

/** Reads the configuration from the app's context. @throws ConfigError */
export function readConfig(node: Node): Config {
  const context = node.getAllContext() as Record<string, unknown>;
  refuseUnknown(context);
  const read = <Name extends Key>(key: Name): v.InferOutput<(typeof KEYS)[Name]['schema']> => {
    const parsed = v.safeParse(KEYS[key].schema, context[key]);
    return parsed.success ? parsed.output : refuse(key, parsed.issues[0].message, context[key]);
  };
  const [vpcId, subnetIds] = [read('vpcId'), read('subnetIds')];
  if (vpcId === undefined && subnetIds.length > 0) refuse('vpcId', 'must be set together with subnetIds', vpcId);
  if (vpcId !== undefined && subnetIds.length === 0)
    refuse('subnetIds', 'must be set together with vpcId', context['subnetIds']);
  const [serverApiUrl, xmppHosts] = [read('serverApiUrl'), read('xmppHosts')];
  if (new Set(xmppHosts).size > 1 && !serverApiUrl.includes('{host}')) {
    // Prosody passes all requests under one HTTP host name to one host's module: users of other hosts are not watched
    const why = `must contain {host}, so that each of the ${xmppHosts.length} xmppHosts has its own host name`;
    refuse('serverApiUrl', why, serverApiUrl, 'https://{host}:5281/ping_muc');
  }
  return {
    serverApiUrl,
    xmppHosts,
    defaultDelaySeconds: read('defaultDelaySeconds'),
    defaultTimeoutSeconds: read('defaultTimeoutSeconds'),
    defaultPatienceSeconds: read('defaultPatienceSeconds'),
    alarmEmail: read('alarmEmail'),
    alarmTopicArns: read('alarmTopicArns') ?? {},
    runbookUrl: read('runbookUrl'),
    logRetentionDays: read('logRetentionDays'),
    removalPolicy: read('removalPolicy'),
    network: vpcId === undefined ? undefined : { vpcId, subnetIds },
    webhookConcurrency: read('webhookConcurrency'),
    checkConcurrency: read('checkConcurrency'),
    stackName: read('stackName'),
    tags: read('tags'),
  };
}

/**
 * Refuses misspelled keys, which would otherwise be ignored. A key without a colon, slash or hyphen is meant for us:
 * the CDK's own keys contain one of them.
 */
function refuseUnknown(context: Readonly<Record<string, unknown>>): void {
  for (const [key, value] of Object.entries(context)) {
    if (key in KEYS || !/^\w+$/.test(key)) continue;
    if (key === 'reservedConcurrency') {
      const both = `-c webhookConcurrency=${String(value)} -c checkConcurrency=${String(value)}`;
      throw new ConfigError(
        `reservedConcurrency was replaced by a key for each function; got ${JSON.stringify(value)}; use ${both}`,
      );
    }
    throw new ConfigError(
      `${key} is not a key of this stack; got ${JSON.stringify(value)}; the keys are ${Object.keys(KEYS).join(', ')}`,
    );
  }
}
