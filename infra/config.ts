import type { RetentionDays } from 'aws-cdk-lib/aws-logs';
import * as v from 'valibot';
import type { ReleaseMinutes } from './gradual-release.ts';
import { SETTINGS, type Setting } from './settings.ts';

/** The operator's settings, from `ping-muc.config.json` (settings-file.ts). A quantity has its unit in its name. */
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
  /** For how long a new version gets a tenth of the invocations; 0: it gets all at once. */
  readonly releaseMinutes: ReleaseMinutes;
  /** Undefined: the webhook API has the name that AWS gives it. */
  readonly domain: Domain | undefined;
  /** Reserved concurrency of the webhook function; 0 stops it; undefined: none is reserved. */
  readonly webhookConcurrency: number | undefined;
  /** Reserved concurrency of the check function, likewise. */
  readonly checkConcurrency: number | undefined;
  readonly stackName: string;
  readonly tags: Readonly<Record<string, string>>;
  /** What was set, as it was written. The template holds it, so that `cdk diff` names the settings that change. */
  readonly given: Readonly<Record<string, unknown>>;
}

/** The operator's own name for the webhook API. */
export interface Domain {
  readonly name: string;
  /** Of the certificate in ACM, in the stack's region. */
  readonly certificateArn: string;
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
  /** The setting that is wrong. Undefined: what is wrong is no single setting. */
  readonly setting: Setting | undefined;

  constructor(message: string, setting?: Setting) {
    super(message);
    this.setting = setting;
  }
}

type Given = Readonly<Record<string, unknown>>;

function refuse(setting: Setting, wrong: string, value: unknown, example: string = SETTINGS[setting].example): never {
  const got = value === undefined ? 'nothing' : JSON.stringify(value);
  throw new ConfigError(`${setting} ${wrong}; got ${got}; for example "${setting}": "${example}"`, setting);
}

function read<Name extends Setting>(setting: Name, given: Given): v.InferOutput<(typeof SETTINGS)[Name]['schema']> {
  const parsed = v.safeParse(SETTINGS[setting].schema, given[setting]);
  return parsed.success ? parsed.output : refuse(setting, parsed.issues[0].message, given[setting]);
}

/** Checks one setting without the others. @throws ConfigError */
export function checkSetting(setting: Setting, value: unknown): void {
  read(setting, { [setting]: value });
}

/** The name of the stack, also if other settings are wrong. */
export function readStackName(given: Given): string {
  const parsed = v.safeParse(SETTINGS.stackName.schema, given['stackName']);
  return parsed.success ? parsed.output : v.parse(SETTINGS.stackName.schema, undefined);
}

/** Reads the settings. @throws ConfigError */
export function readConfig(given: Given): Config {
  refuseUnknown(given);
  return {
    serverApiUrl: readServerApiUrl(given),
    xmppHosts: read('xmppHosts', given),
    defaultDelaySeconds: read('defaultDelaySeconds', given),
    defaultTimeoutSeconds: read('defaultTimeoutSeconds', given),
    defaultPatienceSeconds: read('defaultPatienceSeconds', given),
    alarmEmail: read('alarmEmail', given),
    alarmTopicArns: read('alarmTopicArns', given) ?? {},
    runbookUrl: read('runbookUrl', given),
    logRetentionDays: read('logRetentionDays', given),
    removalPolicy: read('removalPolicy', given),
    network: readNetwork(given),
    releaseMinutes: read('releaseMinutes', given),
    domain: readDomain(given),
    webhookConcurrency: read('webhookConcurrency', given),
    checkConcurrency: read('checkConcurrency', given),
    stackName: read('stackName', given),
    tags: read('tags', given),
    given,
  };
}

function readServerApiUrl(given: Given): string {
  const [serverApiUrl, hosts] = [read('serverApiUrl', given), new Set(read('xmppHosts', given))];
  if (hosts.size > 1 && !serverApiUrl.includes('{host}')) {
    // Prosody passes all requests under one HTTP host name to one host's module: users of other hosts are not watched
    const why = `must contain {host}, so that each of the ${hosts.size} xmppHosts has its own host name`;
    refuse('serverApiUrl', why, serverApiUrl, 'https://{host}:5281/ping_muc');
  }
  return serverApiUrl;
}

function readNetwork(given: Given): Network | undefined {
  const [vpcId, subnetIds] = [read('vpcId', given), read('subnetIds', given)];
  if (vpcId === undefined && subnetIds.length > 0) refuse('vpcId', 'must be set together with subnetIds', vpcId);
  if (vpcId !== undefined && subnetIds.length === 0)
    refuse('subnetIds', 'must be set together with vpcId', given['subnetIds']);
  return vpcId === undefined ? undefined : { vpcId, subnetIds };
}

function readDomain(given: Given): Domain | undefined {
  const [name, certificateArn] = [read('webhookDomain', given), read('webhookCertificateArn', given)];
  if (name !== undefined && certificateArn !== undefined) return { name, certificateArn };
  if (certificateArn !== undefined) refuse('webhookDomain', 'must be set together with webhookCertificateArn', name);
  if (name !== undefined) refuse('webhookCertificateArn', 'must be set together with webhookDomain', certificateArn);
  return undefined;
}

/** Refuses misspelled settings, which would otherwise be ignored. */
function refuseUnknown(given: Given): void {
  for (const [key, value] of Object.entries(given)) {
    if (Object.hasOwn(SETTINGS, key)) continue;
    const got = `got ${JSON.stringify(value)}`;
    if (key === 'reservedConcurrency')
      throw new ConfigError(
        `reservedConcurrency was replaced by webhookConcurrency and checkConcurrency; ${got}; set both instead`,
      );
    throw new ConfigError(`${key} is not a setting; ${got}; the settings are ${Object.keys(SETTINGS).join(', ')}`);
  }
}
