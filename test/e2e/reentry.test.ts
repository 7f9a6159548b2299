import { xml } from '@xmpp/client';
import type { Element } from '@xmpp/xml';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import { TwoServers } from '../../lab/two-servers.ts';
import { type User, statusCodes } from '../../lab/user.ts';

/** Rule 10 (docs/rules.md), between real servers: whoever is out of a room that is there is brought back, and hears nothing of it. */
const DELAY = 1;
const REENTER = { ping_muc_delay: DELAY, ping_muc_timeout: 5, ping_muc_patience: 0, ping_muc_reenter: true };
/** What the server does, it has done by then. */
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

/** What a session got from the room since a moment, in words. */
function receivedSince({ received }: User, since: number, from = room): readonly string[] {
  return received
    .filter(({ at, stanza }) => at >= since && String(stanza.attrs['from']).split('/')[0] === from)
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

/** Waits until everything that the server has begun so far has reached the session. */
async function settled(session: User): Promise<void> {
  const id = `settled-${Date.now()}`;
  await session.send(xml('iq', { type: 'get', id, to: testBed.home.host }, xml('ping', { xmlns: 'urn:xmpp:ping' })));
  await until('the server answers', () => session.received.some(({ stanza }) => stanza.attrs['id'] === id));
  await sleep(SETTLE_MS);
}

describe.each([
  ['with an archive', 'modules_enabled = { "muc_mam" }\nmuc_log_by_default = true'],
  ['without an archive', ''],
])('rooms %s', (_what, forMucs) => {
  beforeAll(async () => {
    testBed = await TwoServers.open(REENTER, { forMucs, guests: ['mercutio', 'benvolio', 'tybalt'] });
  });
  afterAll(() => testBed.close());
  beforeEach(newRoom);

  it('the user is back: the missed lines come once and in order, those who left are gone, and nobody noticed anything', async () => {
    const [mercutio, benvolio, tybalt] = [await guest('mercutio'), await guest('benvolio'), await guest('tybalt')];
    await mercutio.join(room, 'Mercutio');
    await benvolio.join(room, 'Benvolio');
    const juliet = await user('juliet');
    await testBed.join(juliet, room, 'Juliet');
    await mercutio.sendMessage(room, 'early 1');
    await juliet.sendMessage(room, 'early 2');
    await mercutio.sendMessage(room, 'early 3');
    await until('all is heard', () => lines(juliet, 0).length === 3);
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
    await until('she hears it', () => lines(juliet, later).length === 1);
    await juliet.sendMessage(room, 'I am here');
    await until('all hear it', () => lines(juliet, later).length === 2 && lines(mercutio, later).length === 2);
    expect(lines(juliet, later)).toEqual(['Mercutio: later', 'Juliet: I am here']);

    // the join is the new one: the next check finds nothing wrong, and a later loss misses what was said since
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
    ['is for members only by now', 'room:set_members_only(true)'],
    ['has banned the user', 'room:set_affiliation(true, "juliet@HOST", "outcast")'],
    ['has a password by now', 'room:set_password("swordfish")'],
    ['has somebody else under this nick by now', undefined],
  ])('it %s: the user is told once, and hears nothing of the refusal', async (_what, change) => {
    await testBed.dropOccupant(room, juliet);
    if (change === undefined) await (await guest('benvolio')).join(room, 'Juliet');
    else await testBed.atRoom(room, change.replace('HOST', testBed.home.host));
    const cut = testBed.dropStreams();
    expect(await testBed.checkDone(cut)).toMatchObject({ left: 1, reentered: 0, notified: 1 });
    await settled(juliet);
    expect(receivedSince(juliet, cut)).toEqual(['gone Juliet 110 330 333']);
    expect(noticeTexts(juliet)).toHaveLength(1);
  });

  it('it is gone: the user is told, and no room is made', async () => {
    const killed = await testBed.restartChatServer();
    expect(await testBed.checkDone(killed)).toMatchObject({ left: 1, reentered: 0, notified: 1 });
    await settled(juliet);
    expect(receivedSince(juliet, killed)).toEqual(['gone Juliet 110 330 333']);
    expect(await testBed.atRoom(room, 'return room == nil')).toContain('true');
  });

  it('it outlives a restart of its server, which forgets who was in: the user is back, and learns who is not', async () => {
    await testBed.atRoom(room, 'room:set_persistent(true); room:save(true)');
    const killed = await testBed.restartChatServer();
    expect(await testBed.checkDone(killed)).toMatchObject({ left: 1, reentered: 1, notified: 0 });
    await settled(juliet);
    expect(receivedSince(juliet, killed)).toEqual(['gone Mercutio', 'there Juliet 110', 'subject']);
  });

  it('it forgot three of one server, one of whom it lets in no more: the two others see nobody go but those who are gone', async () => {
    const [romeo, nurse, benvolio] = [await user('romeo'), await user('nurse'), await guest('benvolio')];
    await benvolio.join(room, 'Benvolio');
    for (const [session, nick] of [
      [romeo, 'Romeo'],
      [nurse, 'Nurse'],
    ] as const)
      await testBed.join(session, room, nick);
    for (const session of [juliet, romeo, nurse]) await testBed.dropOccupant(room, session);
    await benvolio.leave(room, 'Benvolio');
    await testBed.atRoom(room, `room:set_affiliation(true, "nurse@${testBed.home.host}", "outcast")`);
    const cut = testBed.dropStreams();
    expect(await testBed.checkDone(cut)).toMatchObject({ left: 3, reentered: 2, notified: 1 });
    await settled(juliet);
    for (const session of [juliet, romeo]) {
      const gone = receivedSince(session, cut).filter((text) => text.startsWith('gone'));
      expect(gone.sort()).toEqual(['gone Benvolio', 'gone Nurse']);
    }
    expect(receivedSince(nurse, cut)).toEqual(['gone Nurse 110 330 333']);
  });

  it('two sessions under one nick: each is back, and neither sees this nick go', async () => {
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

  it('one of two sessions under one nick is out: it is back, and the other notices nothing but its presence', async () => {
    const laptop = await user('juliet', 'laptop');
    await testBed.join(laptop, room, 'Juliet');
    await testBed.dropOccupant(room, juliet);
    const cut = testBed.dropStreams();
    expect(await testBed.checkDone(cut)).toMatchObject({ left: 1, joined: 1, reentered: 1, notified: 0 });
    await settled(juliet);
    expect(receivedSince(juliet, cut)).toEqual(['there Mercutio', 'there Juliet 110', 'subject']);
    expect(receivedSince(laptop, cut).filter((text) => !text.startsWith('there Juliet'))).toEqual([]);
  });

  it('the room sees the presence that the session showed last, and nothing that it did not', async () => {
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
    const seen = await until('she is seen', () =>
      mercutio.presences(room, cut).find(({ attrs }) => String(attrs['from']).endsWith('/Juliet')),
    );
    expect(seen.children.map((child) => (typeof child === 'string' ? child : child.name)).sort()).toEqual([
      'c',
      'occupant-id',
      'show',
      'status',
      'x',
    ]);
    expect([seen.getChildText('show'), seen.getChildText('status')]).toEqual(['away', 'at the ball']);
  });

  it('more was said than the room keeps: what it keeps comes, and that lines are missing is counted', async () => {
    await mercutio.sendMessage(room, 'heard');
    await until('it is heard', () => lines(juliet, 0).length === 1);
    await testBed.dropOccupant(room, juliet);
    for (let n = 1; n <= 25; n += 1) await mercutio.sendMessage(room, `missed ${n}`);
    const cut = testBed.dropStreams();
    expect(await testBed.checkDone(cut)).toMatchObject({ reentered: 1, notified: 0 });
    await settled(juliet);
    expect(lines(juliet, cut)).toEqual(Array.from({ length: 20 }, (_, index) => `Mercutio: missed ${index + 6}`));
    expect(await testBed.home.log()).toContain(`The history of ${room} did not reach back`);
    expect(testBed.runtime.lines.reduce((sum, line) => sum + Number(line['HistoryGaps'] ?? 0), 0)).toBe(1);
  });

  it('it has more occupants than the limit: the user is told', async () => {
    await testBed.home.reload(testBed.runtime.prosodySettings({ ...REENTER, ping_muc_reenter_limit: 1 }).forHost);
    await testBed.dropOccupant(room, juliet);
    const cut = testBed.dropStreams();
    expect(await testBed.checkDone(cut)).toMatchObject({ left: 1, reentered: 0, notified: 1 });
    await settled(juliet);
    expect(receivedSince(juliet, cut)).toEqual(['gone Juliet 110 330 333']);
    await testBed.home.reload();
  });

  it.each([
    [1, 0],
    [2, 1],
  ])(
    'it has two occupants, of whom nobody has seen all since re-entry was turned on: at a limit of %i the user is told, or back',
    async (limit, back) => {
      await (await guest('benvolio')).join(room, 'Benvolio');
      for (const changes of [{ ping_muc_reenter: false }, { ping_muc_reenter_limit: limit }]) {
        await testBed.home.reload(testBed.runtime.prosodySettings({ ...REENTER, ...changes }).forHost);
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
      await testBed.home.reload();
    },
  );

  it('re-entry is turned off between the close and the verdict: the user is told', async () => {
    await testBed.dropOccupant(room, juliet);
    const cut = testBed.dropStreams();
    await testBed.runtime.line(
      'webhook stored',
      (line) => Number(line['ChecksStarted']) > 0 && Date.parse(String(line['time'])) >= cut - 500,
    );
    await testBed.home.reload(testBed.runtime.prosodySettings({ ...REENTER, ping_muc_reenter: false }).forHost);
    expect(await testBed.checkDone(cut)).toMatchObject({ left: 1, reentered: 0, notified: 1 });
    await settled(juliet);
    expect(receivedSince(juliet, cut)).toEqual(['gone Juliet 110 330 333']);
    await testBed.home.reload();
  });

  it('without ping_muc_reenter_occupants nobody is said to have gone', async () => {
    await testBed.home.reload(
      testBed.runtime.prosodySettings({ ...REENTER, ping_muc_reenter_occupants: false }).forHost,
    );
    const changed = Date.now();
    await mercutio.send(xml('presence', { to: `${room}/Mercutio` }));
    await until('she sees him', () => receivedSince(juliet, changed).includes('there Mercutio'));
    await testBed.dropOccupant(room, juliet);
    await (await guest('benvolio')).join(room, 'Benvolio');
    await mercutio.leave(room, 'Mercutio');
    const cut = testBed.dropStreams();
    expect(await testBed.checkDone(cut)).toMatchObject({ reentered: 1, notified: 0 });
    await settled(juliet);
    expect(receivedSince(juliet, cut)).toEqual(['there Benvolio', 'there Juliet 110', 'subject']);
    await testBed.home.reload();
  });
});
