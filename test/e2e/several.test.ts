import { afterAll, beforeAll, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import { Prosody } from '../../lab/prosody.ts';
import { Scene } from '../../lab/scene.ts';

let scene: Scene;

beforeAll(async () => {
  scene = await Scene.open({ ping_muc_delay: 2, ping_muc_patience: 0 });
});
afterAll(() => scene.close());

it('two resources of one user in one room, of which one is lost: only that one is told', async () => {
  const room = scene.room('two-resources');
  const phone = await scene.user('juliet', 'phone');
  const laptop = await scene.user('juliet', 'laptop');
  await scene.join(phone, room, 'Juliet');
  await scene.join(laptop, room, 'Juliet');
  const cut = scene.dropStreams();
  await sleep(300);
  await scene.forget(room, phone);
  expect(await scene.checkDone(cut)).toMatchObject({ pinged: 2, joined: 1, proved: 0, left: 1, notified: 1 });
  await until('the notice', () => phone.notices()[0]);
  await sleep(500);
  expect(phone.notices()).toHaveLength(1);
  expect(laptop.notices()).toEqual([]);
  await phone.leaveServer();
  await laptop.leaveServer();
});

it('two rooms on one remote host, of which one is lost: the user is told of that room alone', async () => {
  const [kept, lost] = [scene.room('kept'), scene.room('lost')];
  const juliet = await scene.user('juliet');
  await scene.join(juliet, kept, 'Juliet');
  await scene.join(juliet, lost, 'Juliet');
  const cut = scene.dropStreams();
  await sleep(300);
  await scene.forget(lost, juliet);
  expect(await scene.checkDone(cut)).toMatchObject({ pinged: 2, joined: 1, proved: 0, left: 1, notified: 1 });
  await until('the notice', () => juliet.notices()[0]);
  await sleep(500);
  expect(juliet.notices().map(({ stanza }) => String(stanza.attrs['from']))).toEqual([`${lost}/Juliet`]);
  await juliet.leaveServer();
});

it('rooms on two remote hosts of which one link is cut: the other host is not asked anything', async () => {
  const otherMuc = scene.lab.address(6);
  const other = await Prosody.start(scene.lab, { host: scene.lab.address(5), mucs: [otherMuc] });
  const juliet = await scene.user('juliet');
  await scene.join(juliet, scene.room('here'), 'Juliet');
  await scene.join(juliet, `there@${otherMuc}`, 'Juliet');
  await other.kill();
  const cut = Date.now();
  expect(await scene.checkDone(cut, otherMuc)).toMatchObject({ pinged: 1, notified: 1 });
  await until('the notice', () => juliet.notices()[0]);
  await sleep(2000);
  expect(juliet.notices().map(({ stanza }) => String(stanza.attrs['from']))).toEqual([`there@${otherMuc}/Juliet`]);
  const about = scene.runtime.lines.filter(
    (line) => line['remote'] === scene.muc && Date.parse(String(line['time'])) >= cut,
  );
  expect(about).toEqual([]);
  await juliet.leaveServer();
});
