import { styleText } from 'node:util';
import { parseArgs } from 'node:util';
import { diagnose } from './doctor/diagnosis.ts';
import type { Finding } from './doctor/finding.ts';

/** Tests each link of the way from a closed connection to a user who is told: `npm run doctor`. */

const USAGE = `Usage: npm run doctor -- [options]

Tests each link of the way, and says what to do about those that are broken. Ends with 0 only if a user who falls out of
a room now would be told.

  --host <XMPP host>     the host to test; can be repeated (default: the hosts that have reported)
  --data <directory>     the data directory of npm start  (PING_MUC_DATA, .ping-muc)
  --server-api <URL>     test this server API, and not the one that npm start was given
  --help
`;

const MARKS = { ok: styleText('green', '✓'), note: styleText('yellow', '!'), bad: styleText('red', '✗') } as const;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      host: { type: 'string', multiple: true, default: [] },
      data: { type: 'string', default: process.env['PING_MUC_DATA'] ?? '.ping-muc' },
      'server-api': { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return void process.stdout.write(USAGE);
  const findings: Finding[] = [];
  for await (const finding of diagnose({ data: values.data, hosts: values.host, serverApi: values['server-api'] })) {
    findings.push(finding);
    process.stdout.write(`${MARKS[finding.mark]} ${finding.text}\n`);
  }
  const broken = findings.filter(({ mark }) => mark === 'bad').length;
  process.stdout.write(
    broken === 0
      ? '\nA user who falls out of a room now would be told.\n'
      : `\nA user who falls out of a room now would not be told: see the lines with ${MARKS.bad}.\n`,
  );
  process.exitCode = broken === 0 ? 0 : 1;
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
