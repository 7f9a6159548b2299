import { describe, expect, it } from 'vitest';
import type { Answer } from '../../functions/core/stanzas.ts';
import { pingVerdict, roomVerdict, speaksForHost } from '../../functions/core/verdict.ts';

const HOST = 'example.net';
const error = (type: string, condition: string, more: { by?: string; noAnswer?: boolean } = {}): Answer => ({ kind: 'error', type, condition, noAnswer: false, ...more });
const own = { by: HOST };

/** Rule 6, row by row: the answer, the verdict on a ping, the verdict on a question to the room, does it speak for the host. */
const rows: [answer: string, Answer | undefined, ping: string, room: string, host: boolean][] = [
  ['result', { kind: 'result' }, 'joined', 'joined', false],
  ['service-unavailable', error('cancel', 'service-unavailable'), 'joined', 'joined', false],
  ['feature-not-implemented', error('cancel', 'feature-not-implemented'), 'joined', 'joined', false],
  ['service-unavailable for now', error('wait', 'service-unavailable'), 'joined', 'joined', false],
  ['item-not-found', error('cancel', 'item-not-found'), 'ask-room', 'left', false],
  ['remote-server-not-found', error('cancel', 'remote-server-not-found'), 'undecided', 'undecided', true],
  ['remote-server-timeout', error('wait', 'remote-server-timeout'), 'undecided', 'undecided', true],
  ['remote-server-timeout of another type', error('cancel', 'remote-server-timeout'), 'undecided', 'undecided', true],
  ['remote-server-timeout by our server', error('wait', 'remote-server-timeout', own), 'undecided', 'undecided', true],
  ['remote-server-not-found by our server', error('cancel', 'remote-server-not-found', own), 'undecided', 'undecided', true],
  ['a silent room, as our server says', error('wait', 'remote-server-timeout', { ...own, noAnswer: true }), 'undecided', 'undecided', false],
  ['a silent room, as somebody else says', error('wait', 'remote-server-timeout', { noAnswer: true }), 'undecided', 'undecided', true],
  ['a silent room, as the room\'s host says', error('wait', 'remote-server-timeout', { noAnswer: true, by: 'muc.host' }), 'undecided', 'undecided', true],
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
  ['policy-violation by our server', error('modify', 'policy-violation', own), 'stale', 'stale', false],
  ['recipient-unavailable from the room', error('cancel', 'recipient-unavailable'), 'left', 'joined', false],
  ['conflict from the room', error('cancel', 'conflict'), 'left', 'joined', false],
  ['recipient-unavailable by the room\'s host', error('cancel', 'recipient-unavailable', { by: 'muc.host' }), 'left', 'joined', false],
  ['conflict by a name that is nearly ours', error('cancel', 'conflict', { by: 'example.net.evil' }), 'left', 'joined', false],
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
    expect(speaksForHost(answer, HOST)).toBe(host);
  });
});
