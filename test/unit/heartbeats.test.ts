import { GetItemCommand, PutItemCommand } from '@aws-sdk/client-dynamodb';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { HostWatch } from '../../functions/adapters/host-watch.ts';
import { Hosts } from '../../functions/adapters/hosts.ts';
import { logger } from '../../functions/adapters/telemetry.ts';
import { inParallel } from '../../functions/core/concurrency.ts';
import { type Webhook, readWebhook } from '../../functions/core/events.ts';
import { type Heartbeat, hostsHealth } from '../../functions/core/heartbeats.ts';
import { type TestTable, startTable } from './dynamodb.ts';

/** Rule 12 (docs/rules.md): heartbeats of hosts, and which hosts are silent. */

vi.setConfig({ testTimeout: 60_000 }); // a second or two, on a machine that does nothing else

const NOW = 1_795_355_000;
const DAY = 86_400;
const ALL: ReadonlySet<string> = new Set();

const heartbeat = (host: string, ago: number, length = 0, oldest = 0): Heartbeat => ({
  host,
  last: NOW - ago,
  length,
  oldest,
});

describe('a host', () => {
  it('is silent when its last heartbeat is over 15 minutes old', () => {
    const health = hostsHealth([heartbeat('a', 0), heartbeat('b', 900), heartbeat('c', 901)], ALL, NOW);
    expect(health).toMatchObject({ silent: ['c'], reporting: 2 });
  });

  it('does not count when the stack no longer serves it', () => {
    const heartbeats = [heartbeat('a', 0, 1, 10), heartbeat('b', 0, 7, 70), heartbeat('c', 5000)];
    expect(hostsHealth(heartbeats, new Set(['a', 'd']), NOW)).toEqual({
      silent: [],
      reporting: 1,
      queueLength: 1,
      queueAge: 10,
    });
  });
});

it('the longest queue and the oldest event count, each of whichever host, but of none that is silent', () => {
  const heartbeats = [heartbeat('a', 0, 5, 10), heartbeat('b', 60, 3, 40), heartbeat('c', 5000, 999, 9999)];
  expect(hostsHealth(heartbeats, ALL, NOW)).toMatchObject({ queueLength: 5, queueAge: 40 });
  expect(hostsHealth([], ALL, NOW)).toEqual({ silent: [], reporting: 0, queueLength: 0, queueAge: 0 });
});

describe('with the table', () => {
  let embedded: TestTable;
  let hosts: Hosts;
  beforeAll(async () => {
    embedded = await startTable();
  });
  afterAll(() => embedded.close());
  beforeEach(async () => {
    hosts = new Hosts(embedded.client, embedded.name);
    for (const { host } of (await hosts.read(0)).heartbeats) await put(host, { expires: { N: '0' } });
  });

  async function put(host: string, fields: Record<string, { N: string }>): Promise<void> {
    const number = { N: '0' };
    const Item = { pk: { S: 'HOST' }, sk: { S: host }, last: number, length: number, oldest: number, ...fields };
    await embedded.client.send(new PutItemCommand({ TableName: embedded.name, Item }));
  }

  describe('a heartbeat', () => {
    it('is recorded with its queue, by our own clock, for seven days', async () => {
      expect(await hosts.record('new.example', { length: 3, oldest: 60 }, NOW + 200, NOW)).toBe(true);
      const Key = { pk: { S: 'HOST' }, sk: { S: 'new.example' } };
      const { Item } = await embedded.client.send(new GetItemCommand({ TableName: embedded.name, Key }));
      expect(Item).toMatchObject({ sent: { N: String(NOW + 200) }, expires: { N: String(NOW + 7 * DAY) } });
      expect(await hosts.read(NOW)).toEqual({
        heartbeats: [{ host: 'new.example', last: NOW, length: 3, oldest: 60 }],
        isComplete: true,
      });
    });

    it('never replaces a newer one, nor one of the same moment, which it may repeat', async () => {
      const record = (sent: number, length: number): Promise<boolean> =>
        hosts.record('order.example', { length, oldest: 0 }, sent, NOW);
      expect([await record(NOW, 1), await record(NOW - 1, 2), await record(NOW, 3)]).toEqual([true, false, false]);
      expect((await hosts.read(NOW)).heartbeats).toMatchObject([{ length: 1 }]);
      expect(await record(NOW + 1, 4)).toBe(true);
      expect((await hosts.read(NOW)).heartbeats).toMatchObject([{ length: 4 }]);
    });

    it('is forgotten after seven days, even while its row is still there', async () => {
      await hosts.record('old.example', { length: 0, oldest: 0 }, NOW, NOW);
      expect((await hosts.read(NOW + 7 * DAY)).heartbeats).toHaveLength(1);
      expect((await hosts.read(NOW + 7 * DAY + 1)).heartbeats).toHaveLength(0);
    });
  });

  it('reads the first 1,000 hosts, and says when there are more', async () => {
    const names = Array.from({ length: 1001 }, (_, n) => `host${String(n).padStart(4, '0')}.example`);
    await inParallel(
      names.map((name) => () => put(name, { expires: { N: String(NOW) } })),
      32,
    );
    const { heartbeats, isComplete } = await hosts.read(NOW);
    expect([heartbeats.length, heartbeats.at(-1)?.host, isComplete]).toEqual([1000, 'host0999.example', false]);
  });
});

describe('the watch', () => {
  let lines: Record<string, unknown>[];
  let reads: number;
  let recorded: unknown[];
  let rows: readonly Heartbeat[];
  let isReadable: boolean;
  beforeEach(() => {
    [lines, reads, recorded, rows, isReadable] = [[], 0, [], [], true];
    vi.spyOn(process.stdout, 'write').mockImplementation(
      (line) => lines.push(JSON.parse(String(line)) as Record<string, unknown>) > 0,
    );
    return () => vi.restoreAllMocks();
  });

  const webhook = (queue?: unknown): Webhook =>
    readWebhook(JSON.stringify({ host: 'a.example', queue, events: [] }), NOW);
  const BEAT = { length: 2, oldest: 30 };
  const watch = (served = ALL): HostWatch =>
    new HostWatch(
      {
        record: (...values) => Promise.resolve(recorded.push(values) > 0),
        read: () => {
          reads += 1;
          return isReadable ? Promise.resolve({ heartbeats: rows, isComplete: true }) : Promise.reject(new Error('no'));
        },
      },
      served,
    );
  const log = logger({});
  const said = (message: string): Record<string, unknown>[] => lines.filter((line) => line['message'] === message);

  it('emits what the heartbeats of all hosts say, and names the silent ones', async () => {
    rows = [heartbeat('a.example', 0, 2, 30), heartbeat('b.example', 2000), heartbeat('c.example', 3000)];
    await watch(new Set(['a.example', 'b.example'])).hear(webhook(BEAT), NOW - 2, NOW, log);
    expect(recorded).toEqual([['a.example', BEAT, NOW - 2, NOW]]);
    expect(said('heartbeats read')).toMatchObject([
      { HostsSilent: 1, HostsReporting: 1, QueueLength: 2, QueueAge: 30_000 },
    ]);
    expect(said('hosts are silent')).toMatchObject([{ level: 'WARN', silent: ['b.example'], count: 1 }]);
  });

  it('reads all hosts at most once a minute, and records each heartbeat', async () => {
    const one = watch();
    for (const after of [0, 30, 59, 60, 61]) await one.hear(webhook(BEAT), NOW + after, NOW + after, log);
    expect([recorded.length, reads]).toEqual([5, 2]);
    expect(said('hosts are silent')).toEqual([]);
  });

  it('ignores a webhook that is no heartbeat, and says why it ignores one that is wrong', async () => {
    await watch().hear(webhook(), NOW, NOW, log);
    await watch().hear(webhook({ length: 1 }), NOW, NOW, log);
    expect([recorded, reads]).toEqual([[], 0]);
    expect(lines).toMatchObject([{ level: 'WARN', message: 'heartbeat ignored', detail: 'queue.oldest: missing' }]);
  });

  it('logs that the hosts cannot be read, and emits no metric: the webhook is stored nevertheless', async () => {
    isReadable = false;
    await watch().hear(webhook(BEAT), NOW, NOW, log);
    expect(lines).toMatchObject([{ level: 'ERROR', message: 'heartbeats not read', detail: 'no' }]);
  });
});
