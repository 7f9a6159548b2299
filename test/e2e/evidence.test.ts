import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import type { Totals } from '../../functions/core/check-state.ts';
import { sleep, until } from '../../lab/lab.ts';
import { error, held, mucPresence, silence } from '../../lab/scripted-muc.ts';
import { ScriptedRooms } from '../../lab/scripted-rooms.ts';
import type { User } from '../../lab/user.ts';

/**
 * Rule 6 (docs/rules.md), without patience: what proves that a user is in, and what shows that a host is out of reach.
 */
const TIMEOUT = 2;
let testBed: ScriptedRooms;
let juliet: User;
let room: string;
let rooms = 0;

beforeAll(async () => {
  testBed = await ScriptedRooms.open({ ping_muc_delay: 2, ping_muc_timeout: TIMEOUT, ping_muc_patience: 0 });
  juliet = await testBed.user('juliet');
});
afterAll(() => testBed.close());
beforeEach(async () => {
  rooms += 1;
  room = testBed.muc().room(`room-${rooms}`);
  await testBed.join(juliet, room, 'Juliet');
});

const message = (more = '', type = 'groupchat'): string =>
  `<message type="${type}" from="${room}/Nurse" to="${juliet.jid}"><body>Madam!</body>${more}</message>`;
const noticeCount = (): number =>
  juliet.notices().filter(({ stanza }) => String(stanza.attrs['from']).startsWith(`${room}/`)).length;
const pings = (): number => testBed.muc().count('ping', room);
const isAsked = (): Promise<unknown> => until('the room is pinged', () => pings() > 0, 20_000);

/** Cuts the streams, lets the room do something, and waits for the end of the check; then leaves the room. */
async function check(meanwhile: () => Promise<unknown> | undefined): Promise<Totals> {
  const cut = testBed.dropStreams();
  await sleep(300); // a stanza into a stream that is ending may be lost
  await meanwhile();
  const totals = await testBed.checkDone(cut, testBed.muc().domain);
  if (noticeCount() === 0) await juliet.leave(room, 'Juliet');
  testBed.muc().script('ping', room);
  await testBed.settle(juliet);
  return totals;
}

const send = (xml: string): undefined => {
  testBed.muc().send(xml);
};

it.each([
  ['a groupchat message', (): string => message()],
  ['the presence of an occupant', (): string => mucPresence({ from: `${room}/Nurse`, to: juliet.jid })],
])('%s over a new stream before the check is a proof: the room is not pinged', async (_what, stanza) => {
  expect(await check(() => send(stanza()))).toMatchObject({ joined: 1, proved: 1, notified: 0 });
  expect([pings(), noticeCount()]).toEqual([0, 0]);
});

it('a groupchat message during the ping of a silent room is a proof', async () => {
  testBed.muc().script('ping', room, silence);
  expect(await check(() => isAsked().then(() => send(message())))).toMatchObject({ joined: 1, proved: 1, notified: 0 });
  expect([pings(), noticeCount()]).toEqual([1, 0]);
});

it('the answer of the room overrides a proof', async () => {
  const asked = Promise.withResolvers<undefined>();
  testBed.muc().script(
    'ping',
    room,
    held(() => asked.promise, error('cancel', 'not-acceptable')),
  );
  const totals = await check(async () => {
    await isAsked();
    send(message());
    await until('the message has arrived', () =>
      juliet.received.some(({ stanza }) => stanza.is('message') && String(stanza.attrs['from']).startsWith(room)),
    );
    asked.resolve(undefined);
  });
  expect(totals).toMatchObject({ left: 1, proved: 0, notified: 1 });
  expect(noticeCount()).toBe(1);
});

it.each([
  ['a delayed message', (): string => message('<delay xmlns="urn:xmpp:delay" stamp="2026-01-01T00:00:00Z"/>')],
  ['a private message', (): string => message('', 'chat')],
  [
    'an error',
    (): string =>
      message('<error type="cancel"><not-acceptable xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error>', 'error'),
  ],
  [
    'an invitation',
    (): string =>
      `<message from="${room}" to="${juliet.jid}"><x xmlns="http://jabber.org/protocol/muc#user">` +
      `<invite from="n@${testBed.away.host}"/></x></message>`,
  ],
  ['a subscription', (): string => `<presence type="subscribe" from="${room}/Nurse" to="${juliet.jid}"/>`],
  [
    'the leave of an occupant',
    (): string => mucPresence({ from: `${room}/Nurse`, to: juliet.jid, type: 'unavailable' }),
  ],
])('%s proves nothing', async (_what, stanza) => {
  testBed.muc().script('ping', room, silence);
  const before = juliet.received.length;
  expect(await check(() => send(stanza()))).toMatchObject({ joined: 0, proved: 0, undecided: 1, notified: 1 });
  expect(noticeCount()).toBe(1);
  if (!stanza().includes('"subscribe"')) {
    const [came] = juliet.received
      .slice(before)
      .filter(({ stanza: { attrs } }) => String(attrs['from']).startsWith(room) && attrs['from'] !== `${room}/Juliet`);
    expect(came, 'it has arrived').toBeDefined(); // a server answers a subscription itself
  }
});

it('a message over a stream that is older than the close proves nothing', async () => {
  testBed.muc().script('ping', room, silence);
  send(message()); // the chat service's own stream is up
  const cut = testBed.dropOutgoing();
  send(message());
  expect(await testBed.checkDone(cut, testBed.muc().domain)).toMatchObject({
    joined: 0,
    proved: 0,
    undecided: 1,
    notified: 1,
  });
  testBed.muc().script('ping', room);
  await testBed.settle(juliet);
});

it('one of four rooms of a gateway answers remote-server-not-found: the others keep their users', async () => {
  const names = ['a', 'b', 'c', 'd'].map((name) => testBed.muc().room(`gateway-${name}`));
  for (const each of names) await testBed.join(juliet, each, 'Juliet');
  const [first = ''] = names;
  testBed.muc().script('ping', first, error('cancel', 'remote-server-not-found', { by: testBed.muc().domain }));
  await juliet.leave(room, 'Juliet');
  const cut = testBed.dropStreams();
  expect(await testBed.checkDone(cut, testBed.muc().domain)).toMatchObject({
    pinged: 4,
    joined: 3,
    undecided: 1,
    notified: 1,
  });
  expect(
    names.map((each) => juliet.notices().filter(({ stanza }) => stanza.attrs['from'] === `${each}/Juliet`).length),
  ).toEqual([1, 0, 0, 0]);
});
