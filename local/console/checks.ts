import type { CheckState } from '../../functions/core/check-state.ts';
import type { Execution } from '../executions.ts';
import type { CheckView, ChecksView, JoinView, NameKind } from './views.ts';

/** Checks that a page lists of each kind. */
const MAX_LISTED = 200;

/** What only later releases write into a state. */
type State = Partial<CheckState> & { readonly held?: boolean; readonly dropped?: boolean };

/** Executions never change: a change makes a new object. So each is read once. */
const known = new WeakMap<Execution, CheckView>();

/** What an execution says about its check. */
export function checkView(execution: Execution): CheckView {
  let view = known.get(execution);
  if (view === undefined) known.set(execution, (view = read(execution)));
  return view;
}

function read(execution: Execution): CheckView {
  const state = currentState(execution);
  const { name, startDate, stopDate } = execution;
  const { host = '', remote = '', room, cause = 'close', at = 0, due, round = 0, open = 0, totals = {} } = state;
  const nextAt = continuesAt(execution, state);
  return {
    name,
    host,
    remote,
    cause,
    phase: phase(execution, state),
    closedAt: at / 1000,
    due: due === undefined ? startDate : due * 1000,
    round,
    open,
    isDryRun: state.dryRun === true,
    totals: Object.fromEntries(Object.entries(totals).map(([total, count]) => [total, Number(count)])),
    ...(room === undefined ? {} : { room }),
    ...(nextAt === undefined ? {} : { nextAt }),
    ...(stopDate === undefined ? {} : { endedAt: stopDate }),
    ...(execution.error === undefined ? {} : { error: `${execution.error}: ${execution.cause ?? ''}`.slice(0, 500) }),
  };
}

/** The newest state: where the execution is, or what it ended with, or else what it began with. */
function currentState({ state, output, input }: Execution): State {
  if (state !== undefined) return state.input as State;
  return JSON.parse(output ?? input) as State;
}

/** The states of the workflow that wait have such a name (infra/check-workflow.ts). */
const isWait = (name: string): boolean => name.startsWith('Wait');

function continuesAt({ status, state, startDate }: Execution, { wait = 0 }: State): number | undefined {
  if (status !== 'RUNNING') return undefined;
  if (state === undefined) return startDate + wait * 1000; // it has not entered its first state yet
  return isWait(state.name) ? state.entered + wait * 1000 : undefined;
}

function phase({ status, state: current }: Execution, state: State): CheckView['phase'] {
  if (status === 'FAILED') return 'failed';
  if (status === 'ABORTED') return 'stopped';
  if (status === 'SUCCEEDED') return state.superseded ? 'superseded' : state.dropped ? 'dropped' : 'done';
  if (state.held) return 'is held';
  if (current !== undefined && !isWait(current.name)) return 'runs';
  return (state.round ?? 0) > 0 ? 'asks again' : 'waits';
}

/** When a check will act, or act again. One that runs comes first. */
const actsAt = ({ nextAt = 0 }: CheckView): number => nextAt;

/** All checks: those that have not ended, soonest first, and those that have, newest first. */
export function listChecks(executions: readonly Execution[]): ChecksView {
  const views = executions.map(checkView);
  const waiting = views.filter(({ endedAt }) => endedAt === undefined).sort((a, b) => actsAt(a) - actsAt(b));
  const ended = views.filter(({ endedAt }) => endedAt !== undefined).sort((a, b) => endedOf(b) - endedOf(a));
  return {
    waiting: waiting.slice(0, MAX_LISTED),
    waitingCount: waiting.length,
    ended: ended.slice(0, MAX_LISTED),
    endedCount: ended.length,
  };
}

const endedOf = ({ endedAt = 0 }: CheckView): number => endedAt;

/** Whether a check asks about a room or a remote host. A user's checks are known from history only. */
export function concerns(check: CheckView, kind: NameKind, name: string): boolean {
  if (kind === 'remote') return check.remote === name;
  if (kind === 'user') return false;
  return check.room === undefined ? name.endsWith(`@${check.remote}`) : check.room === name;
}

/**
 * When a check last found that the user is still in the room: it asked about joins made before its close (rule 4,
 * docs/rules.md), has ended, and the join has stayed.
 * @param checks newest first
 */
export function confirmedAt(
  { room, since, isUndecided, host, remote }: JoinView & { readonly host: string; readonly remote: string },
  checks: readonly CheckView[],
): number | undefined {
  if (isUndecided) return undefined;
  return checks.find(
    (check) =>
      check.phase === 'done' &&
      check.host === host &&
      check.remote === remote &&
      (check.room ?? room) === room &&
      check.closedAt > since &&
      !check.isDryRun,
  )?.endedAt;
}
