import { spawn } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { styleText } from 'node:util';
import { DynamoDBClient, ListTablesCommand, ScanCommand } from '@aws-sdk/client-dynamodb';
import { ListSecretsCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { ListExecutionsCommand, ListStateMachinesCommand, SFNClient } from '@aws-sdk/client-sfn';
import { SETTINGS_FILE } from '../infra/settings-file.ts';
import { Emulator } from '../lab/aws/emulator.ts';
import { Lab, sleep, until } from '../lab/lab.ts';
import { Population, RealRooms } from '../lab/population.ts';
import { Prosody } from '../lab/prosody.ts';
import { ensurePackage } from './debian.ts';

/**
 * Rehearses a deployment: `npm run rehearse`. The commands are those of docs/operating.md, run as they are written,
 * with the real CDK, on an AWS that we did not write (ministack) and two real Prosody servers.
 */
const JOINS = 100;
const DELAY_SECONDS = 3;
/** Long enough for a deployment while a check waits. */
const LONG_DELAY_SECONDS = 60;
/** Time for late or duplicate notices to arrive. */
const SETTLE_MS = 2000;
const COMMAND_TIMEOUT_MS = 240_000;
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const STACK = 'PingMuc';

type Outputs = Readonly<Record<'WebhookUrl' | 'SecretCommand' | 'TableName' | 'ProsodySettings', string>>;

const began = Date.now();
const seconds = (since: number): string => `${((Date.now() - since) / 1000).toFixed(1)} s`.padStart(8);

/** Runs one step, and prints how long it took. */
async function step<Value>(what: string, action: () => Promise<Value>): Promise<Value> {
  const start = Date.now();
  process.stdout.write(`${seconds(began)}  ${what} …\n`);
  try {
    return await action();
  } catch (error) {
    process.stdout.write(`${seconds(began)}  ${styleText('red', 'failed')} after ${seconds(start).trim()}: ${what}\n`);
    throw error;
  }
}

function check(isTrue: boolean, what: string): void {
  if (!isTrue) throw new Error(`expected: ${what}`);
  process.stdout.write(`${' '.repeat(10)}${styleText('green', '✓')} ${what}\n`);
}

/** The shell blocks of a section of docs/operating.md. */
async function blocks(heading: string): Promise<readonly string[]> {
  const page = await readFile(join(ROOT, 'docs/operating.md'), 'utf8');
  const section = page.split(/^## /m).find((text) => text.startsWith(`${heading}\n`));
  if (section === undefined) throw new Error(`docs/operating.md has no section "${heading}"`);
  const found = [...section.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block = '']) => block);
  if (found.length === 0) throw new Error(`the section "${heading}" of docs/operating.md has no commands`);
  return found;
}

/** What a person would type when a command asks. */
type Answers = readonly (readonly [question: RegExp, answer: string])[];

/** The stack, the two servers, and the population of one rehearsal. */
class Rehearsal {
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

  static async open(lab: Lab): Promise<Rehearsal> {
    const aws = await Emulator.start(lab);
    const modules = join(lab.directory, 'modules');
    await mkdir(modules, { recursive: true });
    const home = await Prosody.start(lab, {
      host: lab.address(2),
      users: Population.users(JOINS),
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

  /** Runs commands of the documentation on a terminal. Returns what they printed. */
  async run(commands: string, answers: Answers = []): Promise<string> {
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
    return onTerminal(`bash -eo pipefail ${file}`, this.#environment, answers);
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
function onTerminal(command: string, env: NodeJS.ProcessEnv, answers: Answers): Promise<string> {
  const child = spawn('script', ['--quiet', '--return', '--flush', '--command', command, '/dev/null'], {
    cwd: ROOT,
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

/** What an operator answers, and what else: the first question that matches counts. */
const answersOf = ({ home }: Rehearsal, more: Answers = []): Answers => [
  ...more,
  [/serverApiUrl \[[^\]]*\]: $/, `http://${home.host}:5280/ping_muc`],
  [/xmppHosts \[[^\]]*\]: $/, home.host],
  [/alarmEmail \[[^\]]*\]: $/, 'operator@example.net'],
  [/checkConcurrency \[[^\]]*\]: $/, ''],
  [/\(y\/n\)\??[^\n]*$/, 'y'],
];

async function deploy(rehearsal: Rehearsal): Promise<void> {
  const [commands = ''] = await blocks('2. Deploy');
  await rehearsal.run(commands, answersOf(rehearsal));
  await rehearsal.readOutputs();
}

async function configureProsody(rehearsal: Rehearsal): Promise<void> {
  const [copy = '', load = ''] = await blocks('3. Configure Prosody');
  await rehearsal.run(copy);
  await rehearsal.configure(DELAY_SECONDS);
  await rehearsal.run(load);
}

async function enter(rehearsal: Rehearsal, population: Population): Promise<void> {
  await population.enter();
  await until('all joins are in the table', async () => (await rehearsal.rows()) === JOINS, 60_000);
}

/** The chat service forgets half of the users, and the connection closes. */
async function lose(rehearsal: Rehearsal, population: Population): Promise<void> {
  await population.lose((index) => index % 2 === 0);
  const commands = (await blocks('4. Verify')).find((block) => block.includes('s2s close'));
  await rehearsal.run(commands ?? '');
}

/** The doctor finds that all works; a check that is requested finds all users in their rooms. */
async function verify(rehearsal: Rehearsal): Promise<void> {
  const commands = (await blocks('4. Verify')).filter((block) => !block.includes('s2s close'));
  const shown = await rehearsal.run(commands.join(''));
  check(shown.includes('A user who falls out of a room now would be told.'), 'npm run doctor finds that all works');
  const doctor = (words: string): Promise<string> => rehearsal.run(`npm run doctor -- ${words}\n`).catch(String);
  const ofOther = await doctor(`--stack ${STACK} --host other.example`);
  check(ofOther.includes('does not serve other.example: add it to xmppHosts'), 'it names a host that is not served');
  check(/reaches the module of .*Use {host}/.test(ofOther), 'it finds that the server passes requests to another host');
  check((await doctor('--stack Elsewhere')).includes('Stack: Elsewhere cannot be read'), 'it misses another stack');
  await until('the check is done', async () => (await rehearsal.executions('SUCCEEDED')) === 1, 60_000);
}

async function expectNotices(population: Population, limitMs: number): Promise<void> {
  await until('all who are lost are notified', () => population.noticeCounts().missed === 0, limitMs);
  await sleep(SETTLE_MS);
  const { notices, wrong, double } = population.noticeCounts();
  check(notices === JOINS / 2 && double === 0, `${notices} of ${JOINS / 2} who were lost are notified, each once`);
  check(wrong === 0, `of ${JOINS / 2} who are in their room, ${wrong} are notified`);
}

/** The new secret must work: the joins and the close that follow are signed with it. */
async function rotate(rehearsal: Rehearsal): Promise<void> {
  const [commands = ''] = await blocks('Rotate the secret');
  await rehearsal.run(commands);
  await rehearsal.readSecret();
}

/** A setting is changed, another one is left out, and the stack is upgraded, all while a check waits. */
async function deployMeanwhile(rehearsal: Rehearsal, population: Population): Promise<void> {
  await rehearsal.configure(LONG_DELAY_SECONDS);
  await rehearsal.run('prosodyctl shell config reload\nprosodyctl shell module reload ping_muc_webhook example.net\n');
  await lose(rehearsal, population);
  // the module reports two closes of one host at least half a delay apart (rule 2, docs/rules.md)
  await until('a check waits', async () => (await rehearsal.executions('RUNNING')) > 0, LONG_DELAY_SECONDS * 1000);
  const changed = answersOf(rehearsal, [
    [/alarmEmail \[[^\]]*\]: $/, '-'],
    [/checkConcurrency \[[^\]]*\]: $/, 'unreserved'],
  ]);
  const [, newAccount = ''] = await blocks('2. Deploy');
  const shown = await rehearsal.run(newAccount, changed);
  check(/\[-\].*alarmEmail/.test(shown), 'cdk deploy shows that alarmEmail is taken away, and asks');
  check(/\[-\].*AWS::SNS::Subscription/.test(shown), 'it shows that the subscription goes with it');
  const [upgrade = ''] = await blocks('Upgrade');
  const again = await rehearsal.run(upgrade, answersOf(rehearsal));
  check(again.includes('There were no differences'), 'cdk diff finds nothing else to change');
  check((await rehearsal.executions('RUNNING')) > 0, 'the check has waited meanwhile');
  await expectNotices(population, LONG_DELAY_SECONDS * 1000 + 60_000);
  check((await rehearsal.executions('FAILED')) === 0, 'no execution has failed');
}

async function remove(rehearsal: Rehearsal): Promise<void> {
  await rm(join(rehearsal.lab.directory, SETTINGS_FILE)); // this needs no settings
  const [commands = ''] = await blocks('Remove');
  await rehearsal.run(commands, answersOf(rehearsal));
  const left = await rehearsal.remaining();
  check(left['tables'] === 1 && left['secrets'] === 1, 'the table and the secret are kept');
  const others = ['state machines', 'functions', 'APIs'].map((kind) => `${left[kind]} ${kind}`);
  check(
    others.every((text) => text.startsWith('0 ')),
    `of the rest, ${others.join(', ')} are left`,
  );
}

async function rehearse(lab: Lab): Promise<void> {
  const rehearsal = await step('An emulated AWS and two servers start', () => Rehearsal.open(lab));
  await step('Deploy', () => deploy(rehearsal));
  await step('Configure Prosody', () => configureProsody(rehearsal));
  const rooms = new RealRooms(lab, rehearsal.away, rehearsal.muc);
  const population = await Population.open(lab, rehearsal.home, rooms, JOINS);
  await step(`${JOINS} users enter rooms on the other server`, () => enter(rehearsal, population));
  await step('Verify', () => verify(rehearsal));
  await step('The rooms lose half of them, and the connection closes', async () => {
    await lose(rehearsal, population);
    await expectNotices(population, 60_000);
  });
  await step('Rotate the secret', () => rotate(rehearsal));
  await step('They enter again', () => enter(rehearsal, population));
  await step('Settings change, and the stack is upgraded, while a check waits', () =>
    deployMeanwhile(rehearsal, population),
  );
  await step('Remove', () => remove(rehearsal));
}

ensurePackage('prosody', 'prosody');
ensurePackage('script', 'bsdutils');
const lab = await Lab.open();
try {
  await rehearse(lab);
  process.stdout.write(
    `Success: the commands of docs/operating.md work as they are written (${seconds(began).trim()}).\n`,
  );
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
} finally {
  await lab.close();
}
