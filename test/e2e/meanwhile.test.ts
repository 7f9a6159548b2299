import { afterAll, beforeAll, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import { Scene } from '../../lab/scene.ts';

/** What happens between the close and its check. */
let scene: Scene;

beforeAll(async () => {
  scene = await Scene.open({ ping_muc_delay: 3 });
});
afterAll(() => scene.close());

it('the user leaves the room: it is neither asked about nor told', async () => {
  const room = scene.room('leaving');
  const juliet = await scene.user('juliet');
  await scene.join(juliet, room, 'Juliet');
  const cut = scene.dropStreams();
  await sleep(300);
  await juliet.leave(room, 'Juliet');
  expect(await scene.checkDone(cut)).toMatchObject({ pinged: 0, notified: 0 });
  expect(juliet.notices()).toEqual([]);
  await juliet.leaveServer();
});

it('the user rejoins: its new join is not asked about, and it is not told of the old one', async () => {
  const room = scene.room('rejoining');
  const juliet = await scene.user('juliet');
  await scene.join(juliet, room, 'Juliet');
  const cut = await scene.restartAway();
  await scene.join(juliet, room, 'Juliet');
  expect(await scene.checkDone(cut)).toMatchObject({ pinged: 0, notified: 0 });
  await sleep(500);
  expect(juliet.notices()).toEqual([]);
  await juliet.leaveServer();
});

it('the session ends: nothing is sent for it', async () => {
  const room = scene.room('ending');
  const juliet = await scene.user('juliet');
  const romeo = await scene.user('romeo');
  await scene.join(juliet, room, 'Juliet');
  await scene.join(romeo, room, 'Romeo');
  const cut = scene.dropStreams();
  await juliet.leaveServer();
  expect(await scene.checkDone(cut)).toMatchObject({ pinged: 1, joined: 1, gone: 0, notified: 0 });
  await romeo.leaveServer();
});

it.each([
  ['reloaded', 'module:reload("ping_muc_webhook", "HOST")'],
  ['unloaded and loaded', 'module:unload("ping_muc_webhook", "HOST") ; module:load("ping_muc_webhook", "HOST")'],
])('the module is %s while users are in rooms: they are told when they are lost', async (_how, commands) => {
  const room = scene.room('reloading');
  const juliet = await scene.user('juliet');
  await scene.join(juliet, room, 'Juliet');
  for (const command of commands.split(' ; ')) await scene.home.shell(command.replace('HOST', scene.home.host));
  await sleep(1000);
  const cut = await scene.restartAway();
  await until('the notice', () => juliet.notices()[0], 15_000);
  expect(await scene.checkDone(cut)).toMatchObject({ left: 1, notified: 1 });
  await sleep(500);
  expect(juliet.notices()).toHaveLength(1);
  await juliet.leaveServer();
});

it('the runtime is killed during the wait: the check happens at its due time', async () => {
  const room = scene.room('killed');
  const juliet = await scene.user('juliet');
  await scene.join(juliet, room, 'Juliet');
  const cut = await scene.restartAway();
  await scene.runtime.line(
    'webhook stored',
    (line) => Number(line['ChecksStarted']) > 0 && Date.parse(String(line['time'])) >= cut - 500,
  );
  await scene.runtime.end('SIGKILL');
  await scene.runtime.start();
  const { at } = await until('the notice', () => juliet.notices()[0], 15_000);
  expect(at - cut).toBeGreaterThanOrEqual(3000);
  expect(at - cut).toBeLessThan(6000);
  await scene.checkDone(cut);
  await sleep(500);
  expect(juliet.notices()).toHaveLength(1);
  await juliet.leaveServer();
});

it('the runtime is ended in good order, and is away when the check is due: it happens as soon as the runtime is back', async () => {
  const room = scene.room('ended');
  const juliet = await scene.user('juliet');
  await scene.join(juliet, room, 'Juliet');
  const cut = await scene.restartAway();
  await scene.runtime.line(
    'webhook stored',
    (line) => Number(line['ChecksStarted']) > 0 && Date.parse(String(line['time'])) >= cut - 500,
  );
  expect(await scene.runtime.end('SIGTERM')).toBe(0);
  await sleep(5000);
  await scene.runtime.start();
  const started = Date.now();
  const { at } = await until('the notice', () => juliet.notices()[0], 15_000);
  expect(at - started).toBeLessThan(2000);
  expect(juliet.notices()).toHaveLength(1);
  await juliet.leaveServer();
});
