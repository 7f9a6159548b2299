import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Hosts } from '../../functions/adapters/hosts.ts';
import { control } from '../../lab/control.ts';
import { until } from '../../lab/lab.ts';
import { ScriptedRooms } from '../../lab/scripted-rooms.ts';
import { readAddress } from '../../local/address.ts';

/** Rule 12 (docs/rules.md): a host reports that it lives, and how long its queue is; the silent ones are found. */

/** The shortest interval. */
const INTERVAL = 60;
const TIME = 180_000;
/** The module looks after five seconds. */
const FIRST_WITHIN = 20_000;
let testBed: ScriptedRooms;
beforeAll(async () => {
  testBed = await ScriptedRooms.open({ ping_muc_heartbeat: INTERVAL });
});
afterAll(() => testBed.close());

interface Heartbeat {
  readonly events: readonly unknown[];
  readonly queue?: { readonly length: number; readonly oldest: number };
}
const heartbeats = (): readonly Heartbeat[] =>
  testBed.webhooks.requests
    .filter(({ status }) => status === 200)
    .map(({ body }) => JSON.parse(body.toString()) as Heartbeat)
    .filter(({ queue }) => queue !== undefined);

it(
  'a host in which nothing happens sends a webhook without events, and the hosts that are silent are named',
  async () => {
    const { endpoint, table } = (await readAddress(testBed.runtime.data)) ?? { endpoint: '', table: '' };
    const credentials = { accessKeyId: 'test', secretAccessKey: 'test' };
    const client = new DynamoDBClient({ endpoint, region: 'us-east-1', credentials });
    const longAgo = Date.now() / 1000 - 1000;
    await new Hosts(client, table).record('silent.example', { length: 0, oldest: 0 }, longAgo, longAgo);
    client.destroy();
    const empty = { host: testBed.home.host, queue: { length: 0, oldest: 0 }, events: [] };
    await until('the first heartbeat', () => heartbeats().length === 1, FIRST_WITHIN);
    await until('the next one', () => heartbeats().length === 2, (INTERVAL + 30) * 1000);
    expect(heartbeats()).toEqual([empty, empty]);
    const read = await testBed.runtime.line('heartbeats read', ({ HostsSilent }) => HostsSilent === 1);
    expect(read).toMatchObject({ HostsReporting: 1, QueueLength: 0, QueueAge: 0 });
    expect(await testBed.runtime.line('hosts are silent')).toMatchObject({ silent: ['silent.example'] });
    const status = await control(testBed.runtime.data, 'status');
    expect(status).toMatch(new RegExp(`^${testBed.home.host} +\\S+Z +0 +0 s$`, 'm'));
    expect(status).toMatch(/^silent\.example +\S+Z \(silent\) +0 +0 s$/m);
  },
  TIME,
);

it(
  'after the endpoint was out of reach, the first webhook says how many events wait, and for how long',
  async () => {
    const [before, juliet] = [heartbeats().length, await testBed.user('juliet')];
    await testBed.webhooks.down();
    const downAt = Date.now();
    for (const name of ['one', 'two', 'three']) await juliet.join(testBed.muc().room(name), 'Juliet');
    await until('an interval has passed', () => Date.now() > downAt + INTERVAL * 1000, TIME);
    await testBed.webhooks.up();
    const next = await until('a heartbeat', () => heartbeats()[before], TIME / 2);
    expect(next.queue?.length).toBe(3);
    expect(next.queue?.oldest).toBeGreaterThanOrEqual(INTERVAL - 5);
    expect(next.events.length).toBeGreaterThan(0);
  },
  TIME,
);
