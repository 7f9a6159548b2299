import xml from '@xmpp/xml';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { DEFAULT_REASON } from '../../functions/core/stanzas.ts';
import { sleep, until } from '../../lab/lab.ts';
import { TwoServers } from '../../lab/two-servers.ts';
import { type User, canonical } from '../../lab/user.ts';

const DELAY = 5;
let testBed: TwoServers;

beforeAll(async () => {
  testBed = await TwoServers.open({ ping_muc_delay: DELAY, ping_muc_patience: 0 });
});
afterAll(() => testBed.close());

/** Rule 8 (docs/rules.md). */
function expectNotice(user: User, room: string, nick: string, reason = DEFAULT_REASON): void {
  const [notice, ...more] = user.notices();
  expect(more).toEqual([]);
  const id = String(notice?.stanza.attrs['id'] ?? '');
  expect(id).not.toBe('');
  const expected = xml(
    'presence',
    { type: 'unavailable', id, from: `${room}/${nick}`, to: user.jid },
    xml(
      'x',
      { xmlns: 'http://jabber.org/protocol/muc#user' },
      xml('item', { affiliation: 'none', role: 'none' }, xml('reason', {}, reason)),
      xml('status', { code: '110' }),
      xml('status', { code: '330' }),
      xml('status', { code: '333' }),
    ),
  );
  const { xmlns: _xmlns, ...attributes } = notice?.stanza.attrs as Record<string, string>;
  expect(attributes).toEqual(expected.attrs);
  expect(notice?.stanza.getChildElements().map(canonical)).toEqual(expected.getChildElements().map(canonical));
}

it('lost: the chat server restarts without the room; the user is notified once, in time, and can rejoin', async () => {
  const room = testBed.room('balcony');
  const juliet = await testBed.user('juliet');
  await testBed.join(juliet, room, 'Juliet');

  const cut = await testBed.restartChatServer();
  const { at } = await until('the notice', () => juliet.notices()[0], 15_000);
  expect(at - cut).toBeGreaterThanOrEqual(DELAY * 1000);
  expect(at - cut).toBeLessThan((DELAY + 3) * 1000);
  expectNotice(juliet, room, 'Juliet', testBed.away.rooms.textIfMissing);

  expect(await testBed.checkDone(cut)).toMatchObject({ pinged: 1, left: 1, notified: 1 });
  await testBed.join(juliet, room, 'Juliet');
  await sleep(1500);
  expect(juliet.notices()).toHaveLength(1);
  await juliet.leaveServer();
});

it('kept: both streams close, and the room still has its users; nobody is notified', async () => {
  const juliet = await testBed.user('juliet');
  const romeo = await testBed.user('romeo');
  await testBed.join(juliet, testBed.room('garden'), 'Juliet');
  await testBed.join(romeo, testBed.room('garden'), 'Romeo');

  const cut = testBed.dropStreams();
  expect(await testBed.checkDone(cut)).toMatchObject({ pinged: 2, joined: 2, proved: 0, left: 0, notified: 0 });
  await sleep(cut + (DELAY + 3) * 1000 - Date.now());
  expect([...juliet.notices(), ...romeo.notices()]).toEqual([]);
  await juliet.leaveServer();
  await romeo.leaveServer();
});

it.each([
  ['a nick with spaces, quotes, &, <, / and emoji', 'verona', `Juliet  "the" 'sun' & <east>/window ☺ ❤ ]]>`],
  ['a room with an escaped localpart', String.raw`d\27artagnan\40verona`, 'Juliet'],
  ['a room with a lone backslash', String.raw`back\slash`, 'Juliet'],
])('%s is recorded, pinged and notified unchanged', async (_what, name, nick) => {
  const room = testBed.room(name);
  const juliet = await testBed.user('juliet');
  const romeo = await testBed.user('romeo');
  await testBed.join(juliet, room, nick);
  await testBed.join(romeo, room, 'Romeo');

  const cut = testBed.dropStreams();
  await sleep(500);
  await testBed.dropOccupant(room, juliet);
  expect(await testBed.checkDone(cut)).toMatchObject({ pinged: 2, joined: 1, proved: 0, left: 1, notified: 1 });
  await until('the notice', () => juliet.notices()[0]);
  const [notice] = juliet.notices();
  expect(notice?.stanza.attrs['from']).toBe(`${room}/${nick}`);
  expect(romeo.notices()).toEqual([]);
  await juliet.leaveServer();
  await romeo.leaveServer();
});

it('unreachable: the chat server stays down; without patience, all users are notified after one ping', async () => {
  const users = [await testBed.user('juliet'), await testBed.user('romeo'), await testBed.user('nurse')];
  for (const [index, user] of users.entries()) await testBed.join(user, testBed.room('tomb'), `nick ${index}`);

  await testBed.away.kill();
  const cut = Date.now();
  expect(await testBed.checkDone(cut)).toMatchObject({ pinged: 1, undecided: 3, notified: 3 });
  for (const [index, user] of users.entries()) {
    await until('the notice', () => user.notices()[0]);
    expectNotice(user, testBed.room('tomb'), `nick ${index}`);
  }
  await testBed.away.start();
});
