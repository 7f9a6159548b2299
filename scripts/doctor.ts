import { parseArgs, styleText } from 'node:util';
import { commandLine } from '../local/installation.ts';
import { type Finding, ok } from './doctor/finding.ts';
import { instanceFindings } from './doctor/instance.ts';
import { stackFindings } from './doctor/stack.ts';

/** Tests each link of the way from a closed connection to a user who is told: `npm run doctor`. */

const USAGE = `Usage: ${commandLine('doctor', '[options]')}

Tests each link of the way, and says what to do about those that are broken. Ends with 0 only if a user who falls out of
a room now would be told.

  --host <XMPP host>     the host to test; can be repeated (default: the hosts that have reported)
  --help

On this machine:
  --data <directory>     the data directory of the instance (PING_MUC_DATA, .ping-muc)
  --server-api <URL>     test this server API, and not the one of the instance

On AWS:
  --stack <name>         the stack; region and credentials as for the AWS CLI, which must be installed
  --webhook <URL>        the webhook, if this machine reaches it by another URL than servers do
`;

const MARKS = { ok: styleText('green', '✓'), note: styleText('yellow', '!'), bad: styleText('red', '✗') } as const;

/** Prints each finding when it is known. Returns whether all is well. */
async function report(findings: AsyncIterable<Finding>): Promise<boolean> {
  let isWell = true;
  for await (const { mark, text } of findings) {
    process.stdout.write(`${MARKS[mark]} ${text}\n`);
    if (mark === 'bad') isWell = false;
  }
  return isWell;
}

async function* all(of: AsyncIterable<Finding>): AsyncGenerator<Finding> {
  yield ok(`Node: ${process.versions.node}`); // an older one has ended before (node-version.cjs)
  yield* of;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      host: { type: 'string', multiple: true, default: [] },
      data: { type: 'string', default: process.env['PING_MUC_DATA'] ?? '.ping-muc' },
      'server-api': { type: 'string' },
      stack: { type: 'string' },
      webhook: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return void process.stdout.write(USAGE);
  const { host: hosts, data, 'server-api': serverApi, stack, webhook } = values;
  const findings =
    stack === undefined ? instanceFindings({ data, hosts, serverApi }) : stackFindings({ stack, hosts, webhook });
  const isWell = await report(all(findings));
  process.stdout.write(
    isWell
      ? '\nA user who falls out of a room now would be told.\n'
      : `\nA user who falls out of a room now would not be told: see the lines with ${MARKS.bad}.\n`,
  );
  process.exitCode = isWell ? 0 : 1;
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
