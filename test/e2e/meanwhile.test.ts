import { afterAll, beforeAll, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import { TwoServers } from '../../lab/two-servers.ts';

/** What may happen between the close and its check. */
const DELAY_MS = 3000;
let testBed: TwoServers;

beforeAll(async () => {
  testBed = await TwoServers.open({ ping_muc_delay: DELAY_MS / 1000 });
});
afterAll(() => testBed.close());

it('the user leaves the room: it is neither pinged nor notified', async () => {
  const room = testBed.room('leaving');
  const juliet = await testBed.user('juliet');
  await testBed.join(juliet, room, 'Juliet');
  const cut = testBed.dropStreams();
  await sleep(300);
  await juliet.leave(room, 'Juliet');
  expect(await testBed.checkDone(cut)).toMatchObject({ pinged: 0, notified: 0 });
  expect(juliet.notices()).toEqual([]);
  await juliet.leaveServer();
});

it('the user rejoins: the new join is not pinged, and there is no notice for the old one', async () => {
  const room = testBed.room('rejoining');
  const juliet = await testBed.user('juliet');
  await testBed.join(juliet, room, 'Juliet');
  await testBed.home.set({ ping_muc_delay: 8 }); // a busy machine needs seconds to restart the server
  const cut = await testBed.restartChatServer();
  await testBed.join(juliet, room, 'Juliet');
  expect(await testBed.checkDone(cut)).toMatchObject({ pinged: 0, notified: 0 });
  await testBed.home.set();
  await sleep(500);
  expect(juliet.notices()).toEqual([]);
  await juliet.leaveServer();
});

it('the session ends: it is not pinged', async () => {
  const room = testBed.room('ending');
  const juliet = await testBed.user('juliet');
  const romeo = await testBed.user('romeo');
  await testBed.join(juliet, room, 'Juliet');
  await testBed.join(romeo, room, 'Romeo');
  const cut = testBed.dropStreams();
  await juliet.leaveServer();
  expect(await testBed.checkDone(cut)).toMatchObject({ pinged: 1, joined: 1, gone: 0, notified: 0 });
  await romeo.leaveServer();
});

it.each([
  ['reloaded', 'reloadModule'],
  ['unloaded and loaded', 'restartModule'],
] as const)('the module is %s while users are in rooms: lost users are notified', async (_how, restart) => {
  const room = testBed.room('reloading');
  const juliet = await testBed.user('juliet');
  await testBed.join(juliet, room, 'Juliet');
  await testBed.home[restart]();
  await sleep(1000);
  const cut = await testBed.restartChatServer();
  await until('the notice', () => juliet.notices()[0], 15_000);
  expect(await testBed.checkDone(cut)).toMatchObject({ left: 1, notified: 1 });
  await sleep(500);
  expect(juliet.notices()).toHaveLength(1);
  await juliet.leaveServer();
});

/** Returns the time of the cut, in milliseconds, when a check waits. */
async function cutAndReport(): Promise<number> {
  const cut = await testBed.restartChatServer();
  await testBed.runtime.line(
    'webhook stored',
    (line) => Number(line['ChecksStarted']) > 0 && Date.parse(String(line['time'])) >= cut - 500,
  );
  return cut;
}

it('the runtime is killed during the wait: the check begins when it is due', async () => {
  const room = testBed.room('killed');
  const juliet = await testBed.user('juliet');
  await testBed.join(juliet, room, 'Juliet');
  const cut = await cutAndReport();
  await testBed.runtime.end('SIGKILL');
  await testBed.runtime.start();
  const due = Math.max(cut + DELAY_MS, Date.now());
  const { at } = await until('the notice', () => juliet.notices()[0], 15_000);
  expect(at - cut).toBeGreaterThanOrEqual(DELAY_MS);
  expect(at - due, 'a wait that began again would last this long').toBeLessThan(DELAY_MS);
  await testBed.checkDone(cut);
  await sleep(500);
  expect(juliet.notices()).toHaveLength(1);
  await juliet.leaveServer();
});

it('the runtime is stopped, and is down when the check is due: the check begins when it is started again', async () => {
  const room = testBed.room('ended');
  const juliet = await testBed.user('juliet');
  await testBed.join(juliet, room, 'Juliet');
  await cutAndReport();
  expect(await testBed.runtime.end('SIGTERM')).toBe(0);
  await sleep(5000);
  await testBed.runtime.start();
  const started = Date.now();
  const { at } = await until('the notice', () => juliet.notices()[0], 15_000);
  expect(at - started, 'a wait that began again would last this long').toBeLessThan(DELAY_MS);
  expect(juliet.notices()).toHaveLength(1);
  await juliet.leaveServer();
});
