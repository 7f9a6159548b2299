import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import { silence } from '../../lab/scripted-muc.ts';
import { ScriptedRooms } from '../../lab/scripted-rooms.ts';
import type { User } from '../../lab/user.ts';

/** Rule 11 (docs/rules.md): a room that sends a session nothing for an interval is checked, once in each interval. */
/** The minimum of the setting. */
const SILENCE = 10;
/** A silent room is checked within this time: up to a quarter of the interval more, and the time to send the event. */
const FOUND_WITHIN_MS = (SILENCE * 1.25 + 3) * 1000;
const SETTINGS = { ping_muc_delay: 2, ping_muc_timeout: 3, ping_muc_patience: 0, ping_muc_silence: SILENCE };
let testBed: ScriptedRooms;
let room: string;
let rooms = 0;
let juliet: User;
let romeo: User;

beforeAll(async () => {
  testBed = await ScriptedRooms.open(SETTINGS);
});
afterAll(() => testBed.close());
beforeEach(async () => {
  rooms += 1;
  room = testBed.muc().room(`room-${rooms}`);
  [juliet, romeo] = [await testBed.user('juliet'), await testBed.user('romeo')];
  await testBed.join(juliet, room, 'Juliet');
  await testBed.join(romeo, room, 'Romeo');
});
afterEach(async () => {
  testBed.muc().script('ping', room);
  for (const user of [juliet, romeo]) await user.leaveServer();
});

const causes = (of = room): readonly unknown[] => testBed.requested(of).map(({ cause }) => cause);
const pings = (of: string, since: number): number =>
  testBed.pinged(since).filter((occupant) => occupant.startsWith(`${of}/`)).length;
const line = (user: User, of = room): string =>
  `<message type="groupchat" from="${of}/Nurse" to="${user.jid}"><body>Madam!</body></message>`;

it('lost users are notified after the interval, without a close; an active room is not checked', async () => {
  const other = testBed.muc().room(`other-${rooms}`);
  await testBed.join(juliet, other, 'Juliet');
  const since = Date.now();
  testBed.muc().dropOccupant(room, juliet.jid);
  testBed.muc().dropOccupant(room, romeo.jid);
  const messages = setInterval(() => testBed.muc().send(line(juliet, other)), 2000);
  await until('both are notified', () => [juliet, romeo].every((user) => user.notices().length === 1), FOUND_WITHIN_MS);
  clearInterval(messages);
  expect(Date.now() - since).toBeGreaterThan((SILENCE - 1) * 1000);
  expect([causes(), causes(other)]).toEqual([['silence'], []]);
  expect(testBed.closes(since)).toEqual([]);
  expect(await testBed.checkDone(since, testBed.muc().domain)).toMatchObject({ pinged: 2, left: 2, notified: 2 });
  expect(testBed.lines('check done', since)[0]).toMatchObject({ cause: 'silence', room });
  expect(testBed.runtime.lines.some((logged) => logged['ChecksBySilence'] === 1)).toBe(true);
});

it('a room that sends to one of two users is checked for both', async () => {
  testBed.muc().dropOccupant(room, romeo.jid);
  const messages = setInterval(() => testBed.muc().send(line(juliet)), 2000);
  await until('he is notified', () => romeo.notices().length === 1, FOUND_WITHIN_MS);
  clearInterval(messages);
  expect([causes(), juliet.notices().length]).toEqual([['silence'], 0]);
});

it('after it has answered the pings of another check, a room is not checked for an interval', async () => {
  const since = Date.now();
  await sleep(SILENCE * 600);
  const cut = testBed.dropOutgoing();
  expect(await testBed.checkDone(cut, testBed.muc().domain)).toMatchObject({ pinged: 2, joined: 2 });
  const pinged = Date.now();
  await sleep(since + FOUND_WITHIN_MS - Date.now());
  expect(causes()).toEqual([]);
  await until('the room is checked', () => causes().length > 0, FOUND_WITHIN_MS);
  expect(Date.now() - pinged).toBeGreaterThan((SILENCE - 1) * 1000);
});

it('a reload of the module does not restart the interval', async () => {
  const since = Date.now();
  await sleep(SILENCE * 700);
  await testBed.home.reloadModule();
  await until('the room is checked', () => causes().length > 0, FOUND_WITHIN_MS - (Date.now() - since));
});

it('six silent intervals: each join is pinged once in each, and the end of the stream is no close', async () => {
  // the stream so far has carried users’ stanzas, so its end is a close; wait until that is over
  const end = async (): Promise<void> => {
    await testBed.away.closeStreams(testBed.home.host);
    await until('the streams have ended', async () => (await testBed.home.streams(testBed.muc().domain)).length === 0);
  };
  await end();
  const first = Date.now();
  await until('the close has been checked', () => testBed.lines('check done', first).length > 0, 20_000);
  await end();
  await sleep(4000);

  const since = Date.now();
  const asked = (): number => testBed.requested(room).filter(({ at }) => at >= since * 1000).length;
  for (let times = 1; times <= 6; times += 1) {
    await until(
      'the room has been checked',
      () => testBed.lines('check done', since).length === times,
      FOUND_WITHIN_MS,
    );
    await sleep(500);
    await end(); // as after an idle time-out
  }
  expect((Date.now() - since) / 1000).toBeGreaterThan(5 * SILENCE);
  expect([asked(), pings(room, since)]).toEqual([6, 12]);
  expect(testBed.closes(since)).toEqual([]);
  expect([juliet, romeo].map((user) => user.notices().length)).toEqual([0, 0]);
}, 150_000);

it('a room that does not answer is checked once in each interval, and its users are not notified at once', async () => {
  await testBed.set({ ping_muc_patience: 300 });
  const since = Date.now();
  testBed.muc().script('ping', room, silence);
  await sleep(FOUND_WITHIN_MS + SILENCE * 1000);
  const asked = testBed.requested(room).filter(({ at }) => at >= since * 1000).length;
  expect([1, 2]).toContain(asked);
  expect([juliet, romeo].map((user) => user.notices().length)).toEqual([0, 0]);
  testBed.muc().script('ping', room);
  await testBed.set({});
});

it('with ping_muc_silence = 0 no room is checked, until it is set again', async () => {
  await testBed.set({ ping_muc_silence: 0 });
  await sleep(FOUND_WITHIN_MS);
  expect(causes()).toEqual([]);
  await testBed.set({});
  await until('the room is checked', () => causes().length > 0, FOUND_WITHIN_MS);
});

it('forty rooms that become silent at once are checked a few at a time', async () => {
  const names = Array.from({ length: 40 }, (_, n) => testBed.muc().room(`many-${n}`));
  for (const name of names) await juliet.enter(name, 'Juliet');
  await until('all are recorded', () => names.every((name) => testBed.history(name).length === 1), 20_000);
  await until('all have been checked', () => names.every((name) => causes(name).length > 0), FOUND_WITHIN_MS + 30_000);
  const moments = names.map((name) => testBed.requested(name)[0]?.at ?? 0).sort((a, b) => a - b);
  const inOneSlice = Math.max(
    ...moments.map((at) => moments.filter((other) => other >= at && other < at + 500_000).length),
  );
  expect(inOneSlice, 'in half a second of the 2.5 s over which the checks are spread').toBeLessThanOrEqual(28);
  for (const name of names) await juliet.leave(name, 'Juliet');
}, 120_000);
