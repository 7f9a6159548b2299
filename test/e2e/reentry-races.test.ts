import { xml } from '@xmpp/client';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import type { Join } from '../../functions/core/events.ts';
import { type Answer, type Stanza, notice, readAnswers, requestBody } from '../../functions/core/stanzas.ts';
import { sleep, until } from '../../lab/lab.ts';
import { Prosody } from '../../lab/prosody.ts';
import { post } from '../../lab/requests.ts';
import { type Reaction, error, held, mucPresence, refusal, silence } from '../../lab/scripted-muc.ts';
import { ScriptedRooms } from '../../lab/scripted-rooms.ts';
import { type User, statusCodes } from '../../lab/user.ts';

/**
 * Rule 10 (docs/rules.md), in an order that the chat service forces. Whatever happens between the verdict, the re-entry
 * and its answer: a user who is back is not notified, a user who was notified is not back, and the user's own action
 * has priority.
 */
const TIMEOUT = 3;
/** Stanzas for a session that hibernates. */
const KEPT = 500;
const SETTINGS = { ping_muc_delay: 1, ping_muc_timeout: TIMEOUT, ping_muc_patience: 0, ping_muc_reenter: true };
let testBed: ScriptedRooms;
let room: string;
let rooms = 0;
let juliet: User;
/** A re-entry waits until the barrier is released. */
let barrier: { readonly wait: () => Promise<unknown>; readonly release: () => void };

beforeAll(async () => {
  testBed = await ScriptedRooms.open(SETTINGS, 1, { hibernationStanzas: KEPT });
});
afterAll(() => testBed.close());

beforeEach(async () => {
  rooms += 1;
  room = testBed.muc().room(`room-${rooms}`);
  juliet = await testBed.user('juliet');
  await testBed.join(juliet, room, 'Juliet');
  testBed.muc().dropOccupant(room, juliet.jid);
  const { promise, resolve } = Promise.withResolvers<undefined>();
  barrier = { wait: () => promise, release: () => resolve(undefined) };
});
afterEach(async () => {
  testBed.webhooks.interceptor = {};
  testBed.stanzas.interceptor = {};
  for (const kind of ['enter', 'leave', 'ping'] as const) testBed.muc().script(kind, room);
  await juliet.leaveServer();
});

const DELAYED = '<delay xmlns="urn:xmpp:delay" stamp="2026-11-25T00:00:00Z"/>';
const message = (body: string, more = '', id = body): string =>
  `<message type="groupchat" id="${id}" from="${room}/Nurse" to="${juliet.jid}"><body>${body}</body>${more}</message>`;
const nurse = (): string => mucPresence({ from: `${room}/Nurse`, to: juliet.jid });
/** Admits a user as a room does: an occupant, its own presence, a message of the history, the subject. */
const letIn: Reaction = (question) =>
  nurse() +
  testBed.muc().admit(question) +
  message('Madam!', DELAYED) +
  `<message type="groupchat" from="${room}" to="${question.user}"><subject/></message>`;

/** What the session has received from the room since a time, as text. */
function receivedSince(since: number): readonly string[] {
  return juliet.received
    .filter(({ at, stanza }) => at >= since && String(stanza.attrs['from']).startsWith(room))
    .map(({ stanza }) => {
      if (stanza.is('message')) return stanza.getChildText('body') ?? 'subject';
      return [
        String(stanza.attrs['type'] ?? 'there'),
        String(stanza.attrs['from']).split('/')[1],
        ...statusCodes(stanza),
      ].join(' ');
    });
}
const BACK = ['there Nurse', 'there Juliet 110', 'Madam!', 'subject'];
const NOTICE = 'unavailable Juliet 110 330 333';
const OWN_LEAVE = 'unavailable Juliet 110';

const isReentry = (body: string): boolean => body.includes('<presence') && !body.includes('unavailable');
const isNotice = (body: string): boolean => body.includes('unavailable');
const entries = (): number => testBed.muc().count('enter', room);
const totals = (since: number): readonly unknown[] => testBed.lines('check done', since).map((line) => line['totals']);
const done = (since: number, count = 1): Promise<unknown> =>
  until(`${count} checks have ended`, () => totals(since).length >= count, 30_000);
/** Waits until nothing is under way any more. */
async function settled(): Promise<void> {
  await testBed.settle(juliet);
  await sleep(300);
}

/** Runs Lua on the users' server, with the `entry` for the user's re-entry that is under way. */
async function inside(code: string): Promise<string> {
  const state = `prosody.hosts["${testBed.home.host}"].modules.ping_muc_webhook.module:shared("state")`;
  const entry = `local entry = ${state}.tracks["${juliet.jid}"].rooms["${room}"].entry`;
  const shown = await Prosody.of(testBed.home).shell(`>${entry}; ${code}`);
  return /Result: (.*)/.exec(shown)?.[1] ?? shown;
}

/** Juliet's join before the re-entry. */
function firstJoin(): Join {
  const join = testBed.reported().find((event) => event.room === room && event.type === 'muc.joined');
  const [host, remote] = [testBed.home.host, testBed.muc().domain];
  return { host, remote, user: juliet.jid, room, nick: 'Juliet', at: Number(join?.at) };
}

/** Sends a stanza through the server's API, as the check function does. Returns its answer. */
async function send(stanza: Stanza): Promise<Answer | undefined> {
  const reply = await post({
    url: testBed.stanzas.url,
    secret: testBed.runtime.secret,
    body: requestBody([stanza], 1),
    type: 'application/xmpp+xml',
  });
  return readAnswers(reply.body).get(stanza.id);
}

/** Cuts the streams, and waits until the server enters the room, which answers when the barrier is released. */
async function reentering(reaction: Reaction = letIn, drop = (): number => testBed.dropOutgoing()): Promise<number> {
  const before = entries();
  testBed.muc().script('enter', room, held(barrier.wait, reaction));
  const at = drop();
  await until('the room is entered again', () => entries() > before);
  return at;
}

describe('the room does not answer:', () => {
  it('the user is notified; if the room admits it later, it leaves again, unnoticed by the client', async () => {
    const at = await reentering();
    testBed.muc().script(
      'leave',
      room,
      held(
        barrier.wait,
        (question) =>
          message('later') + mucPresence({ from: question.to, to: question.user, type: 'unavailable', codes: [110] }),
      ),
    );
    await done(at);
    expect(totals(at)).toMatchObject([{ left: 1, reentered: 0, notified: 1 }]);
    await until('the server leaves for the user', () => testBed.muc().count('leave', room) === 1);
    testBed.muc().script('enter', room);
    barrier.release();
    await settled();
    expect(receivedSince(at)).toEqual([NOTICE]);
    expect(testBed.history(room)).toEqual(['joined Juliet']);

    // the client can enter as usual
    const again = Date.now();
    await testBed.join(juliet, room, 'Juliet');
    testBed.muc().send(message('welcome'));
    await settled();
    expect(receivedSince(again)).toEqual(['there Juliet 110', 'welcome']);
  });

  it('the user is notified, and enters before the room answers: it is in, and sees no re-entry', async () => {
    const at = await reentering();
    testBed.muc().script(
      'leave',
      room,
      held(barrier.wait, (question) =>
        mucPresence({ from: question.to, to: question.user, type: 'unavailable', codes: [110] }),
      ),
    );
    await done(at);
    await until('the server leaves for the user', () => testBed.muc().count('leave', room) === 1);
    const own = Date.now();
    await juliet.enter(room, 'Juliet');
    await until('the room has received its presence', () => entries() === 3);
    barrier.release();
    await testBed.waitForHistory(room, ['joined Juliet', 'joined Juliet']);
    await settled();
    expect(receivedSince(own).filter((what) => what.includes('Juliet'))).toEqual(['there Juliet 110']);
  });

  it('the user is notified, and enters; the room has not received the re-entry: the user is in', async () => {
    const at = await reentering(silence);
    testBed.muc().script('leave', room, silence);
    await done(at);
    testBed.muc().script('enter', room, (question) => nurse() + testBed.muc().admit(question));
    await testBed.join(juliet, room, 'Juliet');
    expect(receivedSince(at)).toEqual([NOTICE, 'there Nurse', 'there Juliet 110']);
  });

  it('until the notice is in flight: the user is back, and is not notified', async () => {
    testBed.stanzas.interceptor.before = (body) => {
      if (!isNotice(body)) return undefined;
      barrier.release();
      return until('it is back', () => testBed.history(room).length === 2);
    };
    const at = await reentering();
    await done(at);
    await settled();
    expect(receivedSince(at)).toEqual(BACK);
    expect(testBed.history(room)).toEqual(['joined Juliet', 'joined Juliet']);
    expect(totals(at)).toMatchObject([{ notified: 0 }]);
  });

  it('because it is out of reach: the user is notified, and does not receive the bounce', async () => {
    testBed.stanzas.interceptor.before = (body) => {
      if (isReentry(body)) return Promise.all([testBed.away.cut(), testBed.home.cut()]);
      return isNotice(body) ? Promise.all([testBed.away.mend(), testBed.home.mend()]) : undefined;
    };
    const entered = entries();
    const at = testBed.dropOutgoing();
    await done(at);
    // by this check, or by that of a stream that was cut
    await until('the user is notified', () => receivedSince(at).length > 0);
    await settled();
    expect(receivedSince(at)).toEqual([NOTICE]);
    expect(entries()).toBe(entered);
    // a server that returns a stanza cannot know that it has not arrived
    expect(testBed.muc().count('leave', room)).toBe(1);
  });
});

describe('the room refuses:', () => {
  it.each([
    ['with the id', refusal('auth', 'forbidden')],
    ['without an id', ((question) => refusal('auth', 'forbidden')({ ...question, id: '' })) satisfies Reaction],
  ])('%s: the user is notified, and does not receive the refusal', async (_what, reaction) => {
    const at = await reentering(reaction);
    barrier.release();
    await done(at);
    await settled();
    expect(receivedSince(at)).toEqual([NOTICE]);
    expect(testBed.muc().count('leave', room)).toBe(0);
  });
});

describe('the room was gone, and the re-entry has created it (201):', () => {
  const made: Reaction = (question) => testBed.muc().admit(question, [110, 201]) + message('Welcome, owner!', DELAYED);

  it('the server leaves it at once, and the user is notified, and receives nothing else', async () => {
    const at = await reentering(made);
    testBed
      .muc()
      .script(
        'leave',
        room,
        (question) =>
          message('later') + mucPresence({ from: question.to, to: question.user, type: 'unavailable', codes: [110] }),
      );
    barrier.release();
    await done(at);
    await settled();
    expect(receivedSince(at)).toEqual([NOTICE]);
    expect(testBed.muc().count('leave', room)).toBe(1);
    expect(totals(at)).toMatchObject([{ left: 1, reentered: 0, notified: 1 }]);
    expect(testBed.history(room)).toEqual(['joined Juliet']);

    // the client can enter as usual, and can create the room itself
    testBed.muc().script('enter', room, made);
    await juliet.enter(room, 'Juliet');
    await testBed.waitForHistory(room, ['joined Juliet', 'joined Juliet']);
    expect(testBed.muc().count('leave', room)).toBe(1);
  });

  it('the user enters before the room answers the leave: it is in, and receives nothing of the re-entry', async () => {
    const at = await reentering(made);
    const { promise, resolve } = Promise.withResolvers<undefined>();
    testBed.muc().script(
      'leave',
      room,
      held(
        () => promise,
        (question) => mucPresence({ from: question.to, to: question.user, type: 'unavailable', codes: [110] }),
      ),
    );
    barrier.release();
    await until('the server leaves for the user', () => testBed.muc().count('leave', room) === 1);
    const own = Date.now();
    testBed.muc().script(
      'enter',
      room,
      held(
        () => promise,
        (question) => testBed.muc().admit(question),
      ),
    );
    await juliet.enter(room, 'Juliet');
    await until('the room has received its presence', () => entries() === 3);
    resolve(undefined);
    await testBed.waitForHistory(room, ['joined Juliet', 'joined Juliet']);
    await done(at);
    await settled();
    expect(receivedSince(own).filter((what) => what !== NOTICE)).toEqual(['there Juliet 110']);
  });
});

/** Juliet leaves. The room has received that, and answers it when the barrier is released. */
async function leaveUnanswered(): Promise<void> {
  testBed.muc().script(
    'leave',
    room,
    held(barrier.wait, (question) =>
      mucPresence({ from: question.to, to: question.user, type: 'unavailable', codes: [110] }),
    ),
  );
  await juliet.leave(room, 'Juliet');
  await until('the room has received its presence', () => testBed.muc().count('leave', room) === 1);
}

describe('before the room answers, the user', () => {
  it('leaves: it stays out, is not notified, and receives only the answer to its leave', async () => {
    const at = await reentering();
    await leaveUnanswered();
    barrier.release();
    await done(at);
    await settled();
    expect(receivedSince(at)).toEqual([OWN_LEAVE]);
    expect(testBed.history(room)).toEqual(['joined Juliet', 'left']);
    expect(totals(at)).toMatchObject([{ reentered: 0, notified: 0 }]);
  });

  it('enters by itself: it is in, and is not notified', async () => {
    const at = await reentering();
    await juliet.enter(room, 'Juliet');
    await until('the room has both', () => entries() === 3);
    barrier.release();
    await done(at);
    await settled();
    expect(receivedSince(at).filter((what) => what.startsWith('unavailable'))).toEqual([]);
    expect(receivedSince(at)).toContain('there Juliet 110');
    expect(testBed.history(room)).toEqual(['joined Juliet', 'joined Juliet']);
    expect(totals(at)).toMatchObject([{ reentered: 0, notified: 0 }]);
  });

  it('enters by itself, and the room refuses both: it receives the refusal of its own attempt', async () => {
    const at = await reentering(refusal('auth', 'forbidden'));
    await juliet.enter(room, 'Juliet');
    await until('the room has both', () => entries() === 3);
    barrier.release();
    await done(at);
    await settled();
    expect(receivedSince(at)).toEqual(['error Juliet']);
    expect(testBed.history(room)).toEqual(['joined Juliet', 'left']);
  });

  it('enters by itself, and the room refuses only that, without an id: it receives the refusal', async () => {
    const at = await reentering(silence);
    testBed.muc().script('enter', room, (question) => refusal('auth', 'forbidden')({ ...question, id: '' }));
    await juliet.enter(room, 'Juliet');
    await until('the room has both', () => entries() === 3);
    await settled();
    expect(receivedSince(at)).toEqual(['error Juliet']); // long before the time-out of the re-entry
    await done(at);
    expect(testBed.history(room)).toEqual(['joined Juliet', 'left']);
    expect(testBed.muc().count('leave', room)).toBe(0); // there is nothing to leave
  });

  it('changes its nick: it has the new one, and is not notified', async () => {
    const at = await reentering((question) =>
      question.nick === 'Juliet'
        ? letIn(question)
        : mucPresence({
            from: `${room}/Juliet`,
            to: question.user,
            type: 'unavailable',
            codes: [303, 110],
            item: 'nick="Capulet"',
          }) + testBed.muc().admit(question),
    );
    await juliet.send(xml('presence', { to: `${room}/Capulet` }));
    await until('the room has both', () => entries() === 3);
    barrier.release();
    await done(at);
    await settled();
    expect(receivedSince(at)).toEqual([...BACK, 'unavailable Juliet 303 110', 'there Capulet 110']);
    expect(testBed.history(room).at(-1)).toBe('joined Capulet');
    expect(totals(at)).toMatchObject([{ notified: 0 }]);
  });

  it('changes its nick, and the room sends presence but admits nobody: it is notified in the end', async () => {
    const at = await reentering(refusal('auth', 'forbidden'), () => testBed.dropStreams());
    testBed.muc().send(nurse()); // which would be a proof if it were not entering
    await juliet.send(xml('presence', { id: 'own', to: `${room}/Capulet` }));
    await until('the room has both', () => entries() === 3);
    barrier.release();
    await done(at);
    await settled();
    expect(receivedSince(at)).toEqual(['there Nurse', 'error Capulet', NOTICE]);
  });

  it('ends its session: no notice is sent, and it is out of the room', async () => {
    const at = await reentering();
    await juliet.leaveServer();
    await until('the room has received the leave', () => testBed.muc().count('leave', room) === 1);
    barrier.release();
    await done(at);
    expect(totals(at)).toMatchObject([{ gone: 1, reentered: 0, notified: 0 }]);
    await testBed.waitForHistory(room, ['joined Juliet', 'left']);
    juliet = await testBed.user('juliet');
  });

  it('is removed by the room: it stays out', async () => {
    const at = await reentering();
    testBed.muc().script(
      'leave',
      room,
      held(barrier.wait, (question) =>
        mucPresence({ from: question.to, to: question.user, type: 'unavailable', codes: [110] }),
      ),
    );
    testBed.muc().send(mucPresence({ from: `${room}/Juliet`, to: juliet.jid, type: 'unavailable', codes: [110, 307] }));
    await until('the server leaves for the user', () => testBed.muc().count('leave', room) === 1);
    barrier.release();
    await done(at);
    await settled();
    expect(receivedSince(at)).toEqual(['unavailable Juliet 110 307']);
    expect(testBed.history(room)).toEqual(['joined Juliet', 'left']);
    expect(totals(at)).toMatchObject([{ reentered: 0, notified: 0 }]);
  });
});

describe('before the room answers,', () => {
  it('the module reloads: the user is back after one entry, and is not notified', async () => {
    const at = await reentering();
    await testBed.home.reloadModule();
    const asked = (): number =>
      testBed.stanzas.requests.filter((request) => request.at >= at && isReentry(request.body.toString())).length;
    await until('it is requested again', () => asked() === 2);
    await sleep(300);
    barrier.release();
    await done(at);
    await settled();
    expect(receivedSince(at)).toEqual(BACK);
    expect(entries()).toBe(2);
    expect(totals(at)).toMatchObject([{ reentered: 1, notified: 0 }]);
  });

  it('the functions end: the user is back after one entry, and is not notified', async () => {
    const at = await reentering();
    await testBed.runtime.end('SIGKILL');
    barrier.release();
    await until('it is back', () => receivedSince(at).includes('subject'));
    await testBed.runtime.start();
    await done(at);
    await settled();
    expect(receivedSince(at)).toEqual(BACK);
    expect(entries()).toBe(2);
    expect(totals(at)).toMatchObject([{ notified: 0 }]);
  });

  it('another notice arrives: it is not delivered', async () => {
    const at = await reentering();
    expect(await send(notice(firstJoin(), undefined))).toMatchObject({ condition: 'conflict', isRejoining: true });
    barrier.release();
    await done(at);
    await settled();
    expect(receivedSince(at)).toEqual(BACK);
  });

  it('a second check requests the same re-entry: there is one entry, and nobody is notified', async () => {
    const answers = Promise.withResolvers<undefined>();
    testBed.muc().script(
      'ping',
      room,
      held(() => answers.promise, error('cancel', 'not-acceptable')),
    );
    testBed.muc().script('enter', room, held(barrier.wait, letIn));
    const at = testBed.dropOutgoing();
    await until('the first check has pinged', () => testBed.muc().count('ping', room) === 1);
    testBed.dropIncoming(); // the stream of the answers, so that the pings are not lost
    await until('the second check has pinged', () => testBed.muc().count('ping', room) === 2);
    answers.resolve(undefined);
    await until('the room is entered again', () => entries() === 2);
    await sleep(500);
    barrier.release();
    await done(at, 2);
    await settled();
    expect(entries()).toBe(2);
    expect(receivedSince(at)).toEqual(BACK);
  });
});

describe(`a hibernating session, for which its server keeps up to ${KEPT} stanzas,`, () => {
  const occupants = (from: string, to: string, count: number): string =>
    Array.from({ length: count }, (_, n) => mucPresence({ from: `${from}/${n}`, to })).join('');
  const history = (from: string, to: string): string =>
    Array.from(
      { length: 20 },
      (_, n) => `<message type="groupchat" id="${n}" from="${from}/0" to="${to}"><body>${n}</body>${DELAYED}</message>`,
    ).join('') + `<message type="groupchat" from="${from}" to="${to}"><subject/></message>`;
  /** Admits a user to a room with this number of other occupants. */
  const withOccupants =
    (count: number): Reaction =>
    (question) =>
      occupants(question.room, question.user, count) +
      testBed.muc().admit(question) +
      history(question.room, question.user);

  const hibernate = async (): Promise<void> => {
    await settled();
    await until('the client has acknowledged all', async () => (await testBed.home.unacknowledged(juliet.jid)) < 10);
    await juliet.die();
  };

  it('is out of a room that would send more: it is notified when it resumes; a connected one is back', async () => {
    const romeo = await testBed.user('romeo');
    onTestFinished(() => romeo.leaveServer());
    await testBed.join(romeo, room, 'Romeo');
    testBed.muc().send(occupants(room, juliet.jid, 490));
    await hibernate();
    for (const one of [juliet, romeo]) testBed.muc().dropOccupant(room, one.jid);
    testBed.muc().script('enter', room, withOccupants(490));
    const at = testBed.dropOutgoing();
    await done(at);
    expect(totals(at)).toMatchObject([{ left: 2, reentered: 1, notified: 1 }]);
    await testBed.waitForHistory(room, ['joined Romeo', 'joined Romeo'], romeo);
    await juliet.resume();
    await settled();
    expect(receivedSince(at)).toEqual([NOTICE]);
  });

  it('is out of two rooms that would send more together: it is back in one, and notified for the other', async () => {
    // these are pinged together, after `room`
    const pair = ['one', 'other'].map((name) => testBed.muc().room(`the-${name}-${rooms}`));
    for (const each of pair) {
      await testBed.join(juliet, each, 'Juliet');
      testBed.muc().send(occupants(each, juliet.jid, 130));
    }
    await hibernate();
    for (const each of [room, ...pair]) {
      testBed.muc().dropOccupant(each, juliet.jid);
      testBed.muc().script('enter', each, withOccupants(each === room ? 0 : 130));
    }
    const at = testBed.dropOutgoing();
    await done(at);
    expect(totals(at)).toMatchObject([{ left: 3, reentered: 2, notified: 1 }]);
    await juliet.resume();
    await settled();
    expect(juliet.notices()).toHaveLength(1);
  });
});

it('the answer to a re-entry is lost: the user is back, and is not notified', async () => {
  let losses = 0;
  testBed.stanzas.interceptor.after = (body) => {
    if (!isReentry(body) || losses >= 2) return;
    losses += 1;
    throw new Error('the answer is lost');
  };
  const at = await reentering();
  barrier.release();
  await done(at);
  await settled();
  expect(losses).toBe(2);
  expect(receivedSince(at)).toEqual(BACK);
  expect(entries()).toBe(2);
  expect(totals(at)).toMatchObject([{ left: 0, notified: 0 }]);
});

it('the answer of the room is lost with a stream: the room is entered again, and the client gets what it missed', async () => {
  // the room admits the user while nothing reaches the users' server
  const at = await reentering((question) => {
    testBed.muc().admit(question);
    return undefined;
  });
  barrier.release();
  await until('the room has admitted the user', () => testBed.muc().count('enter', room) === 2);
  testBed.muc().script('enter', room, letIn);
  testBed.dropOutgoing();
  await until('the user is back', () => receivedSince(at).length > 0, 20_000);
  await done(at, 2);
  await settled();
  expect(receivedSince(at)).toEqual(BACK);
  expect(entries()).toBe(3);
  expect(testBed.history(room)).toEqual(['joined Juliet', 'joined Juliet']);
});

it("a received message is recognized by the room's stanza-id alone, even if it has changed", async () => {
  const named = (name: string, by = room): string => `<stanza-id xmlns="urn:xmpp:sid:0" by="${by}" id="${name}"/>`;
  testBed.muc().send(message('one', named('1'), 'a'));
  await settled();
  const at = await reentering((question) => {
    const history = [
      message('one', named('1') + DELAYED, 'b'),
      message('two', named('1', testBed.muc().domain) + DELAYED, 'c'),
      message('three', named('3') + DELAYED, 'd'),
    ];
    return (
      testBed.muc().admit(question) +
      history.join('') +
      message('live', named('4'), 'e') +
      `<message type="groupchat" from="${room}" to="${question.user}"><subject/></message>`
    );
  });
  barrier.release();
  await done(at);
  await settled();
  expect(receivedSince(at)).toEqual(['there Juliet 110', 'two', 'three', 'live', 'subject']);
  expect(totals(at)).toMatchObject([{ reentered: 1, gaps: 0 }]);
});

it('the room sends endless occupants during a re-entry: few are kept, and nobody is shown as gone', async () => {
  onTestFinished(() => testBed.set({}));
  await testBed.set({ ping_muc_timeout: 20 }); // they take longer than usual
  testBed.muc().send(nurse());
  await settled();
  const at = await reentering();
  for (let n = 0; n < 2100; n += 1) testBed.muc().send(mucPresence({ from: `${room}/${n}`, to: juliet.jid }));
  await until('all have arrived', () => receivedSince(at).length === 2100, 20_000);
  expect(await inside('local n = 0; for _ in pairs(entry.announced) do n = n + 1; end; return n')).toBe('2000');
  barrier.release(); // which also sends the nurse's presence
  await done(at);
  await settled();
  expect(receivedSince(at).filter((what) => what.startsWith('unavailable'))).toEqual([]);
  expect(receivedSince(at).slice(2100)).toEqual(BACK);
});

it('after the time-out of a re-entry, further occupants are not kept', async () => {
  testBed.muc().send(nurse());
  await settled();
  const lastNotice = Promise.withResolvers<undefined>();
  testBed.stanzas.interceptor.before = (body) => (isNotice(body) ? lastNotice.promise : undefined);
  const at = await reentering();
  await until('it has timed out', async () => (await inside('return entry.overdue')) === 'true');
  testBed.muc().send(mucPresence({ from: `${room}/Romeo`, to: juliet.jid }));
  testBed.muc().send(nurse());
  await until('they have arrived', () => receivedSince(at).length === 2);
  expect(await inside('return tostring(next(entry.announced))')).toBe('nil');
  testBed.muc().send(testBed.muc().admit({ user: juliet.jid, room, nick: 'Juliet' }));
  await testBed.waitForHistory(room, ['joined Juliet', 'joined Juliet']);
  lastNotice.resolve(undefined);
  await done(at);
  await settled();
  expect(receivedSince(at)).toEqual(['there Romeo', 'there Nurse', 'there Juliet 110']);
});

it('while stanzas are held back, and later, no room can cause a join that the user did not request', async () => {
  const others = ['during', 'after'].map((when) => testBed.muc().room(`${when}-${rooms}`));
  const send = (from = ''): void =>
    testBed.muc().send(mucPresence({ from: `${from}/Juliet`, to: juliet.jid, codes: [110] }));
  const at = await reentering();
  await leaveUnanswered();
  send(others[0]);
  await settled();
  barrier.release();
  await until('it is out', () => receivedSince(at).length > 0);
  for (const one of [room, others[1]]) send(one);
  await done(at);
  await settled();
  expect([room, ...others].map((one) => testBed.history(one))).toEqual([['joined Juliet', 'left'], [], []]);
});
