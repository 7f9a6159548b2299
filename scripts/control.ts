import { userInfo } from 'node:os';
import { parseArgs } from 'node:util';
import type { HeldCheck } from '../functions/adapters/controls.ts';
import type { Hosts } from '../functions/adapters/hosts.ts';
import { hostsHealth } from '../functions/core/heartbeats.ts';
import { readAddress } from '../local/address.ts';
import { commandLine } from '../local/installation.ts';
import { type StackTable, describePause, nowSeconds, openTable, time } from './controls.ts';

/** Shows and controls the checks of a stack: rules 12 to 14 in docs/rules.md. */

const USAGE = `Usage: ${commandLine('control', '<command> [options]')}

  status                 shows whether checks are paused, which are held, and the hosts' last heartbeats
  held                   shows the checks that are held by ping_muc_notice_limit
  release <name>         lets a held check continue: it asks the rooms again, and has no limit any more
  drop <name>            ends a held check: nobody else is notified by it
  pause                  stops all checks within ten seconds; joins and closes are still recorded
    --reason <text>      why, for other operators
    --until <time>       when the pause ends by itself, for example 2026-11-30T18:00Z; at most four days ahead
  resume                 ends the pause

Which stack:
  --table <name>         on AWS: the output TableName of the stack; region and credentials as for the AWS CLI
  --data <directory>     on this machine: the data directory of ${commandLine('start')}  (PING_MUC_DATA, .ping-muc)
`;

/** A paused execution must not reach the limits of Step Functions: 25,000 events in its history, and seven days. */
const LONGEST_PAUSE_SECONDS = 4 * 86_400;

/** What the operator must know. It is printed without a stack. */
class ControlError extends Error {
  override readonly name = 'ControlError';
}

interface Options {
  readonly reason: string;
  readonly until: string | undefined;
}

const print = (...lines: readonly string[]): void => void process.stdout.write(`${lines.join('\n')}\n`);

/** Columns as wide as their widest cell. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column]?.length ?? 0)));
  return [head, ...rows].map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}

function describeHeld(held: readonly HeldCheck[]): readonly string[] {
  if (held.length === 0) return ['No check is held.'];
  const rows = held.map(({ name, host, remote, room, since, told, left, decided }) => [
    name,
    host,
    room ?? remote,
    time(since),
    String(told),
    `${left} of ${decided}`,
  ]);
  return [
    ...table(['name', 'host', 'asks', 'held since', 'told so far', 'left of decided'], rows),
    '',
    `Release or drop each: ${commandLine('control', 'release <name>')}. After 24 hours a held check is dropped.`,
  ];
}

async function describeHosts(hosts: Hosts): Promise<readonly string[]> {
  const { heartbeats, isComplete } = await hosts.read(nowSeconds());
  if (heartbeats.length === 0) return ['No host has sent a heartbeat in the last seven days.'];
  const silent = new Set(hostsHealth(heartbeats, new Set(), nowSeconds()).silent);
  const rows = heartbeats.map(({ host, last, length, oldest }) => [
    host,
    `${time(last)}${silent.has(host) ? ' (silent)' : ''}`,
    String(length),
    `${oldest} s`,
  ]);
  const more = isComplete ? [] : ['There are more hosts, which are not shown and not watched.'];
  return [...table(['host', 'last heartbeat', 'events that wait', 'oldest'], rows), ...more];
}

async function pause({ controls }: StackTable, { reason, until }: Options): Promise<void> {
  const since = nowSeconds();
  const end = until === undefined ? undefined : Math.floor(Date.parse(until) / 1000);
  if (end !== undefined && !(end > since && end <= since + LONGEST_PAUSE_SECONDS))
    throw new ControlError(
      `--until must be a time in the next four days, for example ${time(since + 3600)}; got ${until}`,
    );
  await controls.pause({ since, by: userInfo().username, reason, ...(end === undefined ? {} : { until: end }) });
  print(describePause(await controls.readPause(since)), 'Running checks stop within ten seconds.');
}

async function decide({ controls }: StackTable, decision: 'release' | 'drop', name: string): Promise<void> {
  if (!(await controls.decide(name, decision, userInfo().username)))
    throw new ControlError(
      `No check named ${name} waits for a decision. ${commandLine('control', 'held')} shows those that do.`,
    );
  const what =
    decision === 'release' ? 'It asks the rooms again, without a limit.' : 'It ends without its other users.';
  print(`${name}: ${decision === 'release' ? 'released' : 'dropped'}, within a minute. ${what}`);
}

async function run(stack: StackTable, command: string, name: string, options: Options): Promise<void> {
  const { controls, hosts } = stack;
  switch (command) {
    case 'status':
      print(describePause(await controls.readPause(nowSeconds())), '');
      print(...describeHeld(await controls.held(nowSeconds())), '');
      return print(...(await describeHosts(hosts)));
    case 'held':
      return print(...describeHeld(await controls.held(nowSeconds())));
    case 'pause':
      return pause(stack, options);
    case 'resume':
      await controls.resume();
      return print('Checks continue within a minute; after a pause of over two hours, within five.');
    case 'release':
    case 'drop':
      return decide(stack, command, name);
  }
}

async function open(tableName: string | undefined, data: string): Promise<StackTable> {
  const where = tableName ?? (await readAddress(data));
  if (where === undefined) throw new ControlError(`Nothing runs on ${data}. Set --data, or on AWS --table.`);
  return openTable(where);
}

const COMMANDS: Readonly<Record<string, number>> = { status: 0, held: 0, pause: 0, resume: 0, release: 1, drop: 1 };

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      reason: { type: 'string', default: '' },
      until: { type: 'string' },
      table: { type: 'string' },
      data: { type: 'string', default: process.env['PING_MUC_DATA'] ?? '.ping-muc' },
      help: { type: 'boolean', default: false },
    },
  });
  const [command = '', name = ''] = positionals;
  if (values.help) return print(USAGE);
  if (COMMANDS[command] === undefined || positionals.length !== COMMANDS[command] + 1)
    throw new ControlError(
      `${command === '' ? 'There is no command' : `Wrong: ${positionals.join(' ')}`}.\n\n${USAGE}`,
    );
  const stack = await open(values.table, values.data);
  try {
    await run(stack, command, name, { reason: values.reason, until: values.until });
  } finally {
    stack.client.destroy();
  }
}

/** The address of an instance that crashed stays in its data directory. */
function isUnreachable(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ECONNREFUSED';
}

main().catch((error: unknown) => {
  if (isUnreachable(error))
    process.stderr.write(`Nothing answers: does ${commandLine('start')} run, with the same --data?\n`);
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
