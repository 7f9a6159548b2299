import { afterAll, beforeAll, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import { startAway } from '../../lab/servers.ts';
import { TwoServers } from '../../lab/two-servers.ts';

let testBed: TwoServers;

beforeAll(async () => {
  testBed = await TwoServers.open({ ping_muc_delay: 2, ping_muc_patience: 0 });
});
afterAll(() => testBed.close());

it('one of two resources of a user is lost: only that one is notified', async () => {
  const room = testBed.room('two-resources');
  const phone = await testBed.user('juliet', 'phone');
  const laptop = await testBed.user('juliet', 'laptop');
  await testBed.join(phone, room, 'Juliet');
  await testBed.join(laptop, room, 'Juliet');
  const cut = testBed.dropStreams();
  await sleep(300);
  await testBed.dropOccupant(room, phone);
  expect(await testBed.checkDone(cut)).toMatchObject({ pinged: 2, joined: 1, proved: 0, left: 1, notified: 1 });
  await until('the notice', () => phone.notices()[0]);
  await sleep(500);
  expect(phone.notices()).toHaveLength(1);
  expect(laptop.notices()).toEqual([]);
  await phone.leaveServer();
  await laptop.leaveServer();
});

it('one of two rooms on a remote host is lost: the user is notified for that room alone', async () => {
  const [kept, lost] = [testBed.room('kept'), testBed.room('lost')];
  const juliet = await testBed.user('juliet');
  await testBed.join(juliet, kept, 'Juliet');
  await testBed.join(juliet, lost, 'Juliet');
  const cut = testBed.dropStreams();
  await sleep(300);
  await testBed.dropOccupant(lost, juliet);
  expect(await testBed.checkDone(cut)).toMatchObject({ pinged: 2, joined: 1, proved: 0, left: 1, notified: 1 });
  await until('the notice', () => juliet.notices()[0]);
  await sleep(500);
  expect(juliet.notices().map(({ stanza }) => String(stanza.attrs['from']))).toEqual([`${lost}/Juliet`]);
  await juliet.leaveServer();
});

it('the link to one of two remote hosts is cut: the other host is not checked', async () => {
  const otherMuc = testBed.lab.address(6);
  const other = await startAway(testBed.lab, { host: testBed.lab.address(5), mucs: [otherMuc] });
  const juliet = await testBed.user('juliet');
  await testBed.join(juliet, testBed.room('here'), 'Juliet');
  await testBed.join(juliet, `there@${otherMuc}`, 'Juliet');
  await other.kill();
  const cut = Date.now();
  expect(await testBed.checkDone(cut, otherMuc)).toMatchObject({ pinged: 1, notified: 1 });
  await until('the notice', () => juliet.notices()[0]);
  await sleep(2000);
  expect(juliet.notices().map(({ stanza }) => String(stanza.attrs['from']))).toEqual([`there@${otherMuc}/Juliet`]);
  const about = testBed.runtime.lines.filter(
    (line) => line['remote'] === testBed.muc && Date.parse(String(line['time'])) >= cut,
  );
  expect(about).toEqual([]);
  await juliet.leaveServer();
});
