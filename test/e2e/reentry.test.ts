import { xml } from '@xmpp/client';
import type { Element } from '@xmpp/xml';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { sleep, until } from '../lab/lab.ts';
import { Scene } from '../lab/scene.ts';
import { type User, statusCodes } from '../lab/user.ts';

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
  if (stanza.is('message')) return stanza.getChild('body') === undefined ? 'subject' : `${nick}: ${stanza.getChildText('body')}`;
  const codes = statusCodes(stanza).filter((code) => code !== '100');
  return [type === undefined ? 'there' : type === 'unavailable' ? 'gone' : type, nick, ...codes].join(' ');
}

const lines = (session: User, since: number): readonly string[] => heard(session, since).filter((said) => said.includes(': '));

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
    for (let n = 1; n <= 5; n += 1) await mercutio.say(room, `missed ${n}`);
    await benvolio.leave(room, 'Benvolio');
    await tybalt.join(room, 'Tybalt');
    expect(heard(juliet, lost)).toEqual([]);
    const cut = scene.dropStreams();
    expect(await scene.checkDone(cut)).toMatchObject({ left: 1, reentered: 1, notified: 0 });
    await settled(juliet);

    expect(lines(juliet, lost)).toEqual([1, 2, 3, 4, 5].map((n) => `Mercutio: missed ${n}`));
    expect(heard(juliet, lost).filter((said) => !said.includes(': ')).sort()).toEqual(['gone Benvolio', 'subject', 'there Juliet 110', 'there Mercutio', 'there Tybalt']);
    expect(scene.recorded()).toBe(recorded + 1);

    const later = Date.now();
    await mercutio.say(room, 'later');
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
