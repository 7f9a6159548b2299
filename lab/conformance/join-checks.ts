import { exec } from 'node:child_process';
import { promisify } from 'node:util';
import { notice, ping, reentry, roomQuery } from '../../functions/core/stanzas.ts';
import type { Join } from '../../functions/core/events.ts';
import { statusCodes } from '../user.ts';
import { type Check, check, expectEqual, expectFields } from './check.ts';
import { type Subject, isNotice } from './subject.ts';

/** Joins: their events, and what the stanza API does with them. Each check leaves the room. */

const COMMAND_TIMEOUT_MS = 30_000;
/** A report may wait behind another close. */
const CLOSE_WITHIN_MS = 60_000;
const run = promisify(exec);

/** A check with a join, which is ended afterwards. */
function withJoin(paragraph: string, what: string, body: (subject: Subject, join: Join) => Promise<unknown>): Check {
  return check(paragraph, what, async (subject) => {
    await subject.renewSession();
    const join = await subject.enter();
    try {
      return await body(subject, join);
    } finally {
      await subject.client.leave(join.room, join.nick);
    }
  });
}

const conflict = (subject: Subject): Readonly<Record<string, unknown>> => ({
  kind: 'error',
  type: 'cancel',
  condition: 'conflict',
  by: subject.host,
});

const EVENTS: readonly Check[] = [
  withJoin('What a server does, 1', 'entering a room sends muc.joined, with the moment as at', (_subject, join) => {
    const apart = Math.abs(join.at / 1000 - Date.now());
    expectEqual(apart < 60_000, true, `that at (${join.at}) is now, in microseconds`);
    return Promise.resolve();
  }),
  check('What a server does, 1', 'a room that refuses the user, or was not asked, is no join', async (subject) => {
    await subject.renewSession();
    const before = subject.receiver.events.length;
    const nowhere = `nowhere@no-such-service.${subject.remote}`;
    await subject.client.enter(nowhere, 'conformance');
    await subject.client.ping();
    const later = await subject.enter(); // its event comes after any for the other room
    await subject.client.leave(later.room, later.nick);
    const about = subject.receiver.events.slice(before).filter(({ room }) => room === nowhere);
    expectEqual(about, [], 'the events of that room');
  }),
  withJoin('What a server does, 2', 'a nick change sends muc.joined with a new at', async (subject, join) => {
    const changed = await subject.enter('conformance-2');
    expectEqual(changed.at > join.at, true, 'that the new at is greater');
    await subject.client.leave(join.room, changed.nick);
  }),
  withJoin('What a server does, 2', 'entering once more sends muc.joined with a new at', async (subject, join) => {
    const again = await subject.enter();
    expectEqual(again.at > join.at, true, 'that the new at is greater');
  }),
  check('What a server does, 3', 'leaving a room sends muc.left', async (subject) => {
    await subject.renewSession();
    const join = await subject.enter();
    const left = await subject.leave();
    expectEqual([left.room, left.at > join.at], [join.room, true], 'its room, and that its at is greater');
  }),
  check('What a server does, 3', 'the end of the session sends muc.left', async (subject) => {
    const session = await subject.session('conformance-other');
    await subject.enter('conformance-other', session);
    const before = subject.receiver.events.length;
    await session.leaveServer();
    await subject.left(session, before);
  }),
  check(
    'Retries',
    'after a 503 the event is sent again; with the same webhook-id, the body is the same',
    async (subject) => {
      await subject.renewSession();
      const { webhooks } = subject.receiver;
      const before = webhooks.length;
      subject.receiver.refuseNext();
      const join = await subject.enter();
      const [refused, ...later] = webhooks.slice(before).filter(({ events }) => events.length > 0);
      const again = later.find(({ headers }) => headers['webhook-id'] === refused?.headers['webhook-id']);
      if (again !== undefined) expectEqual(again.body.toString(), refused?.body.toString(), 'the body of the retry');
      await subject.client.leave(join.room, join.nick);
    },
  ),
];

const PINGS: readonly Check[] = [
  withJoin('The join', 'a ping of the join is answered by the room', async (subject, join) => {
    const answer = await subject.answer(ping(join));
    expectEqual(answer, { kind: 'result' });
  }),
  withJoin('What the server does', 'the client does not see the answer to a ping', async (subject, join) => {
    const before = subject.client.received.length;
    await subject.answer(ping(join));
    await subject.client.ping();
    const seen = subject.client.received
      .slice(before)
      .filter(({ stanza }) => stanza.attrs['from'] === `${join.room}/${join.nick}`);
    expectEqual(
      seen.map(({ stanza }) => String(stanza)),
      [],
      'what the client received from its occupant',
    );
  }),
  withJoin('Four kinds of stanza', 'disco#info of the room is answered by the room', async (subject, join) => {
    expectFields(await subject.answer(roomQuery(join)), { kind: 'result' });
  }),
  ...(
    [
      ['another at', (join: Join) => ({ at: join.at + 1 })],
      ['another nick', () => ({ nick: 'somebody-else' })],
      ['another room', (join: Join) => ({ room: `other-${join.room}` })],
    ] as const
  ).map(([what, change]) =>
    withJoin('The join', `a ping and a notice that name ${what}: conflict`, async (subject, join) => {
      const received = await subject.receivedDuring(async () => {
        for (const kind of [ping, notice] as const)
          expectFields(await subject.answer(kind({ ...join, ...change(join) }, undefined)), conflict(subject));
      });
      expectEqual(received.filter(isNotice).map(String), [], 'what the client received');
    }),
  ),
  check('Who answers', 'a session that is not connected: recipient-unavailable', async (subject) => {
    const join = subject.join({ user: `${subject.options.user}/nobody` });
    for (const kind of [ping, notice] as const)
      expectFields(await subject.answer(kind(join, undefined)), {
        type: 'cancel',
        condition: 'recipient-unavailable',
        by: subject.host,
      });
  }),
];

const NOTICES: readonly Check[] = [
  withJoin(
    'The join',
    'a notice for a join that was replaced: conflict, and it never reaches the client',
    async (subject, join) => {
      await subject.enter();
      const received = await subject.receivedDuring(async () =>
        expectFields(await subject.answer(notice(join, undefined)), conflict(subject)),
      );
      expectEqual(received.filter(isNotice).map(String), [], 'the notices that the client received');
    },
  ),
  withJoin(
    'The join',
    'a notice is delivered as it is, without its join, once: then conflict',
    async (subject, join) => {
      const received = await subject.receivedDuring(async () => {
        expectEqual(await subject.answer(notice(join, 'Why')), undefined);
        expectFields(await subject.answer(notice(join, 'Why')), conflict(subject));
      });
      const notices = received.filter(isNotice);
      expectEqual(notices.length, 1, 'the number of notices that the client received');
      const [delivered] = notices;
      expectEqual(
        {
          type: delivered?.attrs['type'] as unknown,
          from: delivered?.attrs['from'] as unknown,
          codes: delivered === undefined ? [] : statusCodes(delivered),
          reason: delivered?.getChild('x')?.getChild('item')?.getChildText('reason'),
          hasJoin: delivered?.getChild('join') !== undefined,
        },
        {
          type: 'unavailable',
          from: `${join.room}/${join.nick}`,
          codes: ['110', '330', '333'],
          reason: 'Why',
          hasJoin: false,
        },
        'the notice',
      );
      expectFields(await subject.answer(ping(join)), conflict(subject)); // a delivered notice ends the join
    },
  ),
];

const CLOSES: readonly Check[] = [
  withJoin(
    'What a server does, 4',
    'the end of the connection sends s2s.closed for the room’s host',
    async (subject, join) => {
      const { close } = subject.options;
      if (close === undefined) return 'set --close to a command that ends the connection';
      await run(close, { timeout: COMMAND_TIMEOUT_MS });
      const closed = await subject.receiver.event(
        's2s.closed',
        ({ type, remote, at }) => type === 's2s.closed' && remote === subject.remote && at > join.at,
        CLOSE_WITHIN_MS,
      );
      expectFields(await subject.answer(ping(join, closed.at)), { kind: 'result' });
      return undefined;
    },
  ),
  withJoin('Re-entry', 'a re-entry is a new join, with a new at, or is not offered', async (subject, join) => {
    const answer = await subject.answer(reentry(join));
    if (answer?.kind === 'error' && answer.condition === 'feature-not-implemented') {
      expectFields(answer, { type: 'cancel', by: subject.host });
      return 'not offered, or the operator does not want it';
    }
    expectFields(answer, { kind: 'result' });
    const again = await subject.receiver.event(
      'muc.joined',
      ({ type, room, at }) => type === 'muc.joined' && room === join.room && at > join.at,
    );
    expectFields(await subject.answer(ping(join)), conflict(subject));
    expectEqual(await subject.answer(ping({ ...join, at: again.at })), { kind: 'result' });
    return undefined;
  }),
];

export const JOIN_CHECKS: readonly Check[] = [...EVENTS, ...PINGS, ...NOTICES, ...CLOSES];
