import { xml } from '@xmpp/client';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { requestBody, notice, readAnswers } from '../../functions/core/stanzas.ts';
import { sleep, until } from '../../lab/lab.ts';
import { post } from '../../lab/requests.ts';
import { type Reaction, error, held, mucPresence, refusal, silence } from '../../lab/scripted-muc.ts';
import { ScriptedScene } from '../../lab/scripted-scene.ts';
import { type User, statusCodes } from '../../lab/user.ts';

/**
 * Rule 10 (docs/rules.md), in an order that the chat service forces: whatever happens between the verdict, the re-entry and its
 * answer, nobody is told who is back, nobody is back who was told, and the user's own word wins.
 */
const TIMEOUT = 3;
const SETTINGS = { ping_muc_delay: 1, ping_muc_timeout: TIMEOUT, ping_muc_patience: 0, ping_muc_reenter: true };
let scene: ScriptedScene;
let room: string;
let rooms = 0;
let juliet: User;
/** What happens to a re-entry: it waits until the door is opened. */
let door: { readonly pass: () => Promise<unknown>; readonly open: () => void };

beforeAll(async () => {
  scene = await ScriptedScene.open(SETTINGS);
});
afterAll(() => scene.close());

beforeEach(async () => {
  rooms += 1;
  room = scene.muc().room(`room-${rooms}`);
  juliet = await scene.user('juliet');
  await scene.join(juliet, room, 'Juliet');
  scene.muc().forget(room, juliet.jid);
  const { promise, resolve } = Promise.withResolvers<undefined>();
  door = { pass: () => promise, open: () => resolve(undefined) };
});
afterEach(async () => {
  scene.webhooks.gate = {};
  scene.stanzas.gate = {};
  for (const kind of ['enter', 'leave', 'ping'] as const) scene.muc().script(kind, room);
  await juliet.leaveServer();
});

const DELAYED = '<delay xmlns="urn:xmpp:delay" stamp="2026-11-25T00:00:00Z"/>';
const said = (body: string, more = '', id = body): string =>
  `<message type="groupchat" id="${id}" from="${room}/Nurse" to="${juliet.jid}"><body>${body}</body>${more}</message>`;
const nurse = (): string => mucPresence({ from: `${room}/Nurse`, to: juliet.jid });
/** Lets in who enters, as a room does: who is there, itself, a line of the history, the subject. */
const letIn: Reaction = (question) =>
  nurse() +
  scene.muc().admit(question) +
  said('Madam!', DELAYED) +
  `<message type="groupchat" from="${room}" to="${question.user}"><subject/></message>`;

/** What the session got from the room since a moment, in words. */
function heard(since: number): readonly string[] {
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
const TOLD = 'unavailable Juliet 110 330 333';
const OUT = 'unavailable Juliet 110';

const isReentry = (body: string): boolean => body.includes('<presence') && !body.includes('unavailable');
const isNotice = (body: string): boolean => body.includes('unavailable');
const entries = (): number => scene.muc().count('enter', room);
const totals = (since: number): readonly unknown[] => scene.lines('check done', since).map((line) => line['totals']);
const done = (since: number, count = 1): Promise<unknown> =>
  until(`${count} checks have ended`, () => totals(since).length >= count, 30_000);
/** Everything that was under way has come. */
async function settled(): Promise<void> {
  await scene.settle(juliet);
  await sleep(300);
}

/** What Lua says on the user's server, where `session` is the user's, and `entry` the re-entry that is under way. */
async function inside(code: string): Promise<string> {
  const state = `prosody.hosts["${scene.home.host}"].modules.ping_muc_webhook.module:shared("state")`;
  const known = `local session, entry = prosody.full_sessions["${juliet.jid}"], ${state}.tracks["${juliet.jid}"].rooms["${room}"].entry`;
  const shown = await scene.home.shell(`>${known}; ${code}`);
  return /Result: (.*)/.exec(shown)?.[1] ?? shown;
}

/** Streams close, and the server enters the room, which does not answer before the door is opened. */
async function reentering(reaction: Reaction = letIn, drop = (): number => scene.dropOutgoing()): Promise<number> {
  const before = entries();
  scene.muc().script('enter', room, held(door.pass, reaction));
  const at = drop();
  await until('the room is entered again', () => entries() > before);
  return at;
}

describe('the room does not answer:', () => {
  it('the user is told; when the room lets it in after all, it leaves again, and hears nothing of it', async () => {
    const at = await reentering();
    scene.muc().script(
      'leave',
      room,
      held(
        door.pass,
        (question) =>
          said('later') + mucPresence({ from: question.to, to: question.user, type: 'unavailable', codes: [110] }),
      ),
    );
    await done(at);
    expect(totals(at)).toMatchObject([{ left: 1, reentered: 0, notified: 1 }]);
    await until('the server leaves on its behalf', () => scene.muc().count('leave', room) === 1);
    scene.muc().script('enter', room);
    door.open();
    await settled();
    expect(heard(at)).toEqual([TOLD]);
    expect(scene.story(room)).toEqual(['joined Juliet']);

    // the client may enter as ever
    const again = Date.now();
    await scene.join(juliet, room, 'Juliet');
    scene.muc().send(said('welcome'));
    await settled();
    expect(heard(again)).toEqual(['there Juliet 110', 'welcome']);
  });

  it('the user is told, and enters by itself before the room has got so far: it is in, and sees nothing of what was before', async () => {
    const at = await reentering();
    scene.muc().script(
      'leave',
      room,
      held(door.pass, (question) =>
        mucPresence({ from: question.to, to: question.user, type: 'unavailable', codes: [110] }),
      ),
    );
    await done(at);
    await until('the server leaves on its behalf', () => scene.muc().count('leave', room) === 1);
    const own = Date.now();
    await juliet.enter(room, 'Juliet');
    await until('the room has its wish', () => entries() === 3);
    door.open();
    await scene.told(room, ['joined Juliet', 'joined Juliet']);
    await settled();
    expect(heard(own).filter((what) => what.includes('Juliet'))).toEqual(['there Juliet 110']);
  });

  it('the user is told, and enters by itself, and the room has heard of nothing before: it is in', async () => {
    const at = await reentering(silence);
    scene.muc().script('leave', room, silence);
    await done(at);
    scene.muc().script('enter', room, (question) => nurse() + scene.muc().admit(question));
    await scene.join(juliet, room, 'Juliet');
    expect(heard(at)).toEqual([TOLD, 'there Nurse', 'there Juliet 110']);
  });

  it('until it is about to be told: it is back, and is not told', async () => {
    scene.stanzas.gate.before = (body) => {
      if (!isNotice(body)) return undefined;
      door.open();
      return until('it is back', () => scene.story(room).length === 2);
    };
    const at = await reentering();
    await done(at);
    await settled();
    expect(heard(at)).toEqual(BACK);
    expect(scene.story(room)).toEqual(['joined Juliet', 'joined Juliet']);
    expect(totals(at)).toMatchObject([{ notified: 0 }]);
  });

  it('as it cannot be reached: the user is told, and hears nothing of what came back', async () => {
    scene.stanzas.gate.before = (body) => {
      if (isReentry(body)) return Promise.all([scene.away.cut(), scene.home.cut()]);
      return isNotice(body) ? Promise.all([scene.away.mend(), scene.home.mend()]) : undefined;
    };
    const entered = entries();
    const at = scene.dropOutgoing();
    await done(at);
    await until('the user is told', () => heard(at).length > 0); // by this check, or by that of a stream that was cut
    await settled();
    expect(heard(at)).toEqual([TOLD]);
    expect(entries()).toBe(entered);
    // a server that gives something back cannot know that it has not arrived
    expect(scene.muc().count('leave', room)).toBe(1);
  });
});

describe('the room refuses:', () => {
  it.each([
    ['with the id', refusal('auth', 'forbidden')],
    ['without an id', ((question) => refusal('auth', 'forbidden')({ ...question, id: '' })) satisfies Reaction],
  ])('%s: the user is told, and hears nothing of it', async (_what, reaction) => {
    const at = await reentering(reaction);
    door.open();
    await done(at);
    await settled();
    expect(heard(at)).toEqual([TOLD]);
    expect(scene.muc().count('leave', room)).toBe(0);
  });
});

describe('the room was gone, and the re-entry has made it anew (201):', () => {
  const made: Reaction = (question) => scene.muc().admit(question, [110, 201]) + said('Welcome, owner!', DELAYED);

  it('the server leaves it at once, and the user is told, and hears nothing else of it', async () => {
    const at = await reentering(made);
    scene
      .muc()
      .script(
        'leave',
        room,
        (question) =>
          said('later') + mucPresence({ from: question.to, to: question.user, type: 'unavailable', codes: [110] }),
      );
    door.open();
    await done(at);
    await settled();
    expect(heard(at)).toEqual([TOLD]);
    expect(scene.muc().count('leave', room)).toBe(1);
    expect(totals(at)).toMatchObject([{ left: 1, reentered: 0, notified: 1 }]);
    expect(scene.story(room)).toEqual(['joined Juliet']);

    // the client may enter as ever, and may make the room itself
    scene.muc().script('enter', room, made);
    await juliet.enter(room, 'Juliet');
    await scene.told(room, ['joined Juliet', 'joined Juliet']);
    expect(scene.muc().count('leave', room)).toBe(1);
  });

  it('the user enters by itself before the room has let it go: it is in, and sees nothing of what was before', async () => {
    const at = await reentering(made);
    const { promise, resolve } = Promise.withResolvers<undefined>();
    scene.muc().script(
      'leave',
      room,
      held(
        () => promise,
        (question) => mucPresence({ from: question.to, to: question.user, type: 'unavailable', codes: [110] }),
      ),
    );
    door.open();
    await until('the server leaves on its behalf', () => scene.muc().count('leave', room) === 1);
    const own = Date.now();
    scene.muc().script(
      'enter',
      room,
      held(
        () => promise,
        (question) => scene.muc().admit(question),
      ),
    );
    await juliet.enter(room, 'Juliet');
    await until('the room has its wish', () => entries() === 3);
    resolve(undefined);
    await scene.told(room, ['joined Juliet', 'joined Juliet']);
    await done(at);
    await settled();
    expect(heard(own).filter((what) => what !== TOLD)).toEqual(['there Juliet 110']);
  });
});

describe('before the room answers, the user', () => {
  it('leaves: it stays out, is not told, and sees nothing but its own leave', async () => {
    const at = await reentering();
    scene.muc().script(
      'leave',
      room,
      held(door.pass, (question) =>
        mucPresence({ from: question.to, to: question.user, type: 'unavailable', codes: [110] }),
      ),
    );
    await juliet.leave(room, 'Juliet');
    await until('the room has its wish', () => scene.muc().count('leave', room) === 1);
    door.open();
    await done(at);
    await settled();
    expect(heard(at)).toEqual([OUT]);
    expect(scene.story(room)).toEqual(['joined Juliet', 'left']);
    expect(totals(at)).toMatchObject([{ reentered: 0, notified: 0 }]);
  });

  it('enters by itself: it is in, and is not told', async () => {
    const at = await reentering();
    await juliet.enter(room, 'Juliet');
    await until('the room has both', () => entries() === 3);
    door.open();
    await done(at);
    await settled();
    expect(heard(at).filter((what) => what.startsWith('unavailable'))).toEqual([]);
    expect(heard(at)).toContain('there Juliet 110');
    expect(scene.story(room)).toEqual(['joined Juliet', 'joined Juliet']);
    expect(totals(at)).toMatchObject([{ reentered: 0, notified: 0 }]);
  });

  it('enters by itself, and the room refuses both: the refusal of its own tells it', async () => {
    const at = await reentering(refusal('auth', 'forbidden'));
    await juliet.enter(room, 'Juliet');
    await until('the room has both', () => entries() === 3);
    door.open();
    await done(at);
    await settled();
    expect(heard(at)).toEqual(['error Juliet']);
    expect(scene.story(room)).toEqual(['joined Juliet', 'left']);
  });

  it('enters by itself, and the room refuses that alone, without an id: it learns of it', async () => {
    const at = await reentering(silence);
    scene.muc().script('enter', room, (question) => refusal('auth', 'forbidden')({ ...question, id: '' }));
    await juliet.enter(room, 'Juliet');
    await until('the room has both', () => entries() === 3);
    await settled();
    expect(heard(at)).toEqual(['error Juliet']); // long before the re-entry's time is over
    await done(at);
    expect(scene.story(room)).toEqual(['joined Juliet', 'left']);
    expect(scene.muc().count('leave', room)).toBe(0); // nothing is left to take back
  });

  it('takes another nick: it has that one, and is not told', async () => {
    const at = await reentering((question) =>
      question.nick === 'Juliet'
        ? letIn(question)
        : mucPresence({
            from: `${room}/Juliet`,
            to: question.user,
            type: 'unavailable',
            codes: [303, 110],
            item: 'nick="Capulet"',
          }) + scene.muc().admit(question),
    );
    await juliet.send(xml('presence', { to: `${room}/Capulet` }));
    await until('the room has both', () => entries() === 3);
    door.open();
    await done(at);
    await settled();
    expect(heard(at)).toEqual([...BACK, 'unavailable Juliet 303 110', 'there Capulet 110']);
    expect(scene.story(room).at(-1)).toBe('joined Capulet');
    expect(totals(at)).toMatchObject([{ notified: 0 }]);
  });

  it('takes another nick, and the room shows who is there, but lets nobody in: it is told in the end', async () => {
    const at = await reentering(refusal('auth', 'forbidden'), () => scene.dropStreams());
    scene.muc().send(nurse()); // which would prove that it is in, if it were not entering
    await juliet.send(xml('presence', { id: 'own', to: `${room}/Capulet` }));
    await until('the room has both', () => entries() === 3);
    door.open();
    await done(at);
    await settled();
    expect(heard(at)).toEqual(['there Nurse', 'error Capulet', TOLD]);
  });

  it('ends its session: nobody is told in its place, and it is out of the room', async () => {
    const at = await reentering();
    await juliet.leaveServer();
    await until('the room has its goodbye', () => scene.muc().count('leave', room) === 1);
    door.open();
    await done(at);
    expect(totals(at)).toMatchObject([{ gone: 1, reentered: 0, notified: 0 }]);
    await scene.told(room, ['joined Juliet', 'left']);
    juliet = await scene.user('juliet');
  });

  it('is told by the room itself that it is out: it stays out', async () => {
    const at = await reentering();
    scene.muc().script(
      'leave',
      room,
      held(door.pass, (question) =>
        mucPresence({ from: question.to, to: question.user, type: 'unavailable', codes: [110] }),
      ),
    );
    scene.muc().send(mucPresence({ from: `${room}/Juliet`, to: juliet.jid, type: 'unavailable', codes: [110, 307] }));
    await until('the server leaves on its behalf', () => scene.muc().count('leave', room) === 1);
    door.open();
    await done(at);
    await settled();
    expect(heard(at)).toEqual(['unavailable Juliet 110 307']);
    expect(scene.story(room)).toEqual(['joined Juliet', 'left']);
    expect(totals(at)).toMatchObject([{ reentered: 0, notified: 0 }]);
  });
});

describe('before the room answers,', () => {
  it('the module reloads: the user is back, having been let in once, and is not told', async () => {
    const at = await reentering();
    await scene.home.shell(`module:reload("ping_muc_webhook", "${scene.home.host}")`);
    const asked = (): number =>
      scene.stanzas.requests.filter((request) => request.at >= at && isReentry(request.body.toString())).length;
    await until('it is asked for again', () => asked() === 2);
    await sleep(300);
    door.open();
    await done(at);
    await settled();
    expect(heard(at)).toEqual(BACK);
    expect(entries()).toBe(2);
    expect(totals(at)).toMatchObject([{ reentered: 1, notified: 0 }]);
  });

  it('the functions die: the user is back, having been let in once, and is not told', async () => {
    const at = await reentering();
    await scene.runtime.end('SIGKILL');
    door.open();
    await until('it is back', () => heard(at).includes('subject'));
    await scene.runtime.start();
    await done(at);
    await settled();
    expect(heard(at)).toEqual(BACK);
    expect(entries()).toBe(2);
    expect(totals(at)).toMatchObject([{ notified: 0 }]);
  });

  it("somebody else's notice comes: it is not delivered", async () => {
    const at = await reentering();
    const join = scene.reported().find((event) => event.room === room && event.type === 'muc.joined');
    const told = notice(
      {
        host: scene.home.host,
        remote: scene.muc().domain,
        user: juliet.jid,
        room,
        nick: 'Juliet',
        at: Number(join?.at),
      },
      undefined,
    );
    const reply = await post({
      url: scene.stanzas.url,
      secret: scene.runtime.secret,
      body: requestBody([told], 1),
      type: 'application/xmpp+xml',
    });
    expect(readAnswers(reply.body).get(told.id)).toMatchObject({ condition: 'conflict', isRejoining: true });
    door.open();
    await done(at);
    await settled();
    expect(heard(at)).toEqual(BACK);
  });

  it('a second check asks for the same: one enters, nobody is told', async () => {
    const answers = Promise.withResolvers<undefined>();
    scene.muc().script(
      'ping',
      room,
      held(() => answers.promise, error('cancel', 'not-acceptable')),
    );
    scene.muc().script('enter', room, held(door.pass, letIn));
    const at = scene.dropOutgoing();
    await until('the first check has asked', () => scene.muc().count('ping', room) === 1);
    scene.dropIncoming(); // the way of the answers, so that the questions stay
    await until('the second check has asked', () => scene.muc().count('ping', room) === 2);
    answers.resolve(undefined);
    await until('the room is entered again', () => entries() === 2);
    await sleep(500);
    door.open();
    await done(at, 2);
    await settled();
    expect(entries()).toBe(2);
    expect(heard(at)).toEqual(BACK);
  });
});

describe('a session that hibernates, for which its server keeps 500 stanzas,', () => {
  const crowd = (from: string, to: string, count: number): string =>
    Array.from({ length: count }, (_, n) => mucPresence({ from: `${from}/${n}`, to })).join('');
  const history = (from: string, to: string): string =>
    Array.from(
      { length: 20 },
      (_, n) => `<message type="groupchat" id="${n}" from="${from}/0" to="${to}"><body>${n}</body>${DELAYED}</message>`,
    ).join('') + `<message type="groupchat" from="${from}" to="${to}"><subject/></message>`;
  /** Lets in who enters a room with so many others in it. */
  const withCrowd =
    (count: number): Reaction =>
    (question) =>
      crowd(question.room, question.user, count) + scene.muc().admit(question) + history(question.room, question.user);

  const fallAsleep = async (): Promise<void> => {
    await settled();
    const waiting = async (): Promise<string> => inside('return session.outgoing_stanza_queue:count_unacked()');
    await until('the client has acknowledged all', async () => Number(await waiting()) < 10);
    await juliet.die();
  };

  it('is out of a room that would send more than that: it resumes, and is told; one that is awake is back', async () => {
    const romeo = await scene.user('romeo');
    onTestFinished(() => romeo.leaveServer());
    await scene.join(romeo, room, 'Romeo');
    scene.muc().send(crowd(room, juliet.jid, 490));
    await fallAsleep();
    for (const one of [juliet, romeo]) scene.muc().forget(room, one.jid);
    scene.muc().script('enter', room, withCrowd(490));
    const at = scene.dropOutgoing();
    await done(at);
    expect(totals(at)).toMatchObject([{ left: 2, reentered: 1, notified: 1 }]);
    await scene.told(room, ['joined Romeo', 'joined Romeo'], romeo);
    await juliet.resume();
    await settled();
    expect(heard(at)).toEqual([TOLD]);
  });

  it('is out of two rooms that would do so together: it is back in one, and told of the other', async () => {
    const pair = ['one', 'other'].map((name) => scene.muc().room(`the-${name}-${rooms}`)); // asked about together, after `room`
    for (const each of pair) {
      await scene.join(juliet, each, 'Juliet');
      scene.muc().send(crowd(each, juliet.jid, 130));
    }
    await fallAsleep();
    for (const each of [room, ...pair]) {
      scene.muc().forget(each, juliet.jid);
      scene.muc().script('enter', each, withCrowd(each === room ? 0 : 130));
    }
    const at = scene.dropOutgoing();
    await done(at);
    expect(totals(at)).toMatchObject([{ left: 3, reentered: 2, notified: 1 }]);
    await juliet.resume();
    await settled();
    expect(juliet.notices()).toHaveLength(1);
  });
});

it('the answer to a re-entry is lost: the user is back and is not told', async () => {
  let losses = 0;
  scene.stanzas.gate.after = (body) => {
    if (!isReentry(body) || losses >= 2) return;
    losses += 1;
    throw new Error('the answer is lost');
  };
  const at = await reentering();
  door.open();
  await done(at);
  await settled();
  expect(losses).toBe(2);
  expect(heard(at)).toEqual(BACK);
  expect(entries()).toBe(2);
  expect(totals(at)).toMatchObject([{ left: 0, notified: 0 }]);
});

it("what the session had is known by the room's own name of it, whatever else has changed, and not by somebody else's", async () => {
  const named = (name: string, by = room): string => `<stanza-id xmlns="urn:xmpp:sid:0" by="${by}" id="${name}"/>`;
  scene.muc().send(said('one', named('1'), 'a'));
  await settled();
  const at = await reentering((question) => {
    const history = [
      said('one', named('1') + DELAYED, 'b'),
      said('two', named('1', scene.muc().domain) + DELAYED, 'c'),
      said('three', named('3') + DELAYED, 'd'),
    ];
    return (
      scene.muc().admit(question) +
      history.join('') +
      said('live', named('4'), 'e') +
      `<message type="groupchat" from="${room}" to="${question.user}"><subject/></message>`
    );
  });
  door.open();
  await done(at);
  await settled();
  expect(heard(at)).toEqual(['there Juliet 110', 'two', 'three', 'live', 'subject']);
  expect(totals(at)).toMatchObject([{ reentered: 1, gaps: 0 }]);
});

it('the room shows occupants without end to one who enters again: no more are kept than rosters know, and nobody is said to have left', async () => {
  onTestFinished(() => scene.set({}));
  await scene.set({ ping_muc_timeout: 20 }); // they take their time
  scene.muc().send(nurse());
  await settled();
  const at = await reentering();
  for (let n = 0; n < 2100; n += 1) scene.muc().send(mucPresence({ from: `${room}/${n}`, to: juliet.jid }));
  await until('all have come', () => heard(at).length === 2100, 20_000);
  expect(await inside('local n = 0; for _ in pairs(entry.announced) do n = n + 1; end; return n')).toBe('2000');
  door.open(); // and with it the nurse
  await done(at);
  await settled();
  expect(heard(at).filter((what) => what.startsWith('unavailable'))).toEqual([]);
  expect(heard(at).slice(2100)).toEqual(BACK);
});

it('nobody answers for a re-entry, and the room goes on showing occupants: these are not kept', async () => {
  scene.muc().send(nurse());
  await settled();
  const gate = Promise.withResolvers<undefined>();
  scene.stanzas.gate.before = (body) => (isNotice(body) ? gate.promise : undefined);
  const at = await reentering();
  await until('its time is over', async () => (await inside('return entry.overdue')) === 'true');
  scene.muc().send(mucPresence({ from: `${room}/Romeo`, to: juliet.jid }));
  scene.muc().send(nurse());
  await until('they have come', () => heard(at).length === 2);
  expect(await inside('return tostring(next(entry.announced))')).toBe('nil');
  scene.muc().send(scene.muc().admit({ user: juliet.jid, room, nick: 'Juliet' }));
  await scene.told(room, ['joined Juliet', 'joined Juliet']);
  gate.resolve(undefined);
  await done(at);
  await settled();
  expect(heard(at)).toEqual(['there Romeo', 'there Nurse', 'there Juliet 110']);
});

it('while something is held back, and after it, no room can have a join recorded that nobody asked for', async () => {
  const others = ['during', 'after'].map((when) => scene.muc().room(`${when}-${rooms}`));
  const send = (from = ''): void =>
    scene.muc().send(mucPresence({ from: `${from}/Juliet`, to: juliet.jid, codes: [110] }));
  const at = await reentering();
  scene.muc().script(
    'leave',
    room,
    held(door.pass, (question) =>
      mucPresence({ from: question.to, to: question.user, type: 'unavailable', codes: [110] }),
    ),
  );
  await juliet.leave(room, 'Juliet');
  await until('the room has its wish', () => scene.muc().count('leave', room) === 1);
  send(others[0]);
  await settled();
  door.open();
  await until('it is out', () => heard(at).length > 0);
  for (const one of [room, others[1]]) send(one);
  await done(at);
  await settled();
  expect([room, ...others].map((one) => scene.story(one))).toEqual([['joined Juliet', 'left'], [], []]);
});
