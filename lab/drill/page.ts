import { format, resolveConfig } from 'prettier';
import { type Drilled, notifying, titleOf } from '../alarm-drill.ts';
import type { CleanDay } from './clean-day.ts';
import type { Synthesized } from './stack.ts';
import { MINUTE } from './world.ts';

/** docs/alarms.md: what the drill has found. */

const INTRODUCTION = `# Alarms, tried

\`npm run test:alarms\` has written this page. It raises each alarm of the synthesized stack by a fault, and plays days
on which nothing is wrong. It exits with an error if an alarm is not raised, is not over after the fault, or is raised
on a clean day. What to do when an alarm is raised: [runbook](runbook.md).

- **Real:** the handlers of both functions and the metrics that they write, the state machine with its waits and
  retries, the alarms and their evaluation ([local/cloudwatch](../local/cloudwatch)), HTTP between the check
  function and the server.
- **Simulated:** the clock, which jumps to the next event; DynamoDB, in memory; the XMPP servers and the rooms; Lambda's
  time-outs, throttles and metrics, which have AWS's time stamps. Metrics arrive at once. On AWS they arrive up to some
  minutes later, and the alarms are later by as much.`;

const MISSING_DATA = 'https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html';
const FAULTS = `## Faults

Two servers with 60 joins; users come and go, and every ten minutes a connection of the second server closes. A fault
begins after 42 minutes, and ends five minutes after its alarm is raised, unless it says otherwise. The times are in
minutes: from the beginning of the fault until the alarm is raised, and from its end until the alarm is over.

An alarm whose metric has no data after the fault is over late: until then, CloudWatch evaluates the last data that
there is ([How alarms treat missing data](${MISSING_DATA})).`;

const DAYS = `## Clean days

24 hours each, on which no alarm may be raised. Users come and go, each join is reported again once a day, every server
sends heartbeats, and connections close after which all users are still in their rooms. Besides:

- six times, a third of a link's users are lost, and notified in time;
- three times, a link flaps: it closes every 20 seconds for ten minutes;
- twice, Prosody restarts and is away for 30 seconds, while a check is due, and all of its users enter again;
- every half an hour, a room's silence is a reason for a check;
- every hour, a scanner sends a request without a signature.

Every event and every ping goes through the handlers. With 100,000 joins, 50 users a minute come and 50 go.`;

type Row = readonly (string | number)[];

const table = (header: Row, rows: readonly Row[]): string =>
  [header, header.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');

const minutes = (ms: number | undefined): string => (ms === undefined ? 'never' : String(Math.ceil(ms / MINUTE)));
const names = (all: readonly string[]): string => (all.length === 0 ? '' : all.join(', '));

/** The page, as Prettier formats it. @param path where it will be */
export async function alarmsPage(
  path: string,
  drilled: readonly Drilled[],
  synthesized: Synthesized,
  days: readonly CleanDay[],
): Promise<string> {
  const faults = table(
    ['alarm', 'severity', 'fault', 'raised after', 'over after', 'raised, too'],
    drilled.map(({ alarm, severity, fault, rangAfter, clearedAfter, alsoRang }) => {
      return [alarm, severity, fault, minutes(rangAfter), minutes(clearedAfter), names(alsoRang)];
    }),
  );
  const titles = new Set(notifying(synthesized).map(({ title }) => title));
  const counted = {
    webhooks: 'WebhooksAccepted',
    'joins and leaves stored': 'JoinsRecorded',
    checks: 'ChecksStarted',
    pings: 'PingsSent',
    notices: 'Notices',
  };
  const clean = table(
    ['joins', 'XMPP hosts', 'remote hosts', ...Object.keys(counted), 'alarms raised'],
    days.map(({ day, counts, raised }) => {
      const count = (name: string): number => counts.get(name) ?? 0;
      const figures = Object.values(counted).map((name) =>
        thousands(count(name) + (name === 'JoinsRecorded' ? count('LeavesRecorded') : 0)),
      );
      const { joins, hosts, remotes } = day;
      const rang = raised.map(({ name }) => titleOf(name)).filter((title) => titles.has(title));
      return [thousands(joins), hosts, remotes, ...figures, names(rang) || 'none'];
    }),
  );
  const text = [INTRODUCTION, FAULTS, faults, DAYS, clean].join('\n\n');
  return format(text, { ...(await resolveConfig(path)), parser: 'markdown' });
}

const thousands = (value: number): string => value.toLocaleString('en-US');
