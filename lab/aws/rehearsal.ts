import { spawn } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { styleText } from 'node:util';
import { DynamoDBClient, ListTablesCommand, ScanCommand } from '@aws-sdk/client-dynamodb';
import { ListSecretsCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { ListExecutionsCommand, ListStateMachinesCommand, SFNClient } from '@aws-sdk/client-sfn';
import { SETTINGS_FILE } from '../../infra/settings-file.ts';
import type { Lab } from '../lab.ts';
import { Prosody } from '../prosody.ts';
import { Emulator } from './emulator.ts';

const COMMAND_TIMEOUT_MS = 240_000;
export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** The stack's name. */
export const STACK = 'PingMuc';

type Outputs = Readonly<Record<'WebhookUrl' | 'SecretCommand' | 'TableName' | 'ProsodySettings', string>>;

/** The shell blocks of a section of docs/operating.md. @param tree the folder of the release whose page it is */
export async function blocks(heading: string, tree = ROOT): Promise<readonly string[]> {
  const page = await readFile(join(tree, 'docs/operating.md'), 'utf8');
  const section = page.split(/^## /m).find((text) => text.startsWith(`${heading}\n`));
  if (section === undefined) throw new Error(`docs/operating.md has no section "${heading}"`);
  const found = [...section.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block = '']) => block);
  if (found.length === 0) throw new Error(`the section "${heading}" of docs/operating.md has no commands`);
  return found;
}

/** What a person would type when a command asks. */
export type Answers = readonly (readonly [question: RegExp, answer: string])[];

/** An emulated AWS, two servers, and the commands of docs/operating.md, which are run as they are written. */
export class Rehearsal {
  readonly lab: Lab;
  readonly aws: Emulator;
  readonly home: Prosody;
  readonly away: Prosody;
  readonly muc: string;
  readonly #environment: NodeJS.ProcessEnv;
  #secret = '';
  #outputs: Outputs | undefined;
  #webhookUrl = '';

  private constructor(lab: Lab, aws: Emulator, home: Prosody, away: Prosody, environment: NodeJS.ProcessEnv) {
    this.lab = lab;
    this.aws = aws;
    this.home = home;
    this.away = away;
    this.muc = lab.address(4);
    this.#environment = environment;
  }

  /** @param users of the server that is configured by the commands */
  static async open(lab: Lab, users: readonly string[]): Promise<Rehearsal> {
    const aws = await Emulator.start(lab);
    const modules = join(lab.directory, 'modules');
    await mkdir(modules, { recursive: true });
    const home = await Prosody.start(lab, {
      host: lab.address(2),
      users,
      global: `plugin_paths = { "${modules}" }`,
    });
    const away = await Prosody.start(lab, { host: lab.address(3), mucs: [lab.address(4)] });
    const commands = join(lab.directory, 'bin');
    await mkdir(commands);
    await writeCommand(join(commands, 'prosodyctl'), `exec ${home.controlCommand} "$@"`);
    await writeCommand(
      join(commands, SET_SECRETS),
      `sed -i "s#^ping_muc_secret = .*#ping_muc_secret = { $1 }#" ${home.config}`,
    );
    return new Rehearsal(lab, aws, home, away, {
      ...aws.environment,
      PATH: [commands, aws.environment['PATH']].join(delimiter),
      PING_MUC_CONFIG: join(lab.directory, SETTINGS_FILE),
      CDK_APP: 'node lab/aws/app.ts',
      CDK_OUTPUT: join(lab.directory, 'cdk.out'),
      CDK_OUTPUTS_FILE: join(lab.directory, 'outputs.json'),
      npm_config_update_notifier: 'false',
    });
  }

  get outputs(): Outputs {
    if (this.#outputs === undefined) throw new Error('nothing is deployed');
    return this.#outputs;
  }

  /**
   * Runs commands of the documentation on a terminal. Returns what they printed.
   * @param tree the folder of the release whose commands they are
   */
  async run(commands: string, answers: Answers = [], tree = ROOT): Promise<string> {
    const written = commands
      .replace(/^(?:git pull && )?npm ci\n/m, '') // this tree is installed: npm runs this script
      .replace(/^# 2\. Prosody gets both:.*$/m, `${SET_SECRETS} "\\"$NEW\\", \\"$OLD\\""`)
      .replace(/^# 3\. .* remove the old secret from both:.*$/m, `${SET_SECRETS} "\\"$NEW\\""`)
      .replaceAll('/usr/local/lib/prosody/modules/', `${this.lab.directory}/modules/`)
      .replace('npm run doctor --', `npm run doctor -- --webhook ${this.#webhookUrl}`) // it has a relay here
      .replaceAll('example.net', this.home.host)
      .replaceAll('muc.example.org', this.muc);
    for (const line of commands.trimEnd().split('\n'))
      process.stdout.write(`${' '.repeat(10)}${styleText('dim', `$ ${line}`)}\n`);
    const file = join(this.lab.directory, 'commands.sh');
    await writeFile(file, written);
    return onTerminal(`bash -eo pipefail ${file}`, tree, this.#environment, answers);
  }

  async readOutputs(): Promise<void> {
    const all = JSON.parse(await readFile(join(this.lab.directory, 'outputs.json'), 'utf8')) as Record<string, Outputs>;
    this.#outputs = all[STACK];
    this.#webhookUrl = await this.aws.relay(this.outputs.WebhookUrl, this.lab.address(1));
    await this.readSecret();
  }

  async readSecret(): Promise<void> {
    this.#secret = (await this.run(`${this.outputs.SecretCommand}\n`)).trim();
    if (!/^whsec_[\w+/=]+$/.test(this.#secret)) throw new Error('the command in SecretCommand shows no secret');
  }

  /** Puts the printed settings into Prosody's configuration. */
  async configure(delaySeconds: number): Promise<void> {
    const [, , forHost = ''] = this.outputs.ProsodySettings.split(/^-- (?:at the top|below the line).*$/m);
    const changed = forHost
      .replace(/^ping_muc_webhook_url = .*$/m, `ping_muc_webhook_url = "${this.#webhookUrl}"`)
      .replace(/^ping_muc_secret = .*$/m, `ping_muc_secret = "${this.#secret}"`)
      .replace(/^ping_muc_delay = .*$/m, `ping_muc_delay = ${delaySeconds}`);
    await this.home.configure(changed);
  }

  get #client(): { readonly endpoint: string; readonly region: string; readonly credentials: Credentials } {
    const { AWS_ACCESS_KEY_ID: accessKeyId = '', AWS_SECRET_ACCESS_KEY: secretAccessKey = '' } = this.#environment;
    return { endpoint: this.aws.endpoint, region: 'us-east-1', credentials: { accessKeyId, secretAccessKey } };
  }

  async rows(): Promise<number> {
    const client = new DynamoDBClient(this.#client);
    const { Count = 0 } = await client.send(
      new ScanCommand({
        TableName: this.outputs.TableName,
        FilterExpression: '#state = :joined',
        ExpressionAttributeNames: { '#state': 'state' },
        ExpressionAttributeValues: { ':joined': { S: 'joined' } },
      }),
    );
    return Count;
  }

  async executions(statusFilter: 'RUNNING' | 'SUCCEEDED' | 'FAILED'): Promise<number> {
    const client = new SFNClient(this.#client);
    const { stateMachines = [] } = await client.send(new ListStateMachinesCommand({}));
    const { executions = [] } = await client.send(
      new ListExecutionsCommand({ stateMachineArn: stateMachines[0]?.stateMachineArn, statusFilter }),
    );
    return executions.length;
  }

  /** What is there, by kind. */
  async remaining(): Promise<Readonly<Record<string, number>>> {
    const { TableNames = [] } = await new DynamoDBClient(this.#client).send(new ListTablesCommand({}));
    const { SecretList = [] } = await new SecretsManagerClient(this.#client).send(new ListSecretsCommand({}));
    const { stateMachines = [] } = await new SFNClient(this.#client).send(new ListStateMachinesCommand({}));
    const functions = (await this.aws.get('/2015-03-31/functions/')) as { readonly Functions: readonly unknown[] };
    const apis = (await this.aws.get('/v2/apis')) as { readonly items?: readonly unknown[] };
    return {
      tables: TableNames.length,
      secrets: SecretList.length,
      'state machines': stateMachines.length,
      functions: functions.Functions.length,
      APIs: apis.items?.length ?? 0,
    };
  }
}

/** A command that does what the operator does in an editor. */
const SET_SECRETS = 'set-ping-muc-secret';

async function writeCommand(file: string, command: string): Promise<void> {
  await writeFile(file, `#!/bin/sh\n${command}\n`, { mode: 0o755 });
}

interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** Runs a command on a pseudo-terminal, because cdk asks nobody else. @throws with its output if it fails */
function onTerminal(command: string, cwd: string, env: NodeJS.ProcessEnv, answers: Answers): Promise<string> {
  const child = spawn('script', ['--quiet', '--return', '--flush', '--command', command, '/dev/null'], {
    cwd,
    env: { ...env, NO_COLOR: '1', FORCE_COLOR: '0' },
    stdio: ['pipe', 'pipe', 'inherit'],
    timeout: COMMAND_TIMEOUT_MS,
  });
  let output = '';
  let answered = 0;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    const asked = output.slice(answered);
    const answer = answers.find(([question]) => question.test(asked))?.[1];
    if (answer === undefined) return;
    answered = output.length;
    child.stdin.write(`${answer}\n`);
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => {
      const shown = output.replaceAll('\r', '');
      if (status === 0) resolve(shown);
      else reject(new Error(`${command} ended with ${String(status)}:\n${shown.slice(-5000)}`));
    });
  });
}
