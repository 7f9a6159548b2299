import { describe, expect, it } from 'vitest';
import { firstState } from '../../functions/core/check-state.ts';
import { checkView, concerns, confirmedAt, listChecks } from '../../local/console/checks.ts';
import { health, isSilent } from '../../local/console/health.ts';
import { namedAnswers, outcome } from '../../local/console/outcomes.ts';
import type { ServerView } from '../../local/console/views.ts';
import type { Execution } from '../../local/executions.ts';

const NOW = 1_795_355_000_000;
const S = 1000;

const close = {
  ...{ host: 'example.net', remote: 'muc.host', cause: 'close' as const, at: (NOW - 10 * S) * 1000 },
  ...{ delay: 60, timeout: 60, patience: 300, dryRun: false, reenter: false },
};
const first = firstState(close, 'check', 50, NOW / 1000);

const execution = (changes: Partial<Execution> = {}): Execution => ({
  ...{ name: 'check', input: JSON.stringify(first), startDate: NOW, status: 'RUNNING', transitions: 1 },
  ...changes,
});
const inState = (name: string, changes: object = {}): Execution =>
  execution({ state: { name, input: { ...first, ...changes }, entered: NOW + 5 * S } });
const done = (changes: object = {}): Execution =>
  execution({
    status: 'SUCCEEDED',
    stopDate: NOW + 60 * S,
    output: JSON.stringify({ ...first, next: 'done', totals: { ...first.totals, pinged: 3, joined: 3 }, ...changes }),
  });

describe('a check', () => {
  it('that waits says until when', () => {
    expect(checkView(inState('Wait for ping_muc_delay'))).toMatchObject({
      ...{ host: 'example.net', remote: 'muc.host', cause: 'close', phase: 'waits' },
      ...{ closedAt: NOW - 10 * S, due: NOW + 50 * S, nextAt: NOW + 55 * S },
    });
    expect(checkView(execution())).toMatchObject({ phase: 'waits', nextAt: NOW + 50 * S });
  });

  it('that runs, asks again or is held says so', () => {
    const running = checkView(inState('Ping and notify'));
    expect(running.phase).toBe('runs');
    expect(running).not.toHaveProperty('nextAt');
    const again = { round: 2, wait: 30, open: 4 };
    expect(checkView(inState('Wait before asking again', again))).toMatchObject({
      ...{ phase: 'asks again', round: 2, open: 4, nextAt: NOW + 35 * S },
    });
    expect(checkView(inState('Wait before asking again', { ...again, held: true })).phase).toBe('is held');
  });

  it('that has ended says how', () => {
    expect(checkView(done())).toMatchObject({ phase: 'done', endedAt: NOW + 60 * S, totals: { pinged: 3 } });
    expect(checkView(done({ superseded: true })).phase).toBe('superseded');
    expect(checkView(done({ dropped: true })).phase).toBe('dropped');
    expect(checkView(execution({ status: 'ABORTED', stopDate: NOW })).phase).toBe('stopped');
    const failed = execution({ status: 'FAILED', stopDate: NOW, error: 'CheckFailed', cause: 'why' });
    expect(checkView(failed)).toMatchObject({ phase: 'failed', error: 'CheckFailed: why' });
  });

  it('is listed by when it acts, or by when it ended', () => {
    const later = { ...inState('Wait for ping_muc_delay', { wait: 500 }), name: 'later' };
    const sooner = { ...inState('Wait for ping_muc_delay', { wait: 10 }), name: 'sooner' };
    const running = { ...inState('Ping and notify'), name: 'running' };
    const old = { ...done(), name: 'old', stopDate: NOW - S };
    const { waiting, ended, waitingCount, endedCount } = listChecks([old, later, sooner, done(), running]);
    expect(waiting.map(({ name }) => name)).toEqual(['running', 'sooner', 'later']);
    expect(ended.map(({ name }) => name)).toEqual(['check', 'old']);
    expect([waitingCount, endedCount]).toEqual([3, 2]);
  });

  it('concerns its remote host and the rooms on it, or its one room', () => {
    const all = checkView(done());
    const one = checkView(done({ room: 'balcony@muc.host' }));
    expect(concerns(all, 'remote', 'muc.host')).toBe(true);
    expect(concerns(all, 'room', 'garden@muc.host')).toBe(true);
    expect(concerns(all, 'room', 'garden@other.host')).toBe(false);
    expect(concerns(one, 'room', 'garden@muc.host')).toBe(false);
    expect(concerns(one, 'room', 'balcony@muc.host')).toBe(true);
  });
});

describe('a join is confirmed', () => {
  const join = {
    ...{ user: 'juliet@example.net/phone', room: 'balcony@muc.host', nick: 'Juliet', since: NOW - 20 * S },
    ...{ isUndecided: false, host: 'example.net', remote: 'muc.host' },
  };
  const by = (changes: object, of: Partial<typeof join> = {}): number | undefined =>
    confirmedAt({ ...join, ...of }, [checkView(done(changes))]);

  it('by a check of its remote host or of its room that ended, and whose close came after the join', () => {
    expect(by({})).toBe(NOW + 60 * S);
    expect(by({ room: 'balcony@muc.host' })).toBe(NOW + 60 * S);
  });

  it('by no other: not by a check of another room or host, of an older close, of a dry run, or without an end', () => {
    expect(by({ room: 'garden@muc.host' })).toBeUndefined();
    expect(by({ remote: 'other.host' })).toBeUndefined();
    expect(by({ host: 'example.org' })).toBeUndefined();
    expect(by({}, { since: NOW })).toBeUndefined();
    expect(by({ dryRun: true })).toBeUndefined();
    expect(by({ superseded: true })).toBeUndefined();
    expect(by({}, { isUndecided: true })).toBeUndefined();
    expect(confirmedAt(join, [checkView(inState('Ping and notify'))])).toBeUndefined();
  });
});

describe('health', () => {
  const ok = { name: 'PingMuc: Checks fail', state: 'OK' as const, notifies: true };
  const ringing = (name: string): Parameters<typeof health>[0][number] => ({
    ...{ name: `PingMuc: ${name}`, state: 'ALARM', notifies: true },
  });
  const server = (host: string, changes: Partial<ServerView> = {}): ServerView => ({
    ...{ host, joins: 1, lastWebhook: NOW - 60 * S },
    ...changes,
  });

  it('is one sentence', () => {
    expect(health([ok], [server('a'), server('b'), server('c')], 2, NOW)).toEqual({
      level: 'good',
      sentence: 'All is well: 3 servers report, 2 checks wait, no alarm.',
    });
    expect(health([ok], [server('a')], 0, NOW).sentence).toBe(
      'All is well: 1 server reports, no check waits, no alarm.',
    );
  });

  it('names alarms and silent servers, three at most', () => {
    const alarms = [ok, ...['Checks fail', 'Webhooks fail', 'Checks are late', 'Table is throttled'].map(ringing)];
    expect(health(alarms, [server('a'), server('old', { lastWebhook: 0 })], 1, NOW)).toEqual({
      level: 'bad',
      sentence: '4 alarms: Checks fail, Webhooks fail, Checks are late and 1 more. 1 server fell silent: old.',
    });
  });

  it('does not say that all is well before the alarms are evaluated', () => {
    const unknown = { ...ok, state: 'INSUFFICIENT_DATA' as const };
    expect(health([unknown], [server('a')], 1, NOW)).toEqual({
      level: 'idle',
      sentence: '1 server reports, 1 check waits. The alarms are evaluated within a minute.',
    });
  });

  it('leaves out alarms that are only conditions of others', () => {
    const condition = { ...ringing('A server is silent, silence'), notifies: false };
    expect(health([ok, condition], [server('a')], 0, NOW).level).toBe('good');
  });

  it('says what to do before the first report', () => {
    const sentence =
      'No server has reported yet: put the settings that ping-muc has written into the XMPP server’s configuration';
    expect(health([ok], [], 0, NOW)).toEqual({ level: 'idle', sentence: `${sentence}.` });
    expect(health([ringing('Checks fail')], [], 0, NOW)).toEqual({
      level: 'bad',
      sentence: `${sentence}. 1 alarm: Checks fail.`,
    });
  });

  it('a server is silent without a webhook for 30 hours, or without a heartbeat for 15 minutes if it sends them', () => {
    const heartbeat = (minutes: number): NonNullable<ServerView['heartbeat']> => ({
      ...{ at: NOW - minutes * 60 * S, queued: 0, oldest: 0 },
    });
    expect(isSilent(server('a', { lastWebhook: NOW - 29 * 3600 * S }), NOW)).toBe(false);
    expect(isSilent(server('a', { lastWebhook: NOW - 31 * 3600 * S }), NOW)).toBe(true);
    expect(isSilent(server('a', { lastWebhook: 0, heartbeat: heartbeat(14) }), NOW)).toBe(false);
    expect(isSilent(server('a', { lastWebhook: 0, heartbeat: heartbeat(16) }), NOW)).toBe(true);
  });
});

describe('what became of a join', () => {
  it.each([
    ['join ended', ['not-acceptable', 'none'], 'Was out of the room, and was notified.'],
    ['join ended', ['none', 'none'], 'Was out of the room, and was notified.'],
    ['join ended', ['not-acceptable', 'result'], 'Was out of the room, and was brought back.'],
    [
      'join ended',
      ['not-acceptable', 'result, with lines missing'],
      'Was out of the room, and was brought back; some messages are missing.',
    ],
    ['join ended', ['not-acceptable', 'forbidden', 'none'], 'Was out of the room, and was notified.'],
    ['join ended', ['recipient-unavailable'], 'The session had ended. Nothing was sent.'],
    ['join ended', ['not-acceptable', 'conflict'], 'The user had left or joined again. Nothing was sent.'],
    ['join undecided', ['remote-server-timeout'], 'Nothing certain was learned. The room will be asked again.'],
    ['join decided', [], 'Is still in the room.'],
    ['check done', [], 'check done'],
  ])('%s, %j: %s', (message, answers, what) => {
    expect(outcome(message, answers)).toBe(what);
  });

  it('says which question an answer is to, where that is certain', () => {
    expect(namedAnswers('join ended', ['not-acceptable', 'forbidden', 'none'])).toEqual([
      'ping: not-acceptable',
      're-entry: forbidden',
      'notice: delivered',
    ]);
    expect(namedAnswers('join ended', ['none', 'result'])).toEqual(['ping: no answer', 're-entry: result']);
    expect(namedAnswers('join ended', ['not-acceptable', 'conflict'])).toEqual(['ping: not-acceptable', 'conflict']);
    expect(namedAnswers('join ended', ['item-not-found', 'item-not-found', 'none'])).toEqual([
      'ping: item-not-found',
      'item-not-found',
      'notice: delivered',
    ]);
    expect(namedAnswers('join undecided', ['none'])).toEqual(['ping: no answer']);
  });
});
