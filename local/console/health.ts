import type { AlarmView } from '../cloudwatch/views.ts';
import type { OverviewView, ServerView } from './views.ts';

/** A server with a heartbeat is silent after three missed ones. */
const SILENT_MS = 15 * 60_000;
/** A server without: joins are reported again once a day, so one with joins reports within 30 hours. */
const SILENT_WITHOUT_HEARTBEAT_MS = 30 * 3_600_000;
/** Names in a sentence. */
const MAX_NAMED = 3;

type Health = OverviewView['health'];

/** When a server was last heard of. */
const lastSign = ({ lastWebhook = 0, heartbeat }: ServerView): number => Math.max(lastWebhook, heartbeat?.at ?? 0);

export function isSilent(server: ServerView, nowMs: number): boolean {
  const limit = server.heartbeat === undefined ? SILENT_WITHOUT_HEARTBEAT_MS : SILENT_MS;
  return nowMs - lastSign(server) > limit;
}

/**
 * Whether all is well, in a sentence: what an operator wants to know first. Alarms that are only conditions of others
 * do not count.
 */
export function health(
  alarms: readonly Pick<AlarmView, 'name' | 'state' | 'notifies'>[],
  servers: readonly ServerView[],
  waitingCount: number,
  nowMs: number,
): Health {
  const ringing = alarms
    .filter(({ state, notifies }) => notifies && state === 'ALARM')
    .map(({ name }) => shortName(name));
  const silent = servers.filter((server) => isSilent(server, nowMs)).map(({ host }) => host);
  const none =
    servers.length > 0
      ? []
      : ['No server has reported yet: put the settings that ping-muc has written into the XMPP server’s configuration'];
  const troubles = [
    ...(ringing.length > 0 ? [`${count(ringing.length, 'alarm')}: ${named(ringing)}`] : []),
    ...(silent.length > 0 ? [`${count(silent.length, 'server')} fell silent: ${named(silent)}`] : []),
  ];
  if (troubles.length > 0) return { level: 'bad', sentence: `${[...none, ...troubles].join('. ')}.` };
  if (none.length > 0) return { level: 'idle', sentence: `${none.join()}.` };
  const reports = servers.length === 1 ? '1 server reports' : `${servers.length} servers report`;
  const waits =
    waitingCount === 1 ? '1 check waits' : waitingCount === 0 ? 'no check waits' : `${waitingCount} checks wait`;
  const isKnown = alarms.some(({ state, notifies }) => notifies && state !== 'INSUFFICIENT_DATA');
  if (!isKnown) return { level: 'idle', sentence: `${reports}, ${waits}. The alarms are evaluated within a minute.` };
  return { level: 'good', sentence: `All is well: ${reports}, ${waits}, no alarm.` };
}

/** An alarm's name without the stack's name. */
const shortName = (name: string): string => name.replace(/^[^:]*: /, '');

const count = (number: number, noun: string): string => `${number} ${noun}${number === 1 ? '' : 's'}`;

function named(names: readonly string[]): string {
  const rest = names.length - MAX_NAMED;
  return `${names.slice(0, MAX_NAMED).join(', ')}${rest > 0 ? ` and ${rest} more` : ''}`;
}
