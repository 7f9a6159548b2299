import { spawnSync } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { styleText } from 'node:util';
import { SETTINGS_FILE } from '../infra/settings-file.ts';
import { SETTINGS } from '../infra/settings.ts';
import { installAwsTools } from '../lab/aws/emulator.ts';
import { type Release, unpackLastRelease } from '../lab/aws/last-release.ts';
import { type Answers, ROOT, Rehearsal, STACK, blocks, runbookBlocks } from '../lab/aws/rehearsal.ts';
import { Lab, sleep, until } from '../lab/lab.ts';
import { Population, RealRooms } from '../lab/population.ts';
import { synthesize } from '../local/assembly.ts';
import { ensurePackage, ensureServer } from './debian.ts';

/**
 * Rehearses a deployment: `npm run rehearse`. The commands are those of docs/operating.md, run as they are written,
 * with the real CDK, on an AWS that we did not write (ministack) and two real Prosody servers.
 */
const JOINS = 100;
const DELAY_SECONDS = 3;
/** A check waits for so many times as long as the first deployment took, so that two more fit in between. */
const DEPLOYMENTS_MEANWHILE = 6;
const LEAST_LONG_DELAY_SECONDS = 60;
/** The commands of the runbook that only look. */
const LEAST_LOOKS = 6;
/** Time for late or duplicate notices to arrive. */
const SETTLE_MS = 2000;
const LINT_TIMEOUT_MS = 120_000;

/** Three deployments, whose templates cfn-lint reads: without settings, in a VPC, and with every setting. */
const { serverApiUrl, vpcId, subnetIds, checkConcurrency } = SETTINGS;
const CONFIGURATIONS = {
  default: { serverApiUrl: serverApiUrl.example },
  network: {
    serverApiUrl: serverApiUrl.example,
    vpcId: vpcId.example,
    subnetIds: subnetIds.example,
    checkConcurrency: checkConcurrency.example,
  },
  everything: {
    ...Object.fromEntries(Object.entries(SETTINGS).map(([name, { example }]) => [name, example])),
    serverApiUrl: 'https://{host}:5281/ping_muc',
  },
};
/** The CDK writes DependsOn where a reference already has that effect. */
const IGNORED = 'W3005';

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
  pass(what);
}

function pass(what: string): void {
  process.stdout.write(`${' '.repeat(10)}${styleText('green', '✓')} ${what}\n`);
}

async function lintTemplates(lab: Lab): Promise<void> {
  const cfnLint = join(await installAwsTools(), 'cfn-lint');
  for (const [name, settings] of Object.entries(CONFIGURATIONS)) {
    const directory = join(lab.directory, name);
    await synthesize(directory, settings);
    const template = join(directory, 'PingMuc.template.json');
    const { status, stdout, stderr } = spawnSync(cfnLint, ['--ignore-checks', IGNORED, '--', template], {
      encoding: 'utf8',
      timeout: LINT_TIMEOUT_MS,
    });
    if (status !== 0) throw new Error(`cfn-lint, settings "${name}":\n${stdout}${stderr}`);
    pass(`cfn-lint finds nothing in the template (settings: ${name})`);
  }
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

/** Returns how many seconds it took. */
async function deploy(rehearsal: Rehearsal): Promise<number> {
  const [commands = ''] = await blocks('2. Deploy');
  const start = Date.now();
  await rehearsal.run(commands, answersOf(rehearsal));
  const took = (Date.now() - start) / 1000;
  await rehearsal.readOutputs();
  return took;
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

/** What the runbook looks at, while there is a stack that works. */
async function lookAsTheRunbook(rehearsal: Rehearsal): Promise<void> {
  const [variables = '', ...looks] = await runbookBlocks();
  check(looks.length >= LEAST_LOOKS, `the runbook has ${looks.length} commands to look at a stack`);
  await rehearsal.run(`${variables}${looks.join('')}`);
}

/** A setting is changed, another one is left out, and the stack is upgraded, all while a check waits. */
async function deployMeanwhile(rehearsal: Rehearsal, population: Population, delaySeconds: number): Promise<void> {
  await rehearsal.configure(delaySeconds);
  await rehearsal.run('prosodyctl shell config reload\nprosodyctl shell module reload ping_muc_webhook example.net\n');
  await lose(rehearsal, population);
  // the module reports two closes of one host at least half a delay apart (rule 2, docs/rules.md)
  await until('a check waits', async () => (await rehearsal.executions('RUNNING')) > 0, delaySeconds * 1000);
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
  await expectNotices(population, delaySeconds * 1000 + 60_000);
  check((await rehearsal.executions('FAILED')) === 0, 'no execution has failed');
}

/** The commands of a release's page that upgrade each side. */
async function upgradeCommands(tree: string): Promise<{ readonly ofFunctions: string; readonly ofModule: string }> {
  const [upgrade = ''] = await blocks('Upgrade', tree);
  const [ofFunctions = '', ...ofModule] = upgrade.split(/^(?=cp -r prosody)/m);
  check(ofFunctions.includes('cdk deploy') && ofModule.length === 1, 'the page says how to upgrade each side');
  return { ofFunctions, ofModule: ofModule.join('') };
}

/**
 * The stack goes back to the last release and forward again, each time while a check waits, and each time with a module
 * of the other version.
 */
async function backAndForth(rehearsal: Rehearsal, population: Population, release: Release): Promise<void> {
  for (const [functions, module] of [
    [release.tree, ROOT],
    [ROOT, release.tree],
  ] as const) {
    await rehearsal.run((await upgradeCommands(module)).ofModule, [], module);
    await enter(rehearsal, population);
    await lose(rehearsal, population);
    await until(
      'a check waits',
      async () => (await rehearsal.executions('RUNNING')) > 0,
      LEAST_LONG_DELAY_SECONDS * 1000,
    );
    await rehearsal.run((await upgradeCommands(functions)).ofFunctions, answersOf(rehearsal), functions);
    check((await rehearsal.executions('RUNNING')) > 0, 'the check has waited meanwhile');
    await expectNotices(population, LEAST_LONG_DELAY_SECONDS * 1000 + 60_000);
  }
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
  await step('Lint the templates of three deployments', () => lintTemplates(lab));
  const rehearsal = await step('An emulated AWS and two servers start', () =>
    Rehearsal.open(lab, Population.users(JOINS)),
  );
  const took = await step('Deploy', () => deploy(rehearsal));
  await step('Configure Prosody', () => configureProsody(rehearsal));
  const rooms = new RealRooms(rehearsal.away, rehearsal.muc);
  const population = await Population.open(lab, rehearsal.home, rooms, JOINS);
  await step(`${JOINS} users enter rooms on the other server`, () => enter(rehearsal, population));
  await step('Verify', () => verify(rehearsal));
  await step('The rooms lose half of them, and the connection closes', async () => {
    await lose(rehearsal, population);
    await expectNotices(population, 60_000);
  });
  await step('Look as the runbook says', () => lookAsTheRunbook(rehearsal));
  await step('Rotate the secret', () => rotate(rehearsal));
  await step('They enter again', () => enter(rehearsal, population));
  await step('Settings change, and the stack is upgraded, while a check waits', () =>
    deployMeanwhile(rehearsal, population, Math.max(LEAST_LONG_DELAY_SECONDS, Math.ceil(DEPLOYMENTS_MEANWHILE * took))),
  );
  const release = await step('Unpack the last release', () => Promise.resolve(unpackLastRelease(lab)));
  if (release === undefined) process.stdout.write(`${' '.repeat(10)}none is tagged: there is nothing to go back to\n`);
  else
    await step(`Back to ${release.tag}, and forward again, while checks wait`, () =>
      backAndForth(rehearsal, population, release),
    );
  await step('Remove', () => remove(rehearsal));
}

ensureServer('prosody');
ensurePackage('script', 'bsdutils');
const lab = await Lab.open();
// the emulator would outlive this process
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void lab.close().finally(() => process.exit(1)));
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
