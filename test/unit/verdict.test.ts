import { describe, expect, it } from 'vitest';
import type { Answer } from '../../functions/core/stanzas.ts';
import { pingVerdict, roomVerdict, isHostOutOfReach } from '../../functions/core/verdict.ts';

const HOST = 'example.net';
type ErrorAnswer = Extract<Answer, { kind: 'error' }>;
const error = (type: string, condition: string, more: Partial<ErrorAnswer> = {}): Answer => ({
  kind: 'error',
  type,
  condition,
  ...more,
});
const own = { by: HOST };

/**
 * Rule 6 (docs/rules.md), row by row: the answer, the verdict on a ping, the verdict on a question to the room, and
 * whether the host is out of reach.
 */
const rows: [answer: string, Answer | undefined, ping: string, room: string, host: boolean][] = [
  ['result', { kind: 'result' }, 'joined', 'joined', false],
  ['service-unavailable', error('cancel', 'service-unavailable'), 'joined', 'joined', false],
  ['feature-not-implemented', error('cancel', 'feature-not-implemented'), 'joined', 'joined', false],
  ['service-unavailable for now', error('wait', 'service-unavailable'), 'joined', 'joined', false],
  ['item-not-found', error('cancel', 'item-not-found'), 'ask-room', 'no-room', false],
  ['remote-server-not-found', error('cancel', 'remote-server-not-found'), 'undecided', 'undecided', false],
  ['remote-server-timeout', error('wait', 'remote-server-timeout'), 'undecided', 'undecided', false],
  ['remote-server-timeout of another type', error('cancel', 'remote-server-timeout'), 'undecided', 'undecided', false],
  [
    "remote-server-not-found by the room's host",
    error('cancel', 'remote-server-not-found', { by: 'muc.host' }),
    'undecided',
    'undecided',
    false,
  ],
  ['remote-server-timeout by our server', error('wait', 'remote-server-timeout', own), 'undecided', 'undecided', true],
  [
    'remote-server-not-found by our server',
    error('cancel', 'remote-server-not-found', own),
    'undecided',
    'undecided',
    true,
  ],
  [
    'a silent room, as our server says',
    error('wait', 'remote-server-timeout', { ...own, silence: 'room' }),
    'undecided',
    'undecided',
    false,
  ],
  [
    'silence of all of its host, as our server says',
    error('wait', 'remote-server-timeout', { ...own, silence: 'host' }),
    'undecided',
    'undecided',
    false,
  ],
  [
    'a stream that broke, as our server says',
    error('wait', 'remote-server-timeout', { ...own, silence: 'broken' }),
    'inconclusive',
    'inconclusive',
    false,
  ],
  [
    'a stream that broke, as somebody else says',
    error('wait', 'remote-server-timeout', { silence: 'broken' }),
    'undecided',
    'undecided',
    false,
  ],
  [
    'a silent room, as somebody else says',
    error('wait', 'remote-server-timeout', { silence: 'room' }),
    'undecided',
    'undecided',
    false,
  ],
  [
    "a silent room, as the room's host says",
    error('wait', 'remote-server-timeout', { silence: 'room', by: 'muc.host' }),
    'undecided',
    'undecided',
    false,
  ],
  ['no answer', undefined, 'undecided', 'undecided', false],
  ['resource-constraint', error('wait', 'resource-constraint'), 'undecided', 'undecided', false],
  ['internal-server-error for now', error('wait', 'internal-server-error'), 'undecided', 'undecided', false],
  ['a condition of tomorrow for now', error('wait', 'undefined-condition'), 'undecided', 'undecided', false],
  ['not-acceptable', error('cancel', 'not-acceptable'), 'left', 'joined', false],
  ['not-allowed', error('cancel', 'not-allowed'), 'left', 'joined', false],
  ['bad-request', error('modify', 'bad-request'), 'left', 'joined', false],
  ['forbidden', error('auth', 'forbidden'), 'left', 'joined', false],
  ['registration-required', error('auth', 'registration-required'), 'left', 'joined', false],
  ['gone', error('cancel', 'gone'), 'left', 'joined', false],
  ['internal-server-error for good', error('cancel', 'internal-server-error'), 'left', 'joined', false],
  ['an error without a condition', error('cancel', 'undefined-condition'), 'left', 'joined', false],
  ['recipient-unavailable by our server', error('cancel', 'recipient-unavailable', own), 'gone', 'gone', false],
  ['conflict by our server', error('cancel', 'conflict', own), 'stale', 'stale', false],
  ['policy-violation by our server', error('modify', 'policy-violation', own), 'inconclusive', 'inconclusive', false],
  ['recipient-unavailable from the room', error('cancel', 'recipient-unavailable'), 'left', 'joined', false],
  ['conflict from the room', error('cancel', 'conflict'), 'left', 'joined', false],
  [
    "recipient-unavailable by the room's host",
    error('cancel', 'recipient-unavailable', { by: 'muc.host' }),
    'left',
    'joined',
    false,
  ],
  [
    'conflict by a name that is nearly ours',
    error('cancel', 'conflict', { by: 'example.net.evil' }),
    'left',
    'joined',
    false,
  ],
  ['conflict by a user of ours', error('cancel', 'conflict', { by: 'user@example.net' }), 'left', 'joined', false],
  ['conflict by nobody', error('cancel', 'conflict', { by: '' }), 'left', 'joined', false],
];

describe.each(rows)('%s', (_what, answer, ping, room, host) => {
  it(`to a ping: ${ping}`, () => {
    expect(pingVerdict(answer, HOST)).toBe(ping);
  });

  it(`to a question to the room: ${room}`, () => {
    expect(roomVerdict(answer, HOST)).toBe(room);
  });

  it(host ? 'speaks for the whole host' : 'speaks for itself alone', () => {
    expect(isHostOutOfReach([answer], HOST)).toBe(host);
  });
});

describe('several pings', () => {
  const silent = (silence: 'room' | 'host' | 'broken'): Answer =>
    error('wait', 'remote-server-timeout', { ...own, silence });
  const bounced = error('cancel', 'remote-server-not-found', own);

  it.each<[what: string, answers: (Answer | undefined)[], host: boolean]>([
    ['to which nothing came from their host', [silent('host'), silent('host')], true],
    ['of which some were bounced', [silent('host'), bounced], true],
    ['of which one was answered', [silent('host'), { kind: 'result' }], false],
    ['of which one was lost with its stream', [silent('host'), silent('broken')], false],
    ['of which one is missing', [silent('host'), undefined], false],
    ['that are silent while others are heard', [silent('room'), silent('room')], false],
    [
      'that another server calls out of reach',
      [error('cancel', 'remote-server-not-found'), error('cancel', 'remote-server-not-found')],
      false,
    ],
  ])('%s', (_what, answers, host) => {
    expect(isHostOutOfReach(answers, HOST)).toBe(host);
  });
});
