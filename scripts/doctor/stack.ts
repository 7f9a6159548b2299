import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { AWS_CLIENT } from '../../functions/adapters/aws.ts';
import type { ServerAnswers } from '../../functions/adapters/probe.ts';
import { Secrets } from '../../functions/adapters/secrets.ts';
import type { ServerProbe } from '../../functions/check.ts';
import { openTable } from '../controls.ts';
import { installationFindings } from './diagnosis.ts';
import { type Findings, bad, note, ok } from './finding.ts';

const run = promisify(execFile);
const TIMEOUT_MS = 60_000;

interface StackOptions {
  readonly stack: string;
  /** The XMPP hosts to test. Empty: those that have reported. */
  readonly hosts: readonly string[];
  /** The URL of the webhook, if this machine reaches it by another one than servers do. */
  readonly webhook?: string | undefined;
}

type Outputs = Readonly<
  Partial<Record<'WebhookUrl' | 'SecretArn' | 'TableName' | 'CheckFunctionName' | 'ProsodySettings', string>>
>;

/** Tests a stack on AWS: the webhook from this machine, the server's API from where the check function runs. */
export async function* stackFindings({ stack, hosts, webhook }: StackOptions): Findings {
  const outputs = await readOutputs(stack).catch((error: unknown) => String(error));
  if (typeof outputs === 'string') return yield bad(`Stack: ${stack} cannot be read: ${outputs}`);
  const { WebhookUrl, SecretArn, TableName, CheckFunctionName, ProsodySettings: printed } = outputs;
  if (!WebhookUrl || !SecretArn || !TableName || !CheckFunctionName)
    return yield bad(`Stack: ${stack} is not a ping-muc of this release. Deploy this release: npx cdk deploy`);
  yield ok(`Stack: ${stack} is deployed`);
  const keys = await new Secrets(new SecretsManagerClient(AWS_CLIENT), SecretArn).keys().catch(String);
  if (typeof keys === 'string') return yield bad(`Secret: ${SecretArn} cannot be used: ${keys}`);
  yield ok('Secret: it has the right form');
  const table = openTable(TableName);
  try {
    const start = 'Look at the alarms of the stack, or deploy it again: npx cdk deploy';
    const endpoint = { url: webhook ?? WebhookUrl, keys, secretSource: 'the stack', start };
    const ask = (host: string): Promise<ServerAnswers> => askServer(CheckFunctionName, host);
    yield* installationFindings({ endpoint, askServer: ask, table, printed }, hosts);
    yield note('Alarms: not read. The dashboard shows them: the output DashboardUrl of the stack');
  } finally {
    table.client.destroy();
  }
}

async function readOutputs(stack: string): Promise<Outputs> {
  const query = 'Stacks[0].Outputs[].[OutputKey,OutputValue]';
  const shown = await aws('cloudformation', 'describe-stacks', '--stack-name', stack, '--query', query);
  return Object.fromEntries((JSON.parse(shown) as [string, string][] | null) ?? []);
}

/** Asks the server's API of a host by the check function. @throws if the function cannot be run */
async function askServer(checkFunction: string, host: string): Promise<ServerAnswers> {
  const directory = await mkdtemp(join(tmpdir(), 'ping-muc-doctor-'));
  try {
    const [question, answer] = [join(directory, 'question.json'), join(directory, 'answer.json')];
    const probe: ServerProbe = { probe: host };
    await writeFile(question, JSON.stringify(probe));
    const payload = ['--payload', `fileb://${question}`]; // versions 1 and 2 of the AWS CLI read this in the same way
    await aws('lambda', 'invoke', '--function-name', checkFunction, ...payload, answer);
    const answers = JSON.parse(await readFile(answer, 'utf8')) as ServerAnswers | { readonly errorMessage: string };
    if ('errorMessage' in answers) throw new Error(`the check function fails: ${answers.errorMessage}`);
    return answers;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Runs the AWS CLI, which the deployment needs, too. Returns what it prints. @throws with what it complains about */
async function aws(...words: readonly string[]): Promise<string> {
  try {
    return (await run('aws', [...words, '--output', 'json'], { timeout: TIMEOUT_MS })).stdout;
  } catch (error) {
    const { code, stderr, message } = error as NodeJS.ErrnoException & { readonly stderr?: string };
    if (code === 'ENOENT') throw new Error('install the AWS CLI: https://docs.aws.amazon.com/cli/', { cause: error });
    throw new Error(stderr?.trim() === '' ? message : (stderr?.trim() ?? message), { cause: error });
  }
}
