import xml from '@xmpp/xml';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { until } from '../../lab/lab.ts';
import { mucPresence, refusal, silence } from '../../lab/scripted-muc.ts';
import { ScriptedRooms } from '../../lab/scripted-rooms.ts';
import type { User } from '../../lab/user.ts';

/** Rule 1 (docs/rules.md): what the module reports as a join, and as its end. */
const HIBERNATION_SECONDS = 25;
let testBed: ScriptedRooms;
/** Her connection is lost before the tests begin. */
let nurse: User;
let juliet: User;
let room: string;
let rooms = 0;

beforeAll(async () => {
  testBed = await ScriptedRooms.open({ ping_muc_delay: 1 }, 1, { hibernationSeconds: HIBERNATION_SECONDS });
  nurse = await testBed.user('nurse');
  await testBed.join(nurse, testBed.muc().room('nursery'), 'Nurse');
  await nurse.die();
});
afterAll(() => testBed.close());

beforeEach(async () => {
  rooms += 1;
  room = testBed.muc().room(`room-${rooms}`);
  juliet = await testBed.user('juliet');
});
afterEach(() => juliet.leaveServer());

/** Sends a presence from the service to the user that answers nothing. */
function send(
  presence: Omit<Parameters<typeof mucPresence>[0], 'from' | 'to'> & { nick?: string; from?: string; to?: string },
): void {
  const { nick = 'Juliet', ...rest } = presence;
  testBed.muc().send(mucPresence({ from: `${room}/${nick}`, to: juliet.jid, ...rest }));
}

describe('a join is', () => {
  it('recorded when the session requests it and the room confirms it with 110', async () => {
    await juliet.enter(room, 'Juliet');
    await testBed.waitForHistory(room, ['joined Juliet']);
    const [event] = testBed.reported().filter((reported) => reported.room === room);
    expect(event).toEqual({ type: 'muc.joined', at: event?.at, user: juliet.jid, room, nick: 'Juliet' });
  });

  it('recorded under the nick that the room assigned (210)', async () => {
    testBed
      .muc()
      .script('enter', room, (question) => testBed.muc().admit({ ...question, nick: 'Juliet2' }, [110, 210]));
    await juliet.enter(room, 'Juliet');
    await testBed.waitForHistory(room, ['joined Juliet2']);
  });

  it('recorded under a nick of emoji, unchanged', async () => {
    await testBed.join(juliet, room, '🌅');
    await juliet.enter(room, '🎭🌹');
    await testBed.waitForHistory(room, ['joined 🌅', 'joined 🎭🌹']);
    testBed.muc().dropOccupant(room, juliet.jid);
    const at = testBed.dropOutgoing();
    expect(await testBed.checkDone(at, testBed.muc().domain)).toMatchObject({ left: 1, notified: 1 });
    await until('the notice', () => juliet.notices()[0]);
    expect(juliet.notices().map(({ stanza }) => String(stanza.attrs['from']))).toEqual([`${room}/🎭🌹`]);
  });

  it('confirmed by a presence with 110 and other statuses, and not without 110', async () => {
    testBed.muc().script('enter', room, silence);
    await juliet.enter(room, 'Juliet');
    await until('the room has received the request', () => testBed.muc().count('enter', room) === 1);
    send({ nick: 'Mercutio' });
    send({ nick: 'Juliet' });
    send({ codes: [100, 170, 201] });
    send({ codes: [100, 110], from: room });
    await testBed.settle(juliet);
    expect(testBed.history(room)).toEqual([]);
    send({ codes: [100, 110, 170, 201] });
    await testBed.waitForHistory(room, ['joined Juliet']);
  });

  it('recorded even without the <x/> of XEP-0045 in the request', async () => {
    await juliet.send(xml('presence', { to: `${room}/Juliet` }));
    await testBed.waitForHistory(room, ['joined Juliet']);
  });

  it('not recorded if the room refuses it, even if it sends 110 later', async () => {
    testBed.muc().script('enter', room, refusal('auth', 'registration-required'));
    await juliet.enter(room, 'Juliet');
    await until('the refusal', () => juliet.presences(room)[0]);
    send({ codes: [110] });
    await testBed.settle(juliet);
    expect(testBed.history(room)).toEqual([]);
  });

  it('not recorded if the user leaves before the room answers', async () => {
    testBed.muc().script('enter', room, silence);
    testBed.muc().script('leave', room, silence);
    await juliet.enter(room, 'Juliet');
    await juliet.leave(room, 'Juliet');
    await until('the room has received the request', () => testBed.muc().count('leave', room) === 1);
    send({ codes: [110] });
    await testBed.settle(juliet);
    expect(testBed.history(room)).toEqual([]);
  });

  it('the same after a change of presence', async () => {
    await testBed.join(juliet, room, 'Juliet');
    await juliet.send(xml('presence', { to: `${room}/Juliet` }, xml('show', {}, 'away')));
    await until('the room answers', () => juliet.presences(room).length === 2);
    await testBed.settle(juliet);
    expect(testBed.history(room)).toEqual(['joined Juliet']);
  });

  it('a new one when the session joins again', async () => {
    await testBed.join(juliet, room, 'Juliet');
    await juliet.enter(room, 'Juliet');
    await testBed.waitForHistory(room, ['joined Juliet', 'joined Juliet']);
  });

  it('ended when the room refuses the session on a new attempt', async () => {
    await testBed.join(juliet, room, 'Juliet');
    testBed.muc().script('enter', room, refusal('auth', 'forbidden'));
    await juliet.enter(room, 'Juliet');
    await testBed.waitForHistory(room, ['joined Juliet', 'left']);
  });

  it('separate for each session', async () => {
    const laptop = await testBed.user('juliet', 'laptop');
    await testBed.join(juliet, room, 'Juliet');
    await testBed.join(laptop, room, 'Juliet');
    await laptop.leave(room, 'Juliet');
    await testBed.waitForHistory(room, ['joined Juliet', 'left'], laptop);
    expect(testBed.history(room, juliet)).toEqual(['joined Juliet']);
    await laptop.leaveServer();
  });
});

describe('a nick change (303)', () => {
  it('keeps the join, under the new nick', async () => {
    await testBed.join(juliet, room, 'Juliet');
    await juliet.enter(room, 'Julia');
    await testBed.waitForHistory(room, ['joined Juliet', 'joined Julia']);
  });

  it.each([
    ['whose old nick is not marked with 110', [303], 'nick="Julia"', [110]],
    ['whose new nick is not marked with 110', [303, 110], 'nick="Julia"', []],
    ['made by the service', [303, 110], 'nick="Julia"', [110, 210]],
    ['that does not say the new nick', [303, 110], '', [110]],
  ])('%s: keeps the join, too', async (_what, old, item, codes) => {
    await testBed.join(juliet, room, 'Juliet');
    send({ type: 'unavailable', codes: old, item });
    send({ nick: 'Julia', codes });
    await testBed.settle(juliet);
    expect(testBed.history(room)).toEqual(['joined Juliet', 'joined Julia']);
  });

  it('that results in another nick than announced: the nick that the user really has', async () => {
    await testBed.join(juliet, room, 'Juliet');
    send({ type: 'unavailable', codes: [303, 110], item: 'nick="Julia"' });
    send({ nick: 'Giulietta', codes: [110, 210] });
    await testBed.settle(juliet);
    expect(testBed.history(room).at(-1)).toBe('joined Giulietta');
  });

  it('of another occupant changes nothing', async () => {
    await testBed.join(juliet, room, 'Juliet');
    send({ nick: 'Romeo', type: 'unavailable', codes: [303], item: 'nick="Montague"' });
    send({ nick: 'Montague' });
    await testBed.settle(juliet);
    expect(testBed.history(room)).toEqual(['joined Juliet']);
  });
});

describe('a join ends', () => {
  const ENDS: readonly [string, Parameters<typeof send>[0]][] = [
    ['a kick (307)', { codes: [110, 307] }],
    ['a kick that is not marked with 110', { codes: [307] }],
    ['a ban (301)', { codes: [110, 301], item: 'jid="juliet@example.net"' }],
    ['the loss of membership (321)', { codes: [110, 321] }],
    ['the end of the room', { codes: [110], more: '<destroy jid="other@example.net"><reason>Done</reason></destroy>' }],
    ['the end of the room, without 110', { more: '<destroy/>' }],
    ['the end of the service (332)', { codes: [110, 332] }],
    ['a technical problem of the service (333)', { codes: [110, 333] }],
  ];

  it.each(ENDS)('with %s', async (_what, end) => {
    await testBed.join(juliet, room, 'Juliet');
    send({ type: 'unavailable', ...end });
    await testBed.waitForHistory(room, ['joined Juliet', 'left']);
  });

  it("with the user's leave, even if the room does not answer", async () => {
    testBed.muc().script('leave', room, silence);
    await testBed.join(juliet, room, 'Juliet');
    await juliet.leave(room, 'Juliet');
    await testBed.waitForHistory(room, ['joined Juliet', 'left']);
  });

  it("with the user's leave to the bare JID of the room, as some clients send it", async () => {
    testBed.muc().script('leave', room, silence);
    await testBed.join(juliet, room, 'Juliet');
    await juliet.send(xml('presence', { to: room, type: 'unavailable' }));
    await testBed.waitForHistory(room, ['joined Juliet', 'left']);
  });

  it('with the end of the session, in all its rooms', async () => {
    const second = testBed.muc().room(`second-${rooms}`);
    await testBed.join(juliet, room, 'Juliet');
    await testBed.join(juliet, second, 'Juliet');
    await juliet.leaveServer();
    await testBed.waitForHistory(room, ['joined Juliet', 'left']);
    await testBed.waitForHistory(second, ['joined Juliet', 'left']);
  });

  it('with the end of the session, even if the room does not answer', async () => {
    testBed.muc().script('leave', room, silence);
    await testBed.join(juliet, room, 'Juliet');
    await juliet.leaveServer();
    await testBed.waitForHistory(room, ['joined Juliet', 'left']);
  });

  it('with a notice: later presences of the room do not restore it', async () => {
    await testBed.join(juliet, room, 'Juliet');
    testBed.muc().dropOccupant(room, juliet.jid);
    const at = testBed.dropOutgoing();
    expect(await testBed.checkDone(at, testBed.muc().domain)).toMatchObject({ notified: 1 });
    send({ codes: [110] });
    send({ type: 'unavailable', codes: [110] });
    await testBed.settle(juliet);
    // the functions know its end, because they sent the notice
    expect(testBed.history(room)).toEqual(['joined Juliet']);
  });

  it('but not when another occupant leaves, is kicked or banned', async () => {
    await testBed.join(juliet, room, 'Juliet');
    send({ nick: 'Romeo', type: 'unavailable' });
    send({ nick: 'Tybalt', type: 'unavailable', codes: [307] });
    send({ nick: 'Mercutio', type: 'unavailable', codes: [301] });
    await testBed.settle(juliet);
    expect(testBed.history(room)).toEqual(['joined Juliet']);
  });
});

describe('a hostile service', () => {
  it('cannot cause a join that the user did not request', async () => {
    send({ codes: [110] });
    send({ codes: [110, 210], nick: 'Slave' });
    send({ codes: [110], from: `${room}/${'n'.repeat(900)}` });
    send({ type: 'unavailable', codes: [303, 110], item: 'nick="Julia"' });
    await testBed.settle(juliet);
    expect(testBed.history(room)).toEqual([]);
  });

  it('cannot cause a join in another room than the requested one', async () => {
    const other = testBed.muc().room(`other-${rooms}`);
    testBed.muc().script('enter', room, () => undefined);
    await juliet.enter(room, 'Juliet');
    await until('the room has received the request', () => testBed.muc().count('enter', room) === 1);
    send({ codes: [110], from: `${other}/Juliet` });
    await testBed.settle(juliet);
    expect([testBed.history(room), testBed.history(other)]).toEqual([[], []]);
  });

  it('cannot cause a join for another session or another user', async () => {
    const romeo = await testBed.user('romeo');
    const laptop = await testBed.user('juliet', 'laptop');
    await testBed.join(juliet, room, 'Juliet');
    for (const to of [romeo.jid, laptop.jid]) send({ codes: [110], to });
    for (const to of [romeo, juliet].map(({ jid }) => jid.split('/')[0] as string)) send({ codes: [110], to });
    await testBed.settle(romeo);
    await testBed.settle(laptop);
    expect(testBed.history(room)).toEqual(['joined Juliet']);
    await romeo.leaveServer();
    await laptop.leaveServer();
  });

  it('cannot restore a join that the user has left', async () => {
    await testBed.join(juliet, room, 'Juliet');
    await juliet.leave(room, 'Juliet');
    await testBed.waitForHistory(room, ['joined Juliet', 'left']);
    send({ codes: [110] });
    await testBed.settle(juliet);
    expect(testBed.history(room)).toEqual(['joined Juliet', 'left']);
  });

  it('cannot cause many joins for one request', async () => {
    await testBed.join(juliet, room, 'Juliet');
    for (let n = 0; n < 100; n += 1) send({ codes: [110] });
    await testBed.settle(juliet);
    expect(testBed.history(room)).toEqual(['joined Juliet']);
  });
});

describe('a lost connection', () => {
  it('does not end the join; a notice waits until the session resumes, which can rejoin', async () => {
    await testBed.join(juliet, room, 'Juliet');
    await juliet.die();
    testBed.muc().dropOccupant(room, juliet.jid);
    const at = testBed.dropStreams();
    expect(await testBed.checkDone(at, testBed.muc().domain)).toMatchObject({ left: 1, notified: 1 });
    expect(juliet.notices()).toEqual([]);
    expect(testBed.history(room)).toEqual(['joined Juliet']);

    await juliet.resume();
    await until('the notice', () => juliet.notices()[0]);
    await juliet.enter(room, 'Juliet');
    await testBed.waitForHistory(room, ['joined Juliet', 'joined Juliet']);
    await testBed.settle(juliet);
    expect(juliet.notices()).toHaveLength(1);
  });

  it('has no effect on rooms: the hibernating session is pinged, and stays in', async () => {
    await testBed.join(juliet, room, 'Juliet');
    await juliet.die();
    const at = testBed.dropOutgoing();
    expect(await testBed.checkDone(at, testBed.muc().domain)).toMatchObject({
      left: 0,
      undecided: 0,
      gone: 0,
      notified: 0,
    });
    expect(testBed.muc().count('ping', room)).toBe(1);

    await juliet.resume();
    await juliet.leave(room, 'Juliet');
    await testBed.waitForHistory(room, ['joined Juliet', 'left']);
    expect(juliet.notices()).toEqual([]);
  });

  it('ends the joins when the session ends', async () => {
    const nursery = testBed.muc().room('nursery');
    await until('her session ends', () => testBed.history(nursery).length > 1, (HIBERNATION_SECONDS + 10) * 1000);
    expect(testBed.history(nursery)).toEqual(['joined Nurse', 'left']);
  });
});
