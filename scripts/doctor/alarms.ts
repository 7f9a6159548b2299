import type { AlarmView } from '../../local/cloudwatch/views.ts';
import { type Findings, note, ok } from './finding.ts';

const TIMEOUT_MS = 10_000;

/**
 * Which alarms of an instance on this machine are raised, as its console shows them. They are only mentioned, because
 * an alarm stays for some minutes after its cause has gone.
 * @param console the console's port
 */
export async function* alarmFindings(console: number | undefined): Findings {
  if (console === undefined) return yield note('Alarms: not known, because ping-muc runs with --console off');
  const url = `http://127.0.0.1:${console}/api/alarms`;
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    const { alarms } = (await answer.json()) as { readonly alarms: readonly AlarmView[] };
    const raised = alarms.filter(({ notifies, state }) => notifies && state === 'ALARM');
    for (const { name, since } of raised)
      yield note(`Alarm: "${name}", since ${new Date(since).toISOString()}. docs/runbook.md has a section about it`);
    if (raised.length === 0) yield ok('Alarms: none is raised');
  } catch (error) {
    yield note(`Alarms: not known, because the console at ${url} does not answer: ${String(error)}`);
  }
}
