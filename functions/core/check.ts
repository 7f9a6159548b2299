import { laterKey } from './batches.ts';
import { type CheckPorts, type CheckState, readState } from './check-state.ts';
import { Invocation, type Progress } from './invocation.ts';
import { beginOrWait, stopped } from './stop.ts';
import { isSuperseded, oldestOf } from './supersession.ts';
import { secondsToNextRound } from './time.ts';

/**
 * A check follows a close after its delay, or another reason to doubt that users are still in a room (rule 11 in
 * docs/rules.md).
 *
 * A check consists of rounds. The first round asks about every join on the remote host. While there is patience, each
 * later round asks about the joins that are still undecided. A round consists of invocations. Each invocation ends
 * before its time is over, and leaves a cursor to the next one.
 *
 * An invocation that fails runs again with the same input. That is safe: a join that was notified, or replaced by a
 * re-entry, has ended on the server, which answers `conflict` to a second notice and to a second re-entry.
 */

/** How often a check tries to claim its close, while newer closes change the record. */
const MAX_CLAIMS = 5;

/**
 * Runs one invocation of a check and returns the next state.
 * @throws what a port has thrown, once everything in flight has ended
 */
export async function runCheck(input: CheckState, ports: CheckPorts): Promise<CheckState> {
  const { state: begun, isStopped, told } = await beginOrWait(readState(input), ports);
  if (isStopped) return begun;
  const state = begun.cursor === undefined ? await beginRound(begun, ports) : begun;
  if (state.superseded === true) return state;
  const progress = await new Invocation(state, ports, told).run();
  const result = nextState(state, progress, ports.now());
  if (result.held === true) await ports.recordHold(result);
  return result;
}

/** Begins a round. If a newer check supersedes this one, the state is the last. */
async function beginRound(before: CheckState, ports: CheckPorts): Promise<CheckState> {
  const state = startRound(before, ports.now());
  const begun = state.round === 0 ? await begin(state, ports) : state;
  return begun ?? { ...state, next: 'done', superseded: true };
}

function startRound(state: CheckState, nowMs: number): CheckState {
  const deadline = state.deadline ?? nowMs / 1000 + state.patience;
  return { ...state, deadline, final: nowMs / 1000 >= deadline, open: 0 };
}

/** Records that the check has begun. Returns undefined if a newer check supersedes it (rule 5). */
async function begin(state: CheckState, ports: CheckPorts): Promise<CheckState | undefined> {
  let oldest = state.at;
  for (let attempt = 0; attempt < MAX_CLAIMS; attempt += 1) {
    const record = await ports.readClose(state);
    if (record === undefined) break; // expired, or deleted by hand: better checked twice than never
    if (isSuperseded(state, record)) return undefined;
    oldest = oldestOf(state, record);
    if (await ports.claimClose(state, record, oldest)) break;
  }
  return { ...state, oldest }; // even if closes come faster than they can be read: the joins must be checked
}

function nextState(before: CheckState, progress: Progress, nowMs: number): CheckState {
  const { cursor: _cursor, unaskedAfter, ...rest } = before;
  const state: CheckState = { ...rest, totals: progress.totals, open: progress.open };
  const unasked = (key: string | undefined): { unaskedAfter?: string } =>
    key === undefined ? {} : { unaskedAfter: key };
  const nextRound = (): CheckState => ({
    ...state,
    next: 'wait',
    wait: secondsToNextRound(before, nowMs),
    round: before.round + 1,
  });
  const sameRound: CheckState = {
    ...state,
    ...unasked(unaskedAfter),
    ...(progress.cursor === undefined ? {} : { cursor: progress.cursor }),
  };
  switch (progress.end) {
    case 'taken over':
      return { ...state, open: 0, next: 'done', superseded: true };
    case 'all asked':
      return progress.open === 0 ? { ...state, next: 'done' } : nextRound();
    case 'stopped':
      return { ...sameRound, next: 'page' };
    case 'held':
    case 'paused':
      return stopped(sameRound, progress.end, nowMs);
    case 'out of reach':
      return { ...nextRound(), ...unasked(unaskedAfterRound(before, progress)) };
  }
}

/** The key after which the next round must ask all joins, because the host was out of reach in this one. */
function unaskedAfterRound({ round, unaskedAfter }: CheckState, progress: Progress): string | undefined {
  const key = progress.unaskedAfter ?? progress.cursor ?? '';
  if (round === 0) return key;
  return unaskedAfter === undefined ? undefined : laterKey(unaskedAfter, key);
}
