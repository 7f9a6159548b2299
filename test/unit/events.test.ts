import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MAX_EVENTS, type Webhook, WebhookError, readWebhook } from '../../functions/core/events.ts';

const SENT = 1_795_355_060;
const T = 1_795_355_000_123_456;

const joined = (fields: object = {}): object => ({
  type: 'muc.joined',
  at: T,
  user: 'user@example.net/phone',
  room: 'room@muc.host',
  nick: 'nick',
  ...fields,
});
const left = (fields: object = {}): object => ({
  type: 'muc.left',
  at: T,
  user: 'user@example.net/phone',
  room: 'room@muc.host',
  ...fields,
});
const closed = (fields: object = {}): object => ({
  type: 's2s.closed',
  at: T,
  remote: 'muc.host',
  direction: 'outgoing',
  delay: 60,
  timeout: 60,
  patience: 0,
  dry_run: false,
  ...fields,
});
const requested = (fields: object = {}): object => ({
  type: 'check.requested',
  at: T,
  remote: 'muc.host',
  room: 'room@muc.host',
  cause: 'room-error',
  delay: 0,
  timeout: 60,
  patience: 0,
  dry_run: false,
  ...fields,
});
const read = (...events: unknown[]): Webhook => readWebhook(JSON.stringify({ host: 'example.net', events }), SENT);

describe('an event is rejected for its own fault, and its field is named', () => {
  it.each<[what: string, event: unknown, error: RegExp]>([
    ['no object', 'muc.joined', /^must be an object/],
    ['null', null, /^must be an object/],
    ['no type', { at: T }, /^type: must be muc\.joined/],
    ['a type of tomorrow', joined({ type: 'muc.kicked' }), /^type: must be muc\.joined/],
    ['no at', joined({ at: undefined }), /^at: missing$/],
    ['at in seconds', joined({ at: SENT }), /^at: must be whole microseconds/],
    ['at in milliseconds', left({ at: SENT * 1000 }), /^at: must be whole microseconds/],
    ['at with a fraction', joined({ at: T + 0.5 }), /^at: must be whole microseconds/],
    ['at beyond what a number holds', closed({ at: 2 ** 53 }), /^at: must be whole microseconds/],
    ['at as text', joined({ at: String(T) }), /^at: must be whole microseconds/],
    ['at from the future', joined({ at: (SENT + 301) * 1e6 }), /^at: lies more than 300 s after/],
    ['no user', joined({ user: undefined }), /^user: missing$/],
    ['a bare user', joined({ user: 'user@example.net' }), /^user: must be a full JID/],
    ['a user without a name', left({ user: 'example.net/x' }), /^user: must be a full JID/],
    ['a user of another host', joined({ user: 'user@example.org/phone' }), /^user: must be a session of example\.net/],
    ['a user of no end', joined({ user: `user@example.net/${'x'.repeat(4000)}` }), /^user: must be at most 3071/],
    ['an occupant for a room', joined({ room: 'room@muc.host/nick' }), /^room: must be a bare JID/],
    ['a host for a room', left({ room: 'muc.host' }), /^room: must be a bare JID/],
    ['a room of our own', joined({ room: 'room@example.net' }), /^room: must be a room on a remote host/],
    [
      'a key that the table does not take',
      joined({ room: `${'r'.repeat(600)}@muc.host`, user: `user@example.net/${'p'.repeat(500)}` }),
      /^room: together with user it may take 1023 bytes/,
    ],
    ['no nick', joined({ nick: undefined }), /^nick: missing$/],
    ['an empty nick', joined({ nick: '' }), /^nick: must be a nick/],
    ['a nick that is no XML', joined({ nick: 'a\u0001' }), /^nick: must be a nick/],
    ['a nick that is too long in bytes', joined({ nick: 'é'.repeat(600) }), /^nick: must be a nick/],
    ['no remote', closed({ remote: undefined }), /^remote: missing$/],
    ['a room for a remote', closed({ remote: 'room@muc.host' }), /^remote: must be a host name/],
    ['oneself for a remote', closed({ remote: 'EXAMPLE.net' }), /^remote: must be another host/],
    ['a direction of its own', closed({ direction: 'sideways' }), /^direction: must be incoming or outgoing/],
    ['a reason that is no text', closed({ reason: 'a\u0000' }), /^reason: must be text/],
    ['a reason of no end', closed({ reason: 'x'.repeat(1025) }), /^reason: must be at most 1024/],
    ['no delay', closed({ delay: undefined }), /^delay: missing$/],
    ['no wait at all', closed({ delay: 0 }), /^delay: must be a whole number from 1 to 86400/],
    ['a time-out of six minutes', closed({ timeout: 301 }), /^timeout: must be a whole number from 1 to 300/],
    ['patience below 0', closed({ patience: -1 }), /^patience: must be a whole number from 0 to 86400/],
    ['patience in parts', closed({ patience: 0.5 }), /^patience: must be a whole number/],
    ['dry_run as text', closed({ dry_run: 'false' }), /^dry_run: must be true or false/],
    ['reenter as text', closed({ reenter: 'true' }), /^reenter: must be true or false/],
    ['a check of no room for its silence', requested({ room: undefined, cause: 'silence' }), /^room: missing$/],
    ['a limit below 0', closed({ notice_limit: -1 }), /^notice_limit: must be a whole number from 0 to 1000000/],
    ['a limit in parts', requested({ notice_limit: 1.5 }), /^notice_limit: must be a whole number/],
    ['a share as text', closed({ notice_share: '1' }), /^notice_share: must be a number from 0 to 1/],
    ['a share above 1', requested({ notice_share: 1.01 }), /^notice_share: must be a number from 0 to 1/],
    ['a check of an occupant', requested({ room: 'room@muc.host/nick' }), /^room: must be a bare JID/],
    ['a check of a room elsewhere', requested({ room: 'room@other.host' }), /^room: must be a room on remote$/],
    [
      'a check of a room of our own',
      requested({ remote: 'example.net', room: 'room@example.net' }),
      /^remote: must be another host/,
    ],
    [
      'a check of a room that no row can be of',
      requested({ room: `${'r'.repeat(1020)}@muc.host` }),
      /^room: it may take 1024 bytes$/,
    ],
    ['a check without a cause', requested({ cause: undefined }), /^cause: missing$/],
    ['a check because of a close', requested({ cause: 'close' }), /^cause: must be room-error, silence or operator$/],
    ['a check in the past', requested({ delay: -1 }), /^delay: must be a whole number from 0 to 86400/],
    ['a check without patience, and none said', requested({ patience: undefined }), /^patience: missing$/],
  ])('%s', (_what, event, error) => {
    const result = read(joined(), event, closed());
    expect(result.rejected).toEqual([{ index: 1, error: expect.stringMatching(error) as string }]);
    expect(result).toMatchObject({
      accepted: 2,
      joins: [{ index: 0, event: { nick: 'nick' } }],
      closes: [{ index: 2, event: { remote: 'muc.host' } }],
    });
  });

  it('two hosts whose names are too long for a key of the table, though neither is too long by itself', () => {
    const close = (remoteBytes: number): Webhook =>
      readWebhook(
        JSON.stringify({ host: 'h'.repeat(1020), events: [closed({ remote: 'r'.repeat(remoteBytes) })] }),
        SENT,
      );
    expect(close(1021)).toMatchObject({ accepted: 1, rejected: [] });
    expect(close(1022)).toMatchObject({
      accepted: 0,
      rejected: [{ index: 0, error: 'remote: together with host it may take 2041 bytes' }],
    });
  });

  it('one bad event, whatever it is, never blocks the good ones', () => {
    fc.assert(
      fc.property(
        fc.array(fc.jsonValue(), { maxLength: 5 }),
        fc.array(fc.jsonValue(), { maxLength: 5 }),
        (before, after) => {
          const result = read(...before, joined(), ...after);
          expect(result.joins).toEqual([
            {
              index: before.length,
              event: expect.objectContaining({ at: T, user: 'user@example.net/phone' }) as object,
            },
          ]);
          expect(result.rejected).toHaveLength(before.length + after.length);
          expect(result.accepted).toBe(1);
        },
      ),
    );
  });
});

describe('what is taken', () => {
  it('is normalised before it becomes a key', () => {
    const result = readWebhook(
      JSON.stringify({
        host: 'Example.NET',
        events: [
          joined({ user: 'User@EXAMPLE.net/Phone', room: 'Room@MUC.host', nick: 'Nick' }),
          closed({ remote: 'MUC.host' }),
        ],
      }),
      SENT,
    );
    expect(result).toMatchObject({
      host: 'example.net',
      joins: [
        {
          event: {
            type: 'muc.joined',
            host: 'example.net',
            remote: 'muc.host',
            room: 'room@muc.host',
            user: 'user@example.net/Phone',
            nick: 'Nick',
            at: T,
          },
        },
      ],
      closes: [{ event: { host: 'example.net', remote: 'muc.host' } }],
    });
  });

  it('may be a check of a room, for each cause, at once or later', () => {
    const causes = ['room-error', 'silence', 'operator'] as const;
    const { closes, ...result } = read(
      ...causes.map((cause, n) => requested({ cause, room: `Room-${n}@MUC.host`, delay: n, reenter: true })),
    );
    expect(result).toMatchObject({ accepted: 3, rejected: [], joins: [] });
    expect(closes.map(({ event }) => event)).toEqual(
      causes.map((cause, delay) => ({
        host: 'example.net',
        remote: 'muc.host',
        room: `room-${delay}@muc.host`,
        cause,
        at: T,
        delay,
        timeout: 60,
        patience: 0,
        dryRun: false,
        reenter: true,
      })),
    );
  });

  it('may be from the near future, by clocks that differ as they may', () => {
    expect(read(joined({ at: (SENT + 300) * 1e6 })).accepted).toBe(1);
  });

  it('may have fields of tomorrow', () => {
    expect(read(joined({ role: 'moderator' }), closed({ streams: 2 }))).toMatchObject({ accepted: 2, rejected: [] });
  });

  it('may be a key of 1,024 bytes to the byte', () => {
    const user = 'user@example.net/phone';
    const longest = (bytes: number): object =>
      joined({ room: `${'r'.repeat(bytes - user.length - 1 - '@muc.host'.length)}@muc.host` });
    expect(read(longest(1024)).accepted).toBe(1);
    expect(read(longest(1025)).accepted).toBe(0);
  });

  it('may be nothing at all', () => {
    expect(read()).toEqual({ host: 'example.net', accepted: 0, rejected: [], joins: [], closes: [] });
  });
});

describe('folding', () => {
  it('keeps the newest event of each join and the newest close of each host, in whatever order they come', () => {
    const events = [
      joined({ at: T }),
      joined({ at: T + 1, nick: 'renamed' }),
      left({ at: T + 2 }),
      joined({ at: T + 3, room: 'other@muc.host' }),
      closed({ at: T + 4, patience: 1 }),
      closed({ at: T + 5, patience: 2 }),
      closed({ at: T + 6, remote: 'other.host' }),
    ];
    fc.assert(
      fc.property(fc.shuffledSubarray(events, { minLength: events.length }), (shuffled) => {
        const result = read(...shuffled);
        expect(result.accepted).toBe(7);
        const place = (at: number): number => shuffled.findIndex((event) => (event as { at: number }).at === at);
        for (const { index, event } of [...result.joins, ...result.closes]) expect(index).toBe(place(event.at));
        expect(result.joins.map(({ event: { type, at } }) => [type, at]).sort()).toEqual([
          ['muc.joined', T + 3],
          ['muc.left', T + 2],
        ]);
        expect(result.closes.map(({ event: { remote, at } }) => [remote, at]).sort()).toEqual([
          ['muc.host', T + 5],
          ['other.host', T + 6],
        ]);
      }),
    );
  });
});

it('folding keeps the newest check of each room and of each host, apart from the closes of that host', () => {
  const events = [
    requested({ at: T }),
    requested({ at: T + 1, cause: 'silence' }),
    requested({ at: T + 2, room: 'other@muc.host' }),
    closed({ at: T + 3 }),
    requested({ at: T + 4, room: undefined }),
    requested({ at: T + 5, room: undefined, cause: 'operator' }),
  ];
  fc.assert(
    fc.property(fc.shuffledSubarray(events, { minLength: events.length }), (shuffled) => {
      const { closes } = read(...shuffled);
      expect(closes.map(({ event: { at, cause, room } }) => [at, cause, room]).sort()).toEqual([
        [T + 1, 'silence', 'room@muc.host'],
        [T + 2, 'room-error', 'other@muc.host'],
        [T + 3, 'close', undefined],
        [T + 5, 'operator', undefined],
      ]);
    }),
  );
});

describe('a request is refused as a whole', () => {
  it.each<[what: string, body: string, error: RegExp]>([
    ['that is not JSON', '{"host":', /must be JSON/],
    ['that is a list', '[]', /must be an object/],
    ['that is null', 'null', /must be an object/],
    ['without a host', '{"events":[]}', /^host: /],
    ['with a JID for a host', '{"host":"user@example.net","events":[]}', /^host: /],
    ['without events', '{"host":"example.net"}', /^events: must be a list/],
    ['with an event for events', '{"host":"example.net","events":{}}', /^events: must be a list/],
    [
      'with too many events',
      JSON.stringify({ host: 'example.net', events: Array.from({ length: MAX_EVENTS + 1 }, () => null) }),
      /^events: at most 1000 a request, got 1001/,
    ],
  ])('%s', (_what, body, error) => {
    expect(() => readWebhook(body, SENT)).toThrow(WebhookError);
    expect(() => readWebhook(body, SENT)).toThrow(error);
  });
});

describe('a limit of notices', () => {
  const limits = (fields: object): unknown[] =>
    read(closed(fields), requested(fields)).closes.map(({ event }) => event.limit);

  it('is read from closes and from other causes; without a share it is for more than half', () => {
    expect(limits({ notice_limit: 20, notice_share: 0 })).toEqual(Array(2).fill({ notices: 20, share: 0 }));
    expect(limits({ notice_limit: 20 })).toEqual(Array(2).fill({ notices: 20, share: 0.5 }));
  });

  it.each([{}, { notice_limit: 0 }, { notice_share: 0.1 }])('there is none with %j', (fields) => {
    expect(limits(fields)).toEqual([undefined, undefined]);
  });
});

describe('a heartbeat', () => {
  const heartbeat = (queue: unknown): Webhook =>
    readWebhook(JSON.stringify({ host: 'example.net', queue, events: [joined()] }), SENT);

  it('is the state of the queue; a webhook without it is none', () => {
    expect(heartbeat({ length: 3, oldest: 60, more: true }).queue).toEqual({ length: 3, oldest: 60 });
    expect(read(joined())).not.toHaveProperty('queue');
    expect(read(joined())).not.toHaveProperty('queueError');
  });

  it.each([
    [3, 'queue: must be an object with length and oldest'],
    [null, 'queue: must be an object with length and oldest'],
    [{ length: 1 }, 'queue.oldest: missing'],
    [{ length: -1, oldest: 0 }, 'queue.length: must be a whole number, 0 or more'],
    [{ length: 1, oldest: 0.5 }, 'queue.oldest: must be a whole number, 0 or more'],
    [{ length: '1', oldest: 0 }, 'queue.length: must be a whole number, 0 or more'],
  ])('that is %j is ignored, with a reason, and the events are accepted', (queue, queueError) => {
    const webhook = heartbeat(queue);
    expect(webhook).toMatchObject({ accepted: 1, rejected: [], queueError });
    expect(webhook).not.toHaveProperty('queue');
  });
});

describe('the samples of the contract', () => {
  const sample = (name: string): Webhook =>
    readWebhook(readFileSync(new URL(`../../protocol/samples/webhook-${name}.json`, import.meta.url), 'utf8'), SENT);

  it('are read whole', () => {
    expect(sample('joined')).toMatchObject({
      accepted: 1,
      joins: [{ event: { type: 'muc.joined', nick: 'nickname', at: T } }],
    });
    expect(sample('left')).toMatchObject({ accepted: 1, joins: [{ event: { type: 'muc.left', at: T + 1_000_000 } }] });
    expect(sample('closed')).toMatchObject({
      accepted: 1,
      closes: [
        {
          event: {
            remote: 'muc.host',
            delay: 60,
            timeout: 60,
            patience: 0,
            dryRun: false,
            reenter: false,
            cause: 'close',
          },
        },
      ],
    });
  });

  it('of a check of one room', () => {
    expect(sample('requested').closes.map(({ event }) => event)).toEqual([
      {
        host: 'example.net',
        remote: 'muc.host',
        room: 'room@muc.host',
        cause: 'room-error',
        at: T + 2_000_000,
        delay: 0,
        timeout: 60,
        patience: 300,
        dryRun: false,
        reenter: true,
      },
    ]);
  });

  it('of a batch: the join that was left again, the other join, and one close of the two', () => {
    const { accepted, rejected, joins, closes } = sample('batch');
    expect({ accepted, rejected }).toEqual({ accepted: 5, rejected: [] });
    expect(joins.map(({ event: { type, user } }) => [type, user])).toEqual([
      ['muc.joined', 'zoë@example.net/Gajim at home/2'],
      ['muc.left', 'user@example.net/phone'],
    ]);
    expect(joins[0]?.event).toMatchObject({ room: 'd\\27artagnan@muc.host', nick: 'L\'ami "Tom" & <Jerry> / 🦊' });
    expect(closes.map(({ event }) => event)).toEqual([
      {
        host: 'example.net',
        remote: 'muc.host',
        at: T + 2_000_001,
        delay: 60,
        timeout: 60,
        patience: 600,
        dryRun: true,
        reenter: true,
        limit: { notices: 500, share: 0.25 },
        cause: 'close',
      },
    ]);
  });

  it('of a heartbeat', () => {
    expect(sample('heartbeat')).toEqual({
      host: 'example.net',
      queue: { length: 0, oldest: 0 },
      accepted: 0,
      rejected: [],
      joins: [],
      closes: [],
    });
  });
});
