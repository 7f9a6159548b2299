import { RetentionDays } from 'aws-cdk-lib/aws-logs';
import * as v from 'valibot';
import { RELEASE_MINUTES, type ReleaseMinutes } from './gradual-release.ts';
import { MODULE_DEFAULTS } from './server-settings.ts';

/** The retention periods that CloudWatch Logs accepts, except for unlimited retention. */
const RETENTION_DAYS = Object.values(RetentionDays).filter(
  (days) => typeof days === 'number' && days <= RetentionDays.TEN_YEARS,
);

/** A list: an array, or text separated by commas. */
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

/** A whole number: a number, or text. */
const whole = (minimum: number, maximum: number, unit: string): v.GenericSchema<unknown, number> => {
  const message = `must be a whole number of ${unit} from ${minimum} to ${maximum}`;
  return v.pipe(
    v.union([v.number(), v.pipe(v.string(), v.regex(/^\d{1,9}$/), v.transform(Number))], message),
    v.integer(message),
    v.minValue(minimum, message),
    v.maxValue(maximum, message),
  );
};

/** Reserved concurrency of one function: a number, or text. To Lambda it is a limit and a reservation. */
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

/** The list is also an argument of a command when the function is bundled, which Linux limits to 128 KB. */
const MAX_HOSTS = 1000;
const MAX_HOSTS_LENGTH = 64_000;
const HOSTS_MESSAGE = `must be at most ${MAX_HOSTS} host names, of ${MAX_HOSTS_LENGTH} characters together`;

const RELEASES = Object.keys(RELEASE_MINUTES).map(Number) as ReleaseMinutes[];

const DOMAIN = /^(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]$/i;
const DOMAIN_MESSAGE = 'must be a domain name';
const CERTIFICATE_MESSAGE = 'must be the ARN of a certificate in ACM';

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

/** Topics by severity: an object, or text like `high=ARN,low=ARN`. */
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

/** Each setting: what it means, an example, and what it accepts. */
export const SETTINGS = {
  serverApiUrl: {
    meaning: "Where AWS reaches the XMPP server's HTTP server, without /stanzas. {host} stands for the XMPP domain.",
    example: 'https://xmpp.example.net:5281/ping_muc',
    schema: v.pipe(
      v.string('must be set'),
      v.check(isServerUrl, 'must be an https URL without a query (http only to loopback)'),
    ),
  },
  xmppHosts: {
    meaning: 'The XMPP domains that may use the stack. None: every domain that has the secret.',
    example: 'example.net,example.org',
    schema: v.pipe(
      list(/^[A-Za-z0-9.:[\]-]+$/, 'must be host names separated by commas'),
      v.check((hosts) => hosts.length <= MAX_HOSTS && hosts.join().length <= MAX_HOSTS_LENGTH, HOSTS_MESSAGE),
      v.transform((hosts) => hosts.map((host) => host.toLowerCase())),
    ),
  },
  // the bounds are those of the contract (protocol/)
  defaultDelaySeconds: {
    meaning: 'ping_muc_delay in the printed settings for Prosody.',
    example: '60',
    schema: v.optional(whole(1, 86_400, 'seconds'), MODULE_DEFAULTS.delaySeconds),
  },
  defaultTimeoutSeconds: {
    meaning: 'ping_muc_timeout in the printed settings for Prosody.',
    example: '60',
    schema: v.optional(whole(1, 300, 'seconds'), MODULE_DEFAULTS.timeoutSeconds),
  },
  defaultPatienceSeconds: {
    meaning: 'ping_muc_patience in the printed settings for Prosody.',
    example: '300',
    schema: v.optional(whole(0, 86_400, 'seconds'), MODULE_DEFAULTS.patienceSeconds),
  },
  alarmEmail: {
    meaning: 'The address that is notified of all alarms.',
    example: 'operator@example.net',
    schema: v.optional(
      v.pipe(v.string('must be an e-mail address'), v.regex(/^[^\s@]+@[^\s@]+$/, 'must be an e-mail address')),
    ),
  },
  alarmTopicArns: {
    meaning: 'Existing SNS topics that are notified, too, by severity.',
    example: 'high=arn:aws:sns:eu-central-1:123456789012:pager,low=arn:aws:sns:eu-central-1:123456789012:tickets',
    schema: topicArns,
  },
  runbookUrl: {
    meaning: 'The page that alarms link to.',
    example: 'https://wiki.example.net/ping-muc',
    schema: v.optional(v.pipe(v.string(RUNBOOK_MESSAGE), v.check(isPageUrl, RUNBOOK_MESSAGE)), RUNBOOK_URL),
  },
  logRetentionDays: {
    meaning: 'How many days logs are kept.',
    example: '30',
    schema: v.pipe(
      v.optional(whole(1, RetentionDays.TEN_YEARS, 'days'), RetentionDays.ONE_MONTH),
      v.enum(RetentionDays, `must be a number of days that CloudWatch Logs accepts: ${RETENTION_DAYS.join(', ')}`),
    ),
  },
  removalPolicy: {
    meaning: 'What happens to table, secret and logs when the stack is deleted: retain or destroy.',
    example: 'retain',
    schema: v.optional(v.picklist(['retain', 'destroy'], 'must be retain or destroy'), 'retain'),
  },
  vpcId: {
    meaning: 'The VPC of the check function, for a server without a public address.',
    example: 'vpc-0123456789abcdef0',
    schema: v.optional(
      v.pipe(v.string('must be the id of a VPC'), v.regex(/^vpc-[0-9a-f]{8,17}$/, 'must be the id of a VPC')),
    ),
  },
  subnetIds: {
    meaning: 'The subnets of the check function in that VPC.',
    example: 'subnet-0123456789abcdef0,subnet-0123456789abcdef1',
    schema: list(/^subnet-[0-9a-f]{8,17}$/, 'must be the ids of subnets separated by commas'),
  },
  webhookDomain: {
    meaning: "Your own domain name for the webhook's address, which stays the same if the stack is created again.",
    example: 'ping-muc.example.net',
    schema: v.optional(v.pipe(v.string(DOMAIN_MESSAGE), v.regex(DOMAIN, DOMAIN_MESSAGE), v.toLowerCase())),
  },
  webhookCertificateArn: {
    meaning: 'The certificate for webhookDomain, in ACM in the same region.',
    example: 'arn:aws:acm:eu-central-1:123456789012:certificate/01234567-89ab-cdef-0123-456789abcdef',
    schema: v.optional(
      v.pipe(
        v.string(CERTIFICATE_MESSAGE),
        v.regex(/^arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate\/\S+$/, CERTIFICATE_MESSAGE),
      ),
    ),
  },
  releaseMinutes: {
    meaning: `For how many minutes a new version gets a tenth of the invocations: ${RELEASES.join(', ')}. 0: all at once.`,
    example: '5',
    schema: v.pipe(
      v.optional(whole(0, Math.max(...RELEASES), 'minutes'), 5),
      v.picklist(RELEASES, `must be a number of minutes that CodeDeploy offers: ${RELEASES.join(', ')}`),
    ),
  },
  webhookConcurrency: {
    meaning: 'Webhooks that run at a time: a number, or unreserved. 0 stops them.',
    example: '20',
    schema: v.optional(concurrency),
  },
  checkConcurrency: {
    meaning: 'Checks that run at a time: a number, or unreserved, which a new account needs. 0 stops them.',
    example: '100',
    schema: v.optional(concurrency, CHECK_CONCURRENCY),
  },
  stackName: {
    meaning: 'The name of the stack, if an account has several.',
    example: 'PingMuc',
    schema: v.pipe(
      v.optional(v.string('must be a name'), 'PingMuc'),
      v.regex(/^[A-Za-z][A-Za-z0-9-]{0,63}$/, 'must be 1 to 64 letters, digits and hyphens'),
    ),
  },
  tags: {
    meaning: 'Tags of all resources.',
    example: 'team=xmpp,stage=production',
    schema: v.pipe(
      list(/^[^=,]{1,128}=[^,]{0,256}$/, 'must be name=value pairs separated by commas'),
      v.transform((pairs) => Object.fromEntries(pairs.map((pair) => pair.split(/=(.*)/s, 2) as [string, string]))),
    ),
  },
} as const;

export type Setting = keyof typeof SETTINGS;

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
