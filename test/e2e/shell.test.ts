import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { control } from '../../lab/control.ts';
import { until } from '../../lab/lab.ts';
import { Prosody } from '../../lab/prosody.ts';
import { TwoServers } from '../../lab/two-servers.ts';
import type { User } from '../../lab/user.ts';

/** The commands of the module in Prosody's shell, as an operator types them. */
let testBed: TwoServers;
let juliet: User;
let romeo: User;
let rooms = 0;
let room: string;

beforeAll(async () => {
  testBed = await TwoServers.open({ ping_muc_patience: 0 });
  [juliet, romeo] = [await testBed.user('juliet'), await testBed.user('romeo')];
});
afterAll(() => testBed.close());
beforeEach(async () => {
  rooms += 1;
  room = testBed.room(`room-${rooms}`);
  await testBed.join(juliet, room, 'Juliet');
  await testBed.join(romeo, room, 'Romeo');
});

const shell = (...words: readonly string[]): Promise<string> => Prosody.of(testBed.home).shell('ping_muc', ...words);
/** What a command that fails prints. */
const failure = async (...words: readonly string[]): Promise<string> =>
  shell(...words).then(
    (output) => `no failure: ${output}`,
    (error: unknown) => (error as { stderr: string }).stderr,
  );
const events = (since: number): number =>
  testBed.runtime.lines
    .filter((line) => line['message'] === 'webhook stored' && Date.parse(String(line['time'])) >= since)
    .reduce((sum, line) => sum + Number(line['events']), 0);
const notices = (user: User): number =>
  user.notices().filter(({ stanza }) => String(stanza.attrs['from']).startsWith(`${room}/`)).length;

it('check: finds a user who is out although nothing closed, and leaves the others alone', async () => {
  await testBed.dropOccupant(room, juliet);
  const since = Date.now();
  expect(await shell('check', testBed.muc)).toContain(`A check of ${testBed.muc} is requested`);
  expect(await testBed.checkDone(since)).toMatchObject({ pinged: 2, joined: 1, left: 1, notified: 1 });
  expect(await testBed.runtime.line('check done')).toMatchObject({ cause: 'operator' });
  await until('she is notified', () => notices(juliet) === 1);
  expect(notices(romeo)).toBe(0);
});

it('check: asks about one room alone, and refuses what names no room or host of a user', async () => {
  const since = Date.now();
  expect(await shell('check', room)).toContain(`A check of ${room} is requested`);
  expect(await testBed.checkDone(since)).toMatchObject({ pinged: 2, joined: 2 });
  for (const target of ['nowhere.example', testBed.room('nobody-is-in-it')])
    expect(await failure('check', target)).toContain(`No user of this server is in a room there: ${target}`);
  for (const target of [[], [`${room}/Juliet`], ['']]) expect(await failure('check', ...target)).toContain('Name the');
});

it('joins: lists who is where, all or those with a text in their names', async () => {
  const ofJuliet = `  ${juliet.jid} in ${room} as Juliet, for `;
  expect(await shell('joins')).toContain(ofJuliet);
  const some = await shell('joins', 'Romeo');
  expect(some).toContain(`  ${romeo.jid} in ${room} as Romeo, for `);
  expect(some).not.toContain('Juliet');
  expect(await shell('joins', 'Tybalt')).toContain('No user, room or nick has Tybalt in its name');
});

it('announce: the functions get all joins again, and a heartbeat', async () => {
  const heartbeat = async (): Promise<string> =>
    (await control(testBed.runtime.data, 'status')).split('\n').find((line) => line.startsWith(testBed.home.host)) ??
    '';
  const before = await until('the first heartbeat', heartbeat);
  const joins = Number(/Joins: (\d+)/.exec(await shell('status'))?.[1]);
  expect(joins).toBeGreaterThanOrEqual(2);
  const since = Date.now();
  expect(await shell('announce')).toContain(`${joins} joins and a heartbeat are being reported`);
  await until('all are reported', () => events(since) === joins);
  await until('a heartbeat', async () => (await heartbeat()) !== before);
});

it('status: says how the last webhook went, what waits, and whether the dry run is on', async () => {
  const healthy = await shell('status');
  expect(healthy).toMatch(new RegExp(`^${testBed.home.host}$`, 'm'));
  expect(healthy).toMatch(/^ {2}Webhooks: accepted: the last one \d+ s ago$/m);
  expect(healthy).toMatch(/^ {2}Queue: empty$/m);
  expect(healthy).toMatch(/^ {2}Joins: \d+, in rooms on 1 remote host$/m);
  expect(healthy).toMatch(/^ {2}Dry run: off$/m);

  await testBed.runtime.end('SIGTERM');
  await romeo.leave(room, 'Romeo');
  const troubled = await until('the webhook fails', async () => {
    const output = await shell('status');
    return output.includes('cannot be reached') ? output : undefined;
  });
  expect(troubled).toMatch(/^ {2}Queue: 1 event, the oldest has waited for \d+ s$/m);
  await testBed.runtime.start();
  await testBed.home.set({ ping_muc_dry_run: true });
  expect(await shell('status')).toMatch(/^ {2}Dry run: on: nobody is notified or brought back$/m);
});

it('status: counts the closes that are held back', async () => {
  expect(await shell('status')).toMatch(/^ {2}Closes that wait .*: 0$/m);
  await testBed.home.set({ ping_muc_delay: 120 });
  await until(
    'the second of two closes is held back',
    async () => {
      testBed.dropStreams();
      await juliet.sendMessage(room, 'opens a stream again');
      return /^ {2}Closes that wait .*: 1$/m.test(await shell('status'));
    },
    30_000,
  );
});

it('the commands go with the module, and come back with it', async () => {
  const module = (verb: string): Promise<string> =>
    Prosody.of(testBed.home).shell('module', verb, 'ping_muc_webhook', testBed.home.host);
  await module('unload');
  // what 0.12 and 13.0 say about a command that is not there
  expect(await failure('status')).toMatch(/nil value \(global 'ping_muc'\)|Command not found/);
  await module('load');
  await module('reload');
  expect(await shell('status')).toContain('1 host');
});
