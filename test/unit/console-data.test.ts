import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DynamoDBClient, waitUntilTableExists } from '@aws-sdk/client-dynamodb';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Table } from '../../functions/adapters/table.ts';
import type { CheckRequest, JoinedEvent } from '../../functions/core/events.ts';
import { TABLE_KEYS } from '../../functions/names.ts';
import { ConsoleDatabase } from '../../local/console/database.ts';
import { History } from '../../local/console/history.ts';
import { JoinIndex } from '../../local/console/joins.ts';
import { Names } from '../../local/console/names.ts';
import { readChange } from '../../local/console/table-writes.ts';
import { trim } from '../../local/console/trim.ts';
import { type Database, startDynamoDB } from '../../local/dynamodb.ts';

vi.setConfig({ testTimeout: 60_000 }); // a second or two, on a machine that does nothing else

const NOW = 1_795_355_000;
const DAY_MS = 86_400_000;

let directory: string;
let database: ConsoleDatabase;
let names: Names;
const errors: unknown[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'console-test-'));
  database = new ConsoleDatabase(join(directory, 'console.db'), (error) => errors.push(error));
  names = new Names(database);
});
afterEach(async () => {
  database.close();
  await rm(directory, { recursive: true });
  expect(errors.splice(0)).toEqual([]);
});

const joined = (number: number, changes: Partial<JoinedEvent> = {}): JoinedEvent => ({
  type: 'muc.joined',
  host: 'example.net',
  remote: 'muc.host',
  room: `room${number}@muc.host`,
  user: `user${number}@example.net/phone`,
  nick: `Nick ${number}`,
  at: NOW * 1e6 + number,
  ...changes,
});

describe('the index of joins', () => {
  const KEYS = [TABLE_KEYS.partition, TABLE_KEYS.sort] as const;
  const DEFINITION = {
    name: 'Joins',
    keySchema: [
      { AttributeName: KEYS[0], KeyType: 'HASH' as const },
      { AttributeName: KEYS[1], KeyType: 'RANGE' as const },
    ],
    attributes: KEYS.map((AttributeName) => ({ AttributeName, AttributeType: 'S' as const })),
    ttlAttribute: TABLE_KEYS.expires,
  };
  let dynamodb: Database;
  let client: DynamoDBClient;
  let table: Table;
  let joins: JoinIndex;
  const signal = new AbortController().signal;

  beforeEach(async () => {
    joins = new JoinIndex(database, names);
    dynamodb = await startDynamoDB(join(directory, 'dynamodb'), [DEFINITION], {
      onWrite: (operation, request) => {
        const change = readChange(operation, request);
        if (change !== undefined) joins.apply(change);
      },
    });
    const credentials = { accessKeyId: 'test', secretAccessKey: 'test' };
    client = new DynamoDBClient({ endpoint: dynamodb.endpoint, region: 'eu-central-1', credentials });
    await waitUntilTableExists({ client, maxWaitTime: 10, minDelay: 0.01, maxDelay: 0.05 }, { TableName: 'Joins' });
    table = new Table(client, 'Joins');
  });
  afterEach(async () => {
    client.destroy();
    await dynamodb.close();
  });

  const users = (): readonly string[] => {
    database.flush();
    return joins.of('remote', 'muc.host').map(({ user }) => user);
  };
  const check: CheckRequest = {
    ...{ host: 'example.net', remote: 'muc.host', cause: 'close', at: (NOW + 100) * 1e6, delay: 60, timeout: 60 },
    ...{ patience: 300, dryRun: false, reenter: false },
  };
  const stored = async (): Promise<Awaited<ReturnType<ReturnType<Table['readJoins']>['next']>>['value']> =>
    (await table.readJoins(check, undefined, NOW).next()).value;

  it('follows what the functions write to the table', async () => {
    await table.record(joined(1), NOW);
    await table.record(joined(2), NOW);
    await table.record(joined(3), NOW);
    await table.record({ ...joined(2), type: 'muc.left', at: joined(2).at + 10 }, NOW);
    expect(users()).toEqual(['user1@example.net/phone', 'user3@example.net/phone']);

    const [first, third] = (await stored()) ?? [];
    if (first === undefined || third === undefined) throw new Error('the table has no joins');
    await table.markUndecided(first, check.at);
    await table.deleteJoin(third);
    expect(users()).toEqual(['user1@example.net/phone']);
    expect(joins.of('user', 'user1@example.net')[0]).toMatchObject({ isUndecided: true, nick: 'Nick 1' });
    await table.markDecided(first, check.at);
    database.flush();
    expect(joins.of('room', 'room1@muc.host')[0]?.isUndecided).toBe(false);
  });

  it('ignores writes that the table did not accept, and rows that are no joins', async () => {
    await table.record(joined(1, { nick: 'New' }), NOW);
    expect(await table.record(joined(1, { nick: 'Old', at: joined(1).at - 1 }), NOW)).toBe(false);
    expect(await table.record({ ...joined(1), type: 'muc.left', at: joined(1).at - 1 }, NOW)).toBe(false);
    await table.recordClose(check, NOW);
    database.flush();
    expect(joins.of('remote', 'muc.host').map(({ nick }) => nick)).toEqual(['New']);
  });

  it('reads the table after a start, and does not bring back what ended meanwhile', async () => {
    for (let number = 1; number <= 5; number += 1) await table.record(joined(number), NOW);
    database.flush();
    joins = new JoinIndex(database, names);
    expect(users()).toEqual([]);
    joins.apply({ kind: 'ended', key: joined(3) });
    joins.apply({ kind: 'joined', join: { ...joined(4, { nick: 'New', at: joined(4).at + 1 }), isUndecided: false } });
    database.flush();
    await joins.fill(client, 'Joins', signal);
    expect(joins.isFilling).toBe(true);
    expect(users()).toEqual([1, 2, 4, 5].map((number) => `user${number}@example.net/phone`));
    expect(joins.isFilling).toBe(false);
    expect(joins.of('room', 'room4@muc.host')[0]?.nick).toBe('New');
  });
});

describe('search', () => {
  it('finds users, rooms and remote hosts by a part of their names; those that begin with it come first', () => {
    const joins = new JoinIndex(database, names);
    joins.apply({ kind: 'joined', join: { ...joined(1, { room: 'anna@muc.host' }), isUndecided: false } });
    joins.apply({ kind: 'joined', join: { ...joined(2, { room: 'joanna@muc.host' }), isUndecided: false } });
    joins.apply({ kind: 'joined', join: { ...joined(3, { user: 'anna@example.net/x' }), isUndecided: false } });
    database.flush();
    expect(names.search('ANNA')).toEqual([
      { kind: 'user', name: 'anna@example.net' },
      { kind: 'room', name: 'anna@muc.host' },
      { kind: 'room', name: 'joanna@muc.host' },
    ]);
    expect(names.search('Anna@example.net/phone')).toEqual([{ kind: 'user', name: 'anna@example.net' }]);
    expect(names.search('muc.host')).toContainEqual({ kind: 'remote', name: 'muc.host' });
    expect(names.search('%')).toEqual([]);
    expect(names.search("'; DROP TABLE joins; --")).toEqual([]);
    expect(joins.count()).toBe(3);
  });

  it('among 50,000 joins takes less than 50 ms, whatever is typed', () => {
    const joins = new JoinIndex(database, names);
    for (let number = 0; number < 50_000; number += 1)
      joins.apply({ kind: 'joined', join: { ...joined(number), isUndecided: false } });
    database.flush();
    expect(joins.count()).toBe(50_000);
    for (const text of ['u', 'user4', 'room49999@', 'host', 'nothing has this', '9@muc'])
      expect(
        fastest(() => names.search(text)),
        text,
      ).toBeLessThan(50);
  });

  /** The fastest of a few runs: other work of the machine only makes it slower. */
  function fastest(work: () => unknown): number {
    const runs = Array.from({ length: 5 }, () => {
      const began = performance.now();
      work();
      return performance.now() - began;
    });
    return Math.min(...runs);
  }
});

describe('history', () => {
  const line = (changes: Record<string, unknown>): string =>
    JSON.stringify({
      level: 'INFO',
      time: new Date(NOW * 1000).toISOString(),
      message: 'join ended',
      requestId: 'id',
      checkId: 'muc-host-1',
      host: 'example.net',
      remote: 'muc.host',
      cause: 'close',
      user: 'juliet@example.net/phone',
      room: 'balcony@muc.host',
      nick: 'Juliet',
      at: 1,
      answers: ['not-acceptable', 'none'],
      ...changes,
    });

  it('answers what happened to a user in a room, newest first, with the room’s answers', () => {
    const history = new History(database, names);
    history.take(line({ message: 'join undecided', answers: ['none'] }));
    history.take(line({}));
    history.take(line({ user: 'romeo@example.net/phone' }));
    history.take('{"level":"INFO","message":"something else"}');
    history.take('no JSON with "checkId"');
    database.flush();
    const { lines, isCut } = history.of('user', 'juliet@example.net');
    expect(isCut).toBe(false);
    expect(lines.map(({ what, answers }) => [what, answers])).toEqual([
      ['Was out of the room, and was notified.', ['ping: not-acceptable', 'notice: delivered']],
      ['Nothing certain was learned. The room will be asked again.', ['ping: no answer']],
    ]);
    expect(history.of('room', 'balcony@muc.host').lines).toHaveLength(3);
    expect(history.of('check', 'muc-host-1').lines).toHaveLength(3);
    expect(names.search('juliet')).toEqual([{ kind: 'user', name: 'juliet@example.net' }]);
  });

  it('has the error that interrupted a check', () => {
    const history = new History(database, names);
    const error = {
      user: undefined,
      room: undefined,
      answers: undefined,
      message: 'check interrupted',
      level: 'ERROR',
    };
    history.take(line({ ...error, error: 'ServerUnreachableError', detail: 'connect ECONNREFUSED' }));
    database.flush();
    expect(history.of('remote', 'muc.host').lines).toEqual([
      {
        at: NOW * 1000,
        check: 'muc-host-1',
        remote: 'muc.host',
        isError: true,
        what: 'check interrupted',
        answers: ['ServerUnreachableError', 'connect ECONNREFUSED'],
      },
    ]);
  });

  it('counts the webhooks of a server, and keeps the last refusal', () => {
    const history = new History(database, names);
    const webhook = { checkId: undefined, message: 'webhook stored', events: 2 };
    history.take(line(webhook));
    history.take(line({ ...webhook, events: 7, time: new Date(NOW * 1000 + 5000).toISOString() }));
    history.take(line({ checkId: undefined, message: 'webhook refused', status: 401, detail: 'wrong' }));
    database.flush();
    expect(history.servers()).toEqual([{ host: 'example.net', at: NOW * 1000 + 5000, events: 7, webhooks: 2 }]);
    expect(history.refused()).toEqual({ at: NOW * 1000, detail: 'wrong' });
  });

  it('is kept for 30 days and up to a number of lines; names that nothing has any more go with it', () => {
    const history = new History(database, names);
    const at = (days: number): string => new Date(NOW * 1000 - days * DAY_MS).toISOString();
    for (let number = 0; number < 1500; number += 1)
      history.take(line({ user: `old${number}@example.net/x`, time: at(31) }));
    history.take(line({ time: at(29) }));
    history.take(line({ user: 'nurse@example.net/x', time: at(1) }));
    trim(database, names, NOW * 1000);
    database.flush();
    expect(history.of('room', 'balcony@muc.host').lines.map(({ user }) => user)).toEqual([
      'nurse@example.net/x',
      'juliet@example.net/phone',
    ]);
    trim(database, names, NOW * 1000, 1);
    database.flush();
    expect(history.of('room', 'balcony@muc.host').lines.map(({ user }) => user)).toEqual(['nurse@example.net/x']);
    expect(names.search('old')).toEqual([]);
    expect(names.search('juliet')).toEqual([]);
    expect(names.search('nurse')).toHaveLength(1);
    history.take(line({ time: at(0) }));
    database.flush();
    expect(names.search('juliet')).toHaveLength(1); // it is back
  });

  it('survives a restart', () => {
    new History(database, names).take(line({}));
    database.close();
    database = new ConsoleDatabase(join(directory, 'console.db'), (error) => errors.push(error));
    expect(new History(database, names).of('user', 'juliet@example.net').lines).toHaveLength(1);
  });
});

it('a file that is no database is named, with what to do', async () => {
  const file = join(directory, 'other.db');
  await writeFile(file, 'something else, for longer than the header of a database would be: '.repeat(20));
  expect(() => new ConsoleDatabase(file, () => undefined)).toThrow(
    `the console cannot use ${file}: delete it, or start with --console off`,
  );
});
