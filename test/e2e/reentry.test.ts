import { xml } from '@xmpp/client';
import type { Element } from '@xmpp/xml';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import { TwoServers } from '../../lab/two-servers.ts';
import { type User, isOfRoom, statusCodes } from '../../lab/user.ts';
import type { RoomChange } from '../../lab/xmpp-server.ts';

/** Rule 10 (docs/rules.md), between real servers: a user who is out of an existing room is brought back unnoticed. */
const DELAY = 1;
const REENTER = { ping_muc_delay: DELAY, ping_muc_timeout: 5, ping_muc_patience: 0, ping_muc_reenter: true };
/** A chat server that starts again may take longer than the delay. */
const UNTIL_IT_STARTS = { ping_muc_patience: 30 };
/** Time for the server to finish. */
const SETTLE_MS = 700;

let testBed: TwoServers;
let room: string;
let rooms = 0;
const sessions: { leaveServer(): Promise<void> }[] = [];

async function user(name: string, resource = 'phone'): Promise<User> {
  const connected = await testBed.user(name, resource);
  sessions.push(connected);
  return connected;
}
async function guest(name: string): Promise<User> {
  const connected = await testBed.guest(name);
  sessions.push(connected);
  return connected;
}

function newRoom(): void {
  rooms += 1;
  room = testBed.room(`room-${rooms}`);
}
afterEach(async () => {
  for (const session of sessions.splice(0)) await session.leaveServer();
});

/** What a session has received from the room since a time, as text. */
function receivedSince({ received }: User, since: number, from = room): readonly string[] {
  return received
    .filter(({ at, stanza }) => at >= since && String(stanza.attrs['from']).split('/')[0] === from && !isOfRoom(stanza))
    .map(({ stanza }) => word(stanza));
}

function word(stanza: Element): string {
  const nick = String(stanza.attrs['from']).split('/')[1] ?? '';
  const type = stanza.attrs['type'] as string | undefined;
  if (stanza.is('message'))
    return stanza.getChild('body') === undefined ? 'subject' : `${nick}: ${stanza.getChildText('body')}`;
  const codes = statusCodes(stanza).filter((code) => code !== '100');
  return [type === undefined ? 'there' : type === 'unavailable' ? 'gone' : type, nick, ...codes].join(' ');
}

const lines = (session: User, since: number): readonly string[] =>
  receivedSince(session, since).filter((text) => text.includes(': '));

/** Waits until the session has received everything that the server has sent so far. */
async function settled(session: User): Promise<void> {
  await session.ping();
  await sleep(SETTLE_MS);
}

describe.each([
  ['with an archive', true],
  ['without an archive', false],
])('rooms %s', (_what, hasArchives) => {
  beforeAll(async () => {
    testBed = await TwoServers.open(REENTER, { hasArchives, guests: ['mercutio', 'benvolio', 'tybalt'] });
  });
  afterAll(() => testBed.close());
  beforeEach(newRoom);

  it('the user is back: missed messages arrive once and in order, the list of occupants is right', async () => {
    const [mercutio, benvolio, tybalt] = [await guest('mercutio'), await guest('benvolio'), await guest('tybalt')];
    await mercutio.join(room, 'Mercutio');
    await benvolio.join(room, 'Benvolio');
    const juliet = await user('juliet');
    await testBed.join(juliet, room, 'Juliet');
    await mercutio.sendMessage(room, 'early 1');
    await juliet.sendMessage(room, 'early 2');
    await mercutio.sendMessage(room, 'early 3');
    await until('all messages have arrived', () => lines(juliet, 0).length === 3);
    const recorded = testBed.recorded();

    await testBed.dropOccupant(room, juliet);
    const lost = Date.now();
    await mercutio.sendMessage(room, 'missed 1');
    await sleep(4000);
    for (let n = 2; n <= 5; n += 1) await mercutio.sendMessage(room, `missed ${n}`);
    await benvolio.leave(room, 'Benvolio');
    await tybalt.join(room, 'Tybalt');
    expect(receivedSince(juliet, lost)).toEqual([]);
    const cut = testBed.dropStreams();
    expect(await testBed.checkDone(cut)).toMatchObject({ left: 1, reentered: 1, notified: 0 });
    await settled(juliet);

    expect(lines(juliet, lost)).toEqual([1, 2, 3, 4, 5].map((n) => `Mercutio: missed ${n}`));
    expect(
      receivedSince(juliet, lost)
        .filter((text) => !text.includes(': '))
        .sort(),
    ).toEqual(['gone Benvolio', 'subject', 'there Juliet 110', 'there Mercutio', 'there Tybalt']);
    expect(testBed.recorded()).toBe(recorded + 1);

    const later = Date.now();
    await mercutio.sendMessage(room, 'later');
    await until('she receives it', () => lines(juliet, later).length === 1);
    await juliet.sendMessage(room, 'I am here');
    await until('all receive it', () => lines(juliet, later).length === 2 && lines(mercutio, later).length === 2);
    expect(lines(juliet, later)).toEqual(['Mercutio: later', 'Juliet: I am here']);

    // the join is the new one: a later loss is found, and only the messages since then are missed
    await sleep(1100);
    await testBed.dropOccupant(room, juliet);
    await mercutio.sendMessage(room, 'missed 6');
    const again = testBed.dropStreams();
    expect(await testBed.checkDone(again)).toMatchObject({ left: 1, reentered: 1, notified: 0 });
    await settled(juliet);
    expect(lines(juliet, again)).toEqual(['Mercutio: missed 6']);
    expect(juliet.notices()).toEqual([]);
  });
});

describe('one room of a chat service', () => {
  let mercutio: User;
  let juliet: User;

  beforeAll(async () => {
    testBed = await TwoServers.open(REENTER, { guests: ['mercutio', 'benvolio', 'tybalt'] });
  });
  afterAll(() => testBed.close());
  beforeEach(async () => {
    newRoom();
    [mercutio, juliet] = [await guest('mercutio'), await user('juliet')];
    await mercutio.join(room, 'Mercutio');
    await testBed.join(juliet, room, 'Juliet');
  });

  const noticeTexts = (session: User): readonly string[] =>
    session
      .notices()
      .map(
        ({ stanza }) => `${stanza.attrs['from']}: ${stanza.getChild('x')?.getChild('item')?.getChildText('reason')}`,
      );

  it.each([
    ['is now for members only', () => 'members only'],
    ['has banned the user', () => ({ ban: `juliet@${testBed.home.host}` })],
    ['now has a password', () => ({ password: 'swordfish' })],
    ['now has another user under this nick', () => undefined],
  ] as readonly [string, () => RoomChange | undefined][])(
    'the room %s: the user is notified once, and does not receive the refusal',
    async (_what, what) => {
      const change = what();
      await testBed.dropOccupant(room, juliet);
      if (change === undefined) await (await guest('benvolio')).join(room, 'Juliet');
      else await testBed.away.rooms.change(room, change);
      const cut = testBed.dropStreams();
      expect(await testBed.checkDone(cut)).toMatchObject({ left: 1, reentered: 0, notified: 1 });
      await settled(juliet);
      expect(receivedSince(juliet, cut)).toEqual(['gone Juliet 110 330 333']);
      expect(noticeTexts(juliet)).toHaveLength(1);
    },
  );

  it('the room is gone: the user is notified, and no room is created', async () => {
    await testBed.home.set(UNTIL_IT_STARTS);
    const killed = await testBed.restartChatServer();
    expect(await testBed.checkDone(killed)).toMatchObject({ left: 1, reentered: 0, notified: 1 });
    await testBed.home.set();
    await settled(juliet);
    expect(receivedSince(juliet, killed)).toEqual(['gone Juliet 110 330 333']);
    expect(await testBed.away.rooms.has(room)).toBe(false);
  });

  it('the room survives a restart without its occupants: the user is back, and learns who is gone', async () => {
    await testBed.away.rooms.change(room, 'persistent');
    await testBed.home.set(UNTIL_IT_STARTS);
    const killed = await testBed.restartChatServer();
    expect(await testBed.checkDone(killed)).toMatchObject({ left: 1, reentered: 1, notified: 0 });
    await testBed.home.set();
    await settled(juliet);
    expect(receivedSince(juliet, killed)).toEqual(['gone Mercutio', 'there Juliet 110', 'subject']);
  });

  it('the room drops three users, and bans one of them: the two others are shown only real leaves', async () => {
    const [romeo, nurse, benvolio] = [await user('romeo'), await user('nurse'), await guest('benvolio')];
    await benvolio.join(room, 'Benvolio');
    for (const [session, nick] of [
      [romeo, 'Romeo'],
      [nurse, 'Nurse'],
    ] as const)
      await testBed.join(session, room, nick);
    for (const session of [juliet, romeo, nurse]) await testBed.dropOccupant(room, session);
    await benvolio.leave(room, 'Benvolio');
    await testBed.away.rooms.change(room, { ban: `nurse@${testBed.home.host}` });
    const cut = testBed.dropStreams();
    expect(await testBed.checkDone(cut)).toMatchObject({ left: 3, reentered: 2, notified: 1 });
    await settled(juliet);
    for (const session of [juliet, romeo]) {
      const gone = receivedSince(session, cut).filter((text) => text.startsWith('gone'));
      expect(gone.sort()).toEqual(['gone Benvolio', 'gone Nurse']);
    }
    expect(receivedSince(nurse, cut)).toEqual(['gone Nurse 110 330 333']);
  });

  it('two sessions under one nick: each is back, and neither is shown that this nick leaves', async () => {
    const laptop = await user('juliet', 'laptop');
    await testBed.join(laptop, room, 'Juliet');
    for (const session of [juliet, laptop]) await testBed.dropOccupant(room, session);
    await mercutio.sendMessage(room, 'missed');
    const cut = testBed.dropStreams();
    expect(await testBed.checkDone(cut)).toMatchObject({ left: 2, reentered: 2, notified: 0 });
    await settled(juliet);
    for (const session of [juliet, laptop]) {
      expect(receivedSince(session, cut).filter((text) => text.startsWith('gone'))).toEqual([]);
      expect(lines(session, cut)).toEqual(['Mercutio: missed']);
    }
  });

  it('one of two sessions under one nick is out: it is back, and the other receives only its presence', async () => {
    const laptop = await user('juliet', 'laptop');
    await testBed.join(laptop, room, 'Juliet');
    await testBed.dropOccupant(room, juliet);
    const cut = testBed.dropStreams();
    expect(await testBed.checkDone(cut)).toMatchObject({ left: 1, joined: 1, reentered: 1, notified: 0 });
    await settled(juliet);
    expect(receivedSince(juliet, cut)).toEqual(['there Mercutio', 'there Juliet 110', 'subject']);
    expect(receivedSince(laptop, cut).filter((text) => !text.startsWith('there Juliet'))).toEqual([]);
  });

  it("the room receives the session's last presence, and nothing else", async () => {
    const status = xml(
      'presence',
      {},
      xml('show', {}, 'away'),
      xml('status', {}, 'at the ball'),
      xml('c', { xmlns: 'http://jabber.org/protocol/caps', node: 'n', ver: 'v', hash: 'sha-1' }),
    );
    await juliet.send(status);
    await testBed.dropOccupant(room, juliet);
    const cut = testBed.dropStreams();
    expect(await testBed.checkDone(cut)).toMatchObject({ reentered: 1 });
    const seen = await until('her presence has arrived', () =>
      mercutio.presences(room, cut).find(({ attrs }) => String(attrs['from']).endsWith('/Juliet')),
    );
    const names = seen.children.map((child) => (typeof child === 'string' ? child : child.name));
    expect(names.filter((name) => name !== 'occupant-id').sort()).toEqual(['c', 'show', 'status', 'x']);
    expect([seen.getChildText('show'), seen.getChildText('status')]).toEqual(['away', 'at the ball']);
  });

  it('the room keeps fewer messages than were missed: these arrive, and the gap is counted', async () => {
    await mercutio.sendMessage(room, 'early');
    await until('the message has arrived', () => lines(juliet, 0).length === 1);
    await testBed.dropOccupant(room, juliet);
    for (let n = 1; n <= 25; n += 1) await mercutio.sendMessage(room, `missed ${n}`);
    const cut = testBed.dropStreams();
    expect(await testBed.checkDone(cut)).toMatchObject({ reentered: 1, notified: 0 });
    await settled(juliet);
    expect(lines(juliet, cut)).toEqual(Array.from({ length: 20 }, (_, index) => `Mercutio: missed ${index + 6}`));
    expect(await testBed.home.log()).toMatch(new RegExp(`[Tt]he history of ${room} did not reach back`));
    expect(testBed.runtime.lines.reduce((sum, line) => sum + Number(line['HistoryGaps'] ?? 0), 0)).toBe(1);
  });

  it('the room has more occupants than the limit: the user is notified', async () => {
    await testBed.home.set({ ping_muc_reenter_limit: 1 });
    await testBed.dropOccupant(room, juliet);
    const cut = testBed.dropStreams();
    expect(await testBed.checkDone(cut)).toMatchObject({ left: 1, reentered: 0, notified: 1 });
    await settled(juliet);
    expect(receivedSince(juliet, cut)).toEqual(['gone Juliet 110 330 333']);
    await testBed.home.set();
  });

  it.each([
    [1, 0],
    [2, 1],
  ])(
    'the number of occupants is unknown to the server: with two, and a limit of %i, the user is notified or back',
    async (limit, back) => {
      await (await guest('benvolio')).join(room, 'Benvolio');
      for (const changes of [{ ping_muc_reenter: false }, { ping_muc_reenter_limit: limit }]) {
        await testBed.home.set(changes);
      }
      await testBed.dropOccupant(room, juliet);
      const cut = testBed.dropStreams();
      expect(await testBed.checkDone(cut)).toMatchObject({ left: 1, reentered: back, notified: 1 - back });
      await settled(juliet);
      const notices333 = receivedSince(juliet, cut).filter((text) => text === 'gone Juliet 110 330 333');
      expect([notices333.length, receivedSince(juliet, cut).includes('there Juliet 110')]).toEqual([
        1 - back,
        back === 1,
      ]);
      await testBed.home.set();
    },
  );

  it('re-entry is turned off between the close and the verdict: the user is notified', async () => {
    await testBed.dropOccupant(room, juliet);
    const cut = testBed.dropStreams();
    await testBed.runtime.line(
      'webhook stored',
      (line) => Number(line['ChecksStarted']) > 0 && Date.parse(String(line['time'])) >= cut - 500,
    );
    await testBed.home.set({ ping_muc_reenter: false });
    expect(await testBed.checkDone(cut)).toMatchObject({ left: 1, reentered: 0, notified: 1 });
    await settled(juliet);
    expect(receivedSince(juliet, cut)).toEqual(['gone Juliet 110 330 333']);
    await testBed.home.set();
  });

  it('without ping_muc_reenter_occupants no leaves are shown', async () => {
    await testBed.home.set({ ping_muc_reenter_occupants: false });
    const changed = Date.now();
    await mercutio.send(xml('presence', { to: `${room}/Mercutio` }));
    await until('she receives his presence', () => receivedSince(juliet, changed).includes('there Mercutio'));
    await testBed.dropOccupant(room, juliet);
    await (await guest('benvolio')).join(room, 'Benvolio');
    await mercutio.leave(room, 'Mercutio');
    const cut = testBed.dropStreams();
    expect(await testBed.checkDone(cut)).toMatchObject({ reentered: 1, notified: 0 });
    await settled(juliet);
    expect(receivedSince(juliet, cut)).toEqual(['there Benvolio', 'there Juliet 110', 'subject']);
    await testBed.home.set();
  });
});
