import { xml } from '@xmpp/client';
import type { Element } from '@xmpp/xml';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import { Scene } from '../../lab/scene.ts';
import { type User, statusCodes } from '../../lab/user.ts';

/** Rule 10 (docs/rules.md), between real servers: whoever is out of a room that is there is brought back, and hears nothing of it. */
const DELAY = 1;
const REENTER = { ping_muc_delay: DELAY, ping_muc_timeout: 5, ping_muc_patience: 0, ping_muc_reenter: true };
/** What the server does, it has done by then. */
const AFTERMATH_MS = 700;

let scene: Scene;
let room: string;
let rooms = 0;
const sessions: { leaveServer(): Promise<void> }[] = [];

async function user(name: string, resource = 'phone'): Promise<User> {
  const connected = await scene.user(name, resource);
  sessions.push(connected);
  return connected;
}
async function guest(name: string): Promise<User> {
  const connected = await scene.guest(name);
  sessions.push(connected);
  return connected;
}

function newRoom(): void {
  rooms += 1;
  room = scene.room(`room-${rooms}`);
}
afterEach(async () => {
  for (const session of sessions.splice(0)) await session.leaveServer();
});

/** What a session got from the room since a moment, in words. */
function heard({ received }: User, since: number, from = room): readonly string[] {
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
  heard(session, since).filter((said) => said.includes(': '));

/** Waits until everything that the server has begun so far has reached the session. */
async function settled(session: User): Promise<void> {
  const id = `settled-${Date.now()}`;
  await session.send(xml('iq', { type: 'get', id, to: scene.home.host }, xml('ping', { xmlns: 'urn:xmpp:ping' })));
  await until('the server answers', () => session.received.some(({ stanza }) => stanza.attrs['id'] === id));
  await sleep(AFTERMATH_MS);
}

describe.each([
  ['with an archive', 'modules_enabled = { "muc_mam" }\nmuc_log_by_default = true'],
  ['without an archive', ''],
])('rooms %s', (_what, forMucs) => {
  beforeAll(async () => {
    scene = await Scene.open(REENTER, { forMucs, guests: ['mercutio', 'benvolio', 'tybalt'] });
  });
  afterAll(() => scene.close());
  beforeEach(newRoom);

  it('the user is back: the missed lines come once and in order, those who left are gone, and nobody noticed anything', async () => {
    const [mercutio, benvolio, tybalt] = [await guest('mercutio'), await guest('benvolio'), await guest('tybalt')];
    await mercutio.join(room, 'Mercutio');
    await benvolio.join(room, 'Benvolio');
    const juliet = await user('juliet');
    await scene.join(juliet, room, 'Juliet');
    await mercutio.say(room, 'early 1');
    await juliet.say(room, 'early 2');
    await mercutio.say(room, 'early 3');
    await until('all is heard', () => lines(juliet, 0).length === 3);
    const recorded = scene.recorded();

    await scene.forget(room, juliet);
    const lost = Date.now();
    await mercutio.say(room, 'missed 1');
    await sleep(4000);
    for (let n = 2; n <= 5; n += 1) await mercutio.say(room, `missed ${n}`);
    await benvolio.leave(room, 'Benvolio');
    await tybalt.join(room, 'Tybalt');
    expect(heard(juliet, lost)).toEqual([]);
    const cut = scene.dropStreams();
    expect(await scene.checkDone(cut)).toMatchObject({ left: 1, reentered: 1, notified: 0 });
    await settled(juliet);

    expect(lines(juliet, lost)).toEqual([1, 2, 3, 4, 5].map((n) => `Mercutio: missed ${n}`));
    expect(
      heard(juliet, lost)
        .filter((said) => !said.includes(': '))
        .sort(),
    ).toEqual(['gone Benvolio', 'subject', 'there Juliet 110', 'there Mercutio', 'there Tybalt']);
    expect(scene.recorded()).toBe(recorded + 1);

    const later = Date.now();
    await mercutio.say(room, 'later');
    await until('she hears it', () => lines(juliet, later).length === 1);
    await juliet.say(room, 'I am here');
    await until('all hear it', () => lines(juliet, later).length === 2 && lines(mercutio, later).length === 2);
    expect(lines(juliet, later)).toEqual(['Mercutio: later', 'Juliet: I am here']);

    // the join is the new one: the next check finds nothing wrong, and a later loss misses what was said since
    await sleep(1100);
    await scene.forget(room, juliet);
    await mercutio.say(room, 'missed 6');
    const again = scene.dropStreams();
    expect(await scene.checkDone(again)).toMatchObject({ left: 1, reentered: 1, notified: 0 });
    await settled(juliet);
    expect(lines(juliet, again)).toEqual(['Mercutio: missed 6']);
    expect(juliet.notices()).toEqual([]);
  });
});

describe('one room of a chat service', () => {
  let mercutio: User;
  let juliet: User;

  beforeAll(async () => {
    scene = await Scene.open(REENTER, { guests: ['mercutio', 'benvolio', 'tybalt'] });
  });
  afterAll(() => scene.close());
  beforeEach(async () => {
    newRoom();
    [mercutio, juliet] = [await guest('mercutio'), await user('juliet')];
    await mercutio.join(room, 'Mercutio');
    await scene.join(juliet, room, 'Juliet');
  });

  const told = (session: User): readonly string[] =>
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
    await scene.forget(room, juliet);
    if (change === undefined) await (await guest('benvolio')).join(room, 'Juliet');
    else await scene.atRoom(room, change.replace('HOST', scene.home.host));
    const cut = scene.dropStreams();
    expect(await scene.checkDone(cut)).toMatchObject({ left: 1, reentered: 0, notified: 1 });
    await settled(juliet);
    expect(heard(juliet, cut)).toEqual(['gone Juliet 110 330 333']);
    expect(told(juliet)).toHaveLength(1);
  });

  it('it is gone: the user is told, and no room is made', async () => {
    const killed = await scene.restartAway();
    expect(await scene.checkDone(killed)).toMatchObject({ left: 1, reentered: 0, notified: 1 });
    await settled(juliet);
    expect(heard(juliet, killed)).toEqual(['gone Juliet 110 330 333']);
    expect(await scene.atRoom(room, 'return room == nil')).toContain('true');
  });

  it('it outlives a restart of its server, which forgets who was in: the user is back, and learns who is not', async () => {
    await scene.atRoom(room, 'room:set_persistent(true); room:save(true)');
    const killed = await scene.restartAway();
    expect(await scene.checkDone(killed)).toMatchObject({ left: 1, reentered: 1, notified: 0 });
    await settled(juliet);
    expect(heard(juliet, killed)).toEqual(['gone Mercutio', 'there Juliet 110', 'subject']);
  });

  it('it forgot three of one server, one of whom it lets in no more: the two others see nobody go but those who are gone', async () => {
    const [romeo, nurse, benvolio] = [await user('romeo'), await user('nurse'), await guest('benvolio')];
    await benvolio.join(room, 'Benvolio');
    for (const [session, nick] of [
      [romeo, 'Romeo'],
      [nurse, 'Nurse'],
    ] as const)
      await scene.join(session, room, nick);
    for (const session of [juliet, romeo, nurse]) await scene.forget(room, session);
    await benvolio.leave(room, 'Benvolio');
    await scene.atRoom(room, `room:set_affiliation(true, "nurse@${scene.home.host}", "outcast")`);
    const cut = scene.dropStreams();
    expect(await scene.checkDone(cut)).toMatchObject({ left: 3, reentered: 2, notified: 1 });
    await settled(juliet);
    for (const session of [juliet, romeo]) {
      const gone = heard(session, cut).filter((said) => said.startsWith('gone'));
      expect(gone.sort()).toEqual(['gone Benvolio', 'gone Nurse']);
    }
    expect(heard(nurse, cut)).toEqual(['gone Nurse 110 330 333']);
  });

  it('two sessions under one nick: each is back, and neither sees this nick go', async () => {
    const laptop = await user('juliet', 'laptop');
    await scene.join(laptop, room, 'Juliet');
    for (const session of [juliet, laptop]) await scene.forget(room, session);
    await mercutio.say(room, 'missed');
    const cut = scene.dropStreams();
    expect(await scene.checkDone(cut)).toMatchObject({ left: 2, reentered: 2, notified: 0 });
    await settled(juliet);
    for (const session of [juliet, laptop]) {
      expect(heard(session, cut).filter((said) => said.startsWith('gone'))).toEqual([]);
      expect(lines(session, cut)).toEqual(['Mercutio: missed']);
    }
  });

  it('one of two sessions under one nick is out: it is back, and the other notices nothing but its presence', async () => {
    const laptop = await user('juliet', 'laptop');
    await scene.join(laptop, room, 'Juliet');
    await scene.forget(room, juliet);
    const cut = scene.dropStreams();
    expect(await scene.checkDone(cut)).toMatchObject({ left: 1, joined: 1, reentered: 1, notified: 0 });
    await settled(juliet);
    expect(heard(juliet, cut)).toEqual(['there Mercutio', 'there Juliet 110', 'subject']);
    expect(heard(laptop, cut).filter((said) => !said.startsWith('there Juliet'))).toEqual([]);
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
    await scene.forget(room, juliet);
    const cut = scene.dropStreams();
    expect(await scene.checkDone(cut)).toMatchObject({ reentered: 1 });
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
    await mercutio.say(room, 'heard');
    await until('it is heard', () => lines(juliet, 0).length === 1);
    await scene.forget(room, juliet);
    for (let n = 1; n <= 25; n += 1) await mercutio.say(room, `missed ${n}`);
    const cut = scene.dropStreams();
    expect(await scene.checkDone(cut)).toMatchObject({ reentered: 1, notified: 0 });
    await settled(juliet);
    expect(lines(juliet, cut)).toEqual(Array.from({ length: 20 }, (_, index) => `Mercutio: missed ${index + 6}`));
    expect(await scene.home.log()).toContain(`The history of ${room} did not reach back`);
    expect(scene.runtime.lines.reduce((sum, line) => sum + Number(line['HistoryGaps'] ?? 0), 0)).toBe(1);
  });

  it('it has more occupants than the limit: the user is told', async () => {
    await scene.home.reload(scene.runtime.prosodySettings({ ...REENTER, ping_muc_reenter_limit: 1 }).forHost);
    await scene.forget(room, juliet);
    const cut = scene.dropStreams();
    expect(await scene.checkDone(cut)).toMatchObject({ left: 1, reentered: 0, notified: 1 });
    await settled(juliet);
    expect(heard(juliet, cut)).toEqual(['gone Juliet 110 330 333']);
    await scene.home.reload();
  });

  it.each([
    [1, 0],
    [2, 1],
  ])(
    'it has two occupants, of whom nobody has seen all since re-entry was turned on: at a limit of %i the user is told, or back',
    async (limit, back) => {
      await (await guest('benvolio')).join(room, 'Benvolio');
      for (const changes of [{ ping_muc_reenter: false }, { ping_muc_reenter_limit: limit }]) {
        await scene.home.reload(scene.runtime.prosodySettings({ ...REENTER, ...changes }).forHost);
      }
      await scene.forget(room, juliet);
      const cut = scene.dropStreams();
      expect(await scene.checkDone(cut)).toMatchObject({ left: 1, reentered: back, notified: 1 - back });
      await settled(juliet);
      const told333 = heard(juliet, cut).filter((said) => said === 'gone Juliet 110 330 333');
      expect([told333.length, heard(juliet, cut).includes('there Juliet 110')]).toEqual([1 - back, back === 1]);
      await scene.home.reload();
    },
  );

  it('re-entry is turned off between the close and the verdict: the user is told', async () => {
    await scene.forget(room, juliet);
    const cut = scene.dropStreams();
    await scene.runtime.line(
      'webhook stored',
      (line) => Number(line['ChecksStarted']) > 0 && Date.parse(String(line['time'])) >= cut - 500,
    );
    await scene.home.reload(scene.runtime.prosodySettings({ ...REENTER, ping_muc_reenter: false }).forHost);
    expect(await scene.checkDone(cut)).toMatchObject({ left: 1, reentered: 0, notified: 1 });
    await settled(juliet);
    expect(heard(juliet, cut)).toEqual(['gone Juliet 110 330 333']);
    await scene.home.reload();
  });

  it('without ping_muc_reenter_occupants nobody is said to have gone', async () => {
    await scene.home.reload(scene.runtime.prosodySettings({ ...REENTER, ping_muc_reenter_occupants: false }).forHost);
    const changed = Date.now();
    await mercutio.send(xml('presence', { to: `${room}/Mercutio` }));
    await until('she sees him', () => heard(juliet, changed).includes('there Mercutio'));
    await scene.forget(room, juliet);
    await (await guest('benvolio')).join(room, 'Benvolio');
    await mercutio.leave(room, 'Mercutio');
    const cut = scene.dropStreams();
    expect(await scene.checkDone(cut)).toMatchObject({ reentered: 1, notified: 0 });
    await settled(juliet);
    expect(heard(juliet, cut)).toEqual(['there Benvolio', 'there Juliet 110', 'subject']);
    await scene.home.reload();
  });
});
