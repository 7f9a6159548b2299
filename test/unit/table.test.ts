import { type DynamoDBClient, GetItemCommand, ScanCommand } from '@aws-sdk/client-dynamodb';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { RowRefusedError } from '../../functions/adapters/items.ts';
import { Table } from '../../functions/adapters/table.ts';
import type { StoredJoin } from '../../functions/core/check-state.ts';
import { inParallel } from '../../functions/core/concurrency.ts';
import type { CheckRequest, JoinedEvent, LeftEvent } from '../../functions/core/events.ts';
import { type TestTable, startTable } from './dynamodb.ts';
import { MapTable } from './world.ts';

vi.setConfig({ testTimeout: 60_000 }); // a second or two, on a machine that does nothing else

const NOW = 1_795_355_000;
const T = NOW * 1e6;
const DAY = 86_400;

let embedded: TestTable;
let client: DynamoDBClient;
let table: Table;

beforeAll(async () => {
  embedded = await startTable();
  ({ client } = embedded);
  table = new Table(client, embedded.name);
});

afterAll(() => embedded.close());

/** A remote host of its own for each test, so that none sees the rows of another. */
let hosts = 0;
const newRemote = (): string => `muc${(hosts += 1)}.host`;

const closeOf = (remote: string, at = T + 1e12): CheckRequest => ({
  host: 'example.net',
  remote,
  at,
  delay: 60,
  timeout: 60,
  patience: 0,
  dryRun: false,
  reenter: false,
  cause: 'close',
});

function joined(remote: string, at: number, fields: { user?: string; room?: string; nick?: string } = {}): JoinedEvent {
  const { user = 'user', room = 'room', nick = 'nick' } = fields;
  return {
    type: 'muc.joined',
    host: 'example.net',
    remote,
    room: `${room}@${remote}`,
    user: `${user}@example.net/phone`,
    nick,
    at,
  };
}

function left(remote: string, at: number, fields: { user?: string; room?: string } = {}): LeftEvent {
  const { nick: _nick, ...rest } = joined(remote, at, fields);
  return { ...rest, type: 'muc.left' };
}

async function readAll(close: CheckRequest, cursor?: string, now = NOW): Promise<StoredJoin[]> {
  const all: StoredJoin[] = [];
  for await (const joins of table.readJoins(close, cursor, now)) all.push(...joins);
  return all;
}

describe('events that come late, twice and reversed', () => {
  /** `end` is that of the session, in whatever room. */
  interface Step {
    readonly kind: 'join' | 'nick' | 'leave' | 'refresh' | 'end';
    readonly session: number;
    readonly room: number;
  }
  const kind = fc.constantFrom<Step['kind'][]>('join', 'join', 'nick', 'leave', 'refresh', 'end');
  const steps = fc.array(fc.record<Step>({ kind, session: fc.nat({ max: 2 }), room: fc.nat({ max: 1 }) }), {
    minLength: 1,
    maxLength: 12,
  });

  /** What a server reports of a history, in order: an event carries a new moment, a refresh that of its join. */
  function report(remote: string, history: readonly Step[]): (JoinedEvent | LeftEvent)[] {
    const present = new Map<string, JoinedEvent>();
    const events: (JoinedEvent | LeftEvent)[] = [];
    let at = T;
    const say = (event: JoinedEvent | LeftEvent): void => {
      const key = `${event.room} ${event.user}`;
      if (event.type === 'muc.joined') present.set(key, event);
      else present.delete(key);
      events.push(event);
    };
    for (const step of history) {
      const user = `user${step.session}`;
      if (step.kind === 'end') {
        for (const join of [...present.values()].filter((one) => one.user.startsWith(`${user}@`)))
          say({ ...left(remote, (at += 1)), room: join.room, user: join.user });
        continue;
      }
      const place = { user, room: `room${step.room}` };
      const known = present.get(`${place.room}@${remote} ${user}@example.net/phone`);
      if (step.kind === 'join') say(joined(remote, (at += 1), { ...place, nick: `nick${at - T}` }));
      if (step.kind === 'nick' && known) say(joined(remote, (at += 1), { ...place, nick: `renamed${at - T}` }));
      if (step.kind === 'leave' && known) say(left(remote, (at += 1), place));
      if (step.kind === 'refresh' && known) say(known);
    }
    return events;
  }

  it('leave the table as if they had come once and in order', async () => {
    const orders = fc.constantFrom('late', 'reversed', 'at once');
    await fc.assert(
      fc.asyncProperty(steps, orders, fc.infiniteStream(fc.nat()), async (history, order, dice) => {
        const remote = newRemote();
        const events = report(remote, history);
        const model = new MapTable();
        events.forEach((event) => model.record(event));
        const throwDie = (): number => dice.next().value as number;
        // some come twice, at any distance
        const delivered = [...events, ...events.filter(() => throwDie() % 3 === 0)];
        const shuffled =
          order === 'reversed'
            ? delivered.reverse()
            : delivered
                .map((event) => ({ event, place: throwDie() }))
                .sort((one, other) => one.place - other.place)
                .map(({ event }) => event);
        await inParallel(
          shuffled.map((event) => async () => {
            await table.record(event, NOW);
          }),
          order === 'at once' ? 8 : 1,
        );
        const close = closeOf(remote, T + 1 + (throwDie() % 14));
        expect(await readAll(close)).toEqual(model.page(close, undefined, 1000).joins);
      }),
      { numRuns: 100 },
    );
  });

  it('say whether they were news', async () => {
    const remote = newRemote();
    expect(await table.record(joined(remote, T + 5), NOW)).toBe(true);
    expect(await table.record(joined(remote, T + 5), NOW)).toBe(true);
    expect(await table.record(joined(remote, T + 4), NOW)).toBe(false);
    expect(await table.record(left(remote, T + 4), NOW)).toBe(false);
    expect(await table.record(left(remote, T + 6), NOW)).toBe(true);
    expect(await table.record(joined(remote, T + 5), NOW)).toBe(false);
  });
});

describe('a leave', () => {
  it('is remembered for an hour, so that a late join cannot bring it back', async () => {
    const remote = newRemote();
    await table.record(left(remote, T + 2), NOW);
    await table.record(joined(remote, T + 1), NOW + 3600);
    expect(await readAll(closeOf(remote))).toEqual([]);
  });

  it('is forgotten after that, even while its row is still there', async () => {
    const remote = newRemote();
    await table.record(left(remote, T + 2), NOW);
    expect(await table.record(joined(remote, T + 1), NOW + 3601)).toBe(true);
    expect(await readAll(closeOf(remote), undefined, NOW + 3601)).toHaveLength(1);
  });

  it('leaves nothing of the join but its end', async () => {
    const remote = newRemote();
    await table.record(joined(remote, T + 1), NOW);
    const [join] = await readAll(closeOf(remote));
    await table.markUndecided(join as StoredJoin, T + 9);
    await table.record(left(remote, T + 2), NOW);
    const { Item } = await client.send(
      new GetItemCommand({
        TableName: embedded.name,
        Key: { pk: { S: `JOIN#example.net#${remote}` }, sk: { S: join?.key ?? '' } },
      }),
    );
    expect(Item).toEqual({
      pk: { S: `JOIN#example.net#${remote}` },
      sk: { S: join?.key },
      at: { N: String(T + 2) },
      state: { S: 'left' },
      expires: { N: String(NOW + 3600) },
    });
  });
});

describe('a join', () => {
  it('expires nine days after its last renewal', async () => {
    const remote = newRemote();
    await table.record(joined(remote, T), NOW);
    expect(await readAll(closeOf(remote), undefined, NOW + 9 * DAY)).toHaveLength(1);
    expect(await readAll(closeOf(remote), undefined, NOW + 9 * DAY + 1)).toHaveLength(0);
    await table.record(joined(remote, T), NOW + 5 * DAY);
    expect(await readAll(closeOf(remote), undefined, NOW + 14 * DAY)).toHaveLength(1);
    expect(await readAll(closeOf(remote), undefined, NOW + 14 * DAY + 1)).toHaveLength(0);
  });

  it('counts only when it was made before the close', async () => {
    const remote = newRemote();
    await table.record(joined(remote, T + 5), NOW);
    expect(await readAll(closeOf(remote, T + 5))).toEqual([]);
    expect(await readAll(closeOf(remote, T + 6))).toHaveLength(1);
  });

  it('is one of its pair of hosts alone', async () => {
    const remote = newRemote();
    await table.record(joined(remote, T), NOW);
    expect(await readAll({ ...closeOf(remote), host: 'example.org' })).toEqual([]);
    expect(await readAll(closeOf(newRemote()))).toEqual([]);
  });

  it.each([
    ["# in the room's localpart", '#irc#%net', 'user', 'nick'],
    ["# in the user's localpart", 'room', 'us#er#', 'nick'],
    ['# everywhere', '#', '#', '#'],
    ['letters of all alphabets', 'zimmer-ßжע', '用户🦊', '🦊 & "<nick>" / #@'],
  ])('comes back as it was recorded: %s', async (_what, room, user, nick) => {
    const remote = newRemote();
    const { type: _type, ...join } = joined(remote, T, { room, user, nick });
    const longer = { ...join, user: `${join.user}/a#b@c` };
    await table.record({ type: 'muc.joined', ...join }, NOW);
    await table.record({ type: 'muc.joined', ...longer }, NOW);
    expect(await readAll(closeOf(remote))).toEqual(
      [join, longer].map((one) => ({ ...one, key: `${one.room}#${one.user}` })),
    );
  });
});

describe('a row that the table does not take', () => {
  it('is refused for what it is, and not as if the table were out of order', async () => {
    const remote = newRemote();
    const refusal: unknown = await table
      .record(joined(remote, T, { room: 'r'.repeat(1023) }), NOW)
      .catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(RowRefusedError);
    expect((refusal as Error).message).toMatch(/exceeded .*limit of ?1024 bytes/);
    expect((refusal as Error).message.length).toBeLessThanOrEqual(200);
    const close = { ...closeOf('r'.repeat(1023)), host: 'h'.repeat(1023) };
    await expect(table.recordClose(close, NOW)).rejects.toThrow(RowRefusedError);
    await expect(new Table(client, 'Nowhere').recordClose(closeOf(remote), NOW)).rejects.not.toThrow(RowRefusedError);
  });
});

describe('reading', () => {
  it('continues over pages on which everyone has left, by the bytes of the keys, and from any cursor', async () => {
    const remote = newRemote();
    const gone = Array.from({ length: 1000 }, (_, index) =>
      left(remote, T + index, { room: 'a', user: `user${index}` }),
    );
    const here = Array.from({ length: 60 }, (_, index) =>
      joined(remote, T + index, { room: 'b', user: `${['a', '🦊', 'é', '｡', 'z'][index % 5]}${(index * 37) % 60}` }),
    );
    const model = new MapTable();
    await inParallel(
      [...gone, ...here].map((event) => async () => {
        model.record(event);
        await table.record(event, NOW);
      }),
      16,
    );
    const close = closeOf(remote);
    const pages: StoredJoin[][] = [];
    for await (const page of table.readJoins(close, undefined, NOW)) pages.push([...page]);
    expect(pages.map(({ length }) => length)).toEqual([0, 60]);
    const all = pages.flat();
    expect(all).toEqual(model.page(close, undefined, 5000).joins);
    expect(await readAll(close, all[40]?.key)).toEqual(all.slice(41));
    await table.deleteJoin(all[40] as StoredJoin);
    expect(await readAll(close, all[40]?.key), 'though the row of the cursor is gone').toEqual(all.slice(41));
  });
});

describe('one room', () => {
  const ofRoom = (remote: string, room = 'room', at = T + 1e12): CheckRequest => ({
    ...closeOf(remote, at),
    cause: 'silence',
    room: `${room}@${remote}`,
  });

  it('is read alone, whatever the names of its neighbours, on from any cursor', async () => {
    const remote = newRemote();
    const names = ['room', 'room2', 'roo', 'a#room', 'room#'];
    const users = ['a', 'b', 'c'];
    for (const [n, room] of names.entries())
      for (const user of users) await table.record(joined(remote, T + n, { room, user }), NOW);
    await table.record(joined(`${remote}.example`, T, { user: 'd' }), NOW); // begins as the host does
    for (const room of names) {
      const close = ofRoom(remote, room);
      const all = await readAll(close);
      expect(all.map((join) => [join.room, join.user])).toEqual(
        users.map((user) => [`${room}@${remote}`, `${user}@example.net/phone`]),
      );
      expect(await readAll(close, all[0]?.key)).toEqual(all.slice(1));
    }
  });

  it('has its own record, apart from those of the pair’s closes, of other rooms and of joins', async () => {
    const remote = newRemote();
    await table.record(joined(remote, T), NOW);
    await table.recordClose(closeOf(remote, T + 5), NOW);
    await table.recordClose(ofRoom(remote, 'room', T + 9), NOW);
    expect(await table.readClose(closeOf(remote))).toEqual({ at: T + 5, delay: 60, oldestUnanswered: T + 5 });
    expect(await table.readClose(ofRoom(remote))).toEqual({ at: T + 9, delay: 60, oldestUnanswered: T + 9 });
    expect(await table.readClose(ofRoom(remote, 'other'))).toBeUndefined();
    expect(await table.claimClose(ofRoom(remote, 'room', T + 9), { at: T + 9, delay: 60 }, T + 9)).toBe(true);
    await table.passOn(ofRoom(remote, 'room', T + 9), T + 1);
    expect(await table.readClose(closeOf(remote))).toEqual({ at: T + 5, delay: 60, oldestUnanswered: T + 5 });
    expect(await table.readClose(ofRoom(remote))).toMatchObject({ checkBegun: T + 9, oldestUnanswered: T + 1 });
    expect(await readAll(closeOf(remote))).toHaveLength(1);
  });
});

describe('what a check writes', () => {
  async function one(remote: string): Promise<StoredJoin> {
    await table.record(joined(remote, T + 1), NOW);
    const [join] = await readAll(closeOf(remote));
    return join as StoredJoin;
  }

  it('a join is forgotten, but not the newer one that has taken its place', async () => {
    const remote = newRemote();
    const join = await one(remote);
    await table.record(joined(remote, T + 2), NOW);
    await table.deleteJoin(join);
    expect((await readAll(closeOf(remote))).map(({ at }) => at)).toEqual([T + 2]);
    await table.deleteJoin({ ...join, at: T + 2 });
    expect(await readAll(closeOf(remote))).toEqual([]);
    await table.deleteJoin(join); // twice is no error
  });

  it('a join is marked and unmarked, but not the newer one that has taken its place', async () => {
    const remote = newRemote();
    const join = await one(remote);
    await table.markUndecided(join, T + 9);
    expect(await readAll(closeOf(remote))).toEqual([{ ...join, undecidedBy: T + 9 }]);
    await table.markDecided(join, T + 9);
    expect(await readAll(closeOf(remote))).toEqual([join]);
    await table.record(joined(remote, T + 2), NOW);
    await table.markUndecided(join, T + 9);
    expect((await readAll(closeOf(remote)))[0]).not.toHaveProperty('undecidedBy');
  });

  it('a mark never brings back a row that is gone', async () => {
    const remote = newRemote();
    const join = await one(remote);
    await table.deleteJoin(join);
    await table.markUndecided(join, T + 9);
    await table.markDecided(join, T + 9);
    const { Items } = await client.send(
      new ScanCommand({
        TableName: embedded.name,
        FilterExpression: 'pk = :pk',
        ExpressionAttributeValues: { ':pk': { S: `JOIN#example.net#${remote}` } },
      }),
    );
    expect(Items).toEqual([]);
  });

  it('a mark of an older check neither replaces nor removes that of a newer one', async () => {
    const remote = newRemote();
    const join = await one(remote);
    await table.markUndecided(join, T + 9);
    await table.markUndecided(join, T + 8);
    await table.markDecided(join, T + 8);
    expect(await readAll(closeOf(remote))).toEqual([{ ...join, undecidedBy: T + 9 }]);
  });

  it('a mark outlives a renewal and a report that comes twice: the check has yet to ask about this join', async () => {
    const remote = newRemote();
    const join = await one(remote);
    await table.markUndecided(join, T + 9);
    await table.record(joined(remote, T + 1), NOW + DAY);
    expect(await readAll(closeOf(remote), undefined, NOW + DAY)).toEqual([{ ...join, undecidedBy: T + 9 }]);
  });
});

describe('closes', () => {
  it('of one pair: the newest is kept, and since when one is unanswered', async () => {
    const remote = newRemote();
    expect(await table.readClose(closeOf(remote))).toBeUndefined();
    await table.recordClose(closeOf(remote, T + 5), NOW);
    await table.recordClose({ ...closeOf(remote, T + 9), delay: 30 }, NOW);
    await table.recordClose(closeOf(remote, T + 7), NOW); // late
    await table.recordClose({ ...closeOf(remote, T + 9), delay: 31 }, NOW); // twice
    expect(await table.readClose(closeOf(remote))).toEqual({ at: T + 9, delay: 30, oldestUnanswered: T + 5 });
  });

  it('a check that begins answers all closes up to its own; the five delays of later ones count from it', async () => {
    const remote = newRemote();
    const [first, second] = [closeOf(remote, T + 5), closeOf(remote, T + 9)];
    await table.recordClose(first, NOW);
    expect(await table.claimClose(first, { at: T + 5, delay: 60, oldestUnanswered: T + 5 }, T)).toBe(true);
    expect(await table.readClose(first)).toEqual({ at: T + 5, delay: 60, checkBegun: T + 5, oldestAnswered: T });
    await table.recordClose(second, NOW);
    expect(await table.readClose(first)).toEqual({
      at: T + 9,
      delay: 60,
      checkBegun: T + 5,
      oldestAnswered: T,
      oldestUnanswered: T + 9,
    });
    expect(await table.claimClose(first, { at: T + 9, delay: 60 }, T)).toBe(true);
    expect(await table.readClose(first)).toEqual({
      at: T + 9,
      delay: 60,
      checkBegun: T + 5,
      oldestAnswered: T,
      oldestUnanswered: T + 5,
    });
    expect(await table.claimClose(second, { at: T + 9, delay: 60 }, T)).toBe(true);
    expect(await table.readClose(first)).toEqual({ at: T + 9, delay: 60, checkBegun: T + 9, oldestAnswered: T });
  });

  it('a check that has read an older record does not begin', async () => {
    const remote = newRemote();
    await table.recordClose(closeOf(remote, T + 5), NOW);
    const seen = await table.readClose(closeOf(remote));
    await table.recordClose(closeOf(remote, T + 9), NOW);
    expect(await table.claimClose(closeOf(remote, T + 5), seen ?? { at: 0, delay: 0 }, T)).toBe(false);
    expect(
      await table.claimClose(closeOf(newRemote(), T + 5), { at: T + 5, delay: 60 }, T),
      'nor does one without a record',
    ).toBe(false);
  });

  it('what a check leaves to a newer one counts from the oldest close that is unanswered', async () => {
    const remote = newRemote();
    const [first, second, third] = [closeOf(remote, T + 5), closeOf(remote, T + 9), closeOf(remote, T + 12)];
    await table.passOn(first, T + 5); // nothing is on record: nothing is to be remembered
    expect(await table.readClose(first)).toBeUndefined();
    await table.recordClose(first, NOW);
    expect(await table.claimClose(first, { at: T + 5, delay: 60 }, T)).toBe(true);
    await table.recordClose(second, NOW);
    await table.passOn(first, T + 5);
    expect(await table.readClose(first)).toEqual({
      at: T + 9,
      delay: 60,
      checkBegun: T + 5,
      oldestAnswered: T,
      oldestUnanswered: T + 5,
    });
    await table.passOn(second, T + 9); // an older one stays
    await table.recordClose(third, NOW);
    expect(await table.readClose(first)).toMatchObject({ at: T + 12, oldestUnanswered: T + 5 });
    expect(await table.claimClose(third, { at: T + 12, delay: 60 }, T + 5)).toBe(true);
    await table.passOn(second, T + 5); // a newer check has begun, and answers them itself
    expect(await table.readClose(first)).not.toHaveProperty('oldestUnanswered');
  });

  it('whatever happens to them, the plain map of the other tests does the same', async () => {
    const kind = fc.constantFrom('record', 'claim', 'pass on');
    const operations = fc.array(fc.record({ kind, at: fc.integer({ min: 1, max: 6 }), stale: fc.boolean() }), {
      maxLength: 10,
    });
    await fc.assert(
      fc.asyncProperty(operations, async (some) => {
        const remote = newRemote();
        const model = new MapTable();
        for (const { kind, at, stale } of some) {
          const close = closeOf(remote, T + at);
          const seen = model.readClose(close);
          if (kind === 'pass on') {
            model.passOn(close, T + at);
            await table.passOn(close, T + at);
          } else if (kind === 'record') {
            model.recordClose(close);
            await table.recordClose(close, NOW);
          } else if (seen !== undefined) {
            const read = stale ? { ...seen, at: seen.at - 1 } : seen;
            expect(await table.claimClose(close, read, T)).toBe(model.claimClose(close, read, T));
          }
          expect(await table.readClose(close)).toEqual(model.readClose(close));
        }
      }),
      { numRuns: 60 },
    );
  });
});
