import { ScanCommand } from '@aws-sdk/client-dynamodb';
import { hostsHealth } from '../../functions/core/heartbeats.ts';
import { type StackTable, describePause, nowSeconds } from '../controls.ts';
import { moduleCommand } from './commands.ts';
import { type Finding, type Findings, bad, note, ok } from './finding.ts';
import { commandLine } from '../../local/installation.ts';

/** Rows that are read to find hosts with joins. */
const MAX_ROWS = 1000;
/** Hosts that are tested if none is named. */
const MAX_HOSTS = 20;
/** An event waits a moment for others, and for the answer to the ones before. An older one is worth knowing. */
const OLD_SECONDS = 60;

/** The hosts that have sent a heartbeat in the last seven days, or have joins: at most 20, in the order of their names. */
export async function knownHosts({ client, name, hosts }: StackTable): Promise<readonly string[]> {
  const { heartbeats } = await hosts.read(nowSeconds());
  const { Items = [] } = await client.send(
    new ScanCommand({
      TableName: name,
      ProjectionExpression: 'pk',
      FilterExpression: 'begins_with(pk, :join)',
      ExpressionAttributeValues: { ':join': { S: 'JOIN#' } },
      Limit: MAX_ROWS,
    }),
  );
  const withJoins = Items.map(({ pk }) => pk?.S?.split('#')[1] ?? '');
  return [...new Set([...heartbeats.map(({ host }) => host), ...withJoins])].sort().slice(0, MAX_HOSTS);
}

/** What the table says about pause, held checks and heartbeats. @throws what the SDK throws */
export async function* tableFindings({ controls, hosts }: StackTable, of: readonly string[]): Findings {
  const now = nowSeconds();
  const pause = await controls.readPause(now);
  yield pause === undefined ? ok('Checks: not paused') : bad(`Checks: ${describePause(pause)}`);
  const held = await controls.held(now);
  if (held.length > 0)
    yield note(`Checks: ${held.length} held, whose users wait for you. Run ${commandLine('control', 'held')}`);
  const { heartbeats } = await hosts.read(now);
  const silent = new Set(hostsHealth(heartbeats, new Set(), now).silent);
  for (const host of of) {
    const heartbeat = heartbeats.find((one) => one.host === host);
    if (heartbeat === undefined)
      yield bad(
        `Heartbeat of ${host}: none has come. Run ${moduleCommand('announce')} on the server, and then this again; ` +
          `if none comes, ${moduleCommand('status')} says why`,
      );
    else yield heartbeatFinding(host, now - heartbeat.last, heartbeat, silent.has(host));
  }
}

function heartbeatFinding(
  host: string,
  age: number,
  queue: { readonly length: number; readonly oldest: number },
  isSilent: boolean,
): Finding {
  const came = `Heartbeat of ${host}: the last one came ${duration(age)} ago`;
  if (isSilent)
    return bad(`${came}. Run ${moduleCommand('status')} on the server: it says why its webhooks do not arrive`);
  const waits = `${came}, with ${queue.length} ${queue.length === 1 ? 'event' : 'events'} in the queue`;
  return queue.oldest < OLD_SECONDS
    ? ok(waits)
    : note(`${waits}, the oldest of which had waited for ${duration(queue.oldest)}`);
}

function duration(seconds: number): string {
  return seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}
