import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { BoshClient } from '../../lab/bosh.ts';
import { sleep, until } from '../../lab/lab.ts';
import { TwoServers } from '../../lab/two-servers.ts';
import { type User, isOfRoom, statusCodes } from '../../lab/user.ts';

/** Rule 10 (docs/rules.md), between servers as in production: every kind of client is back in its room. */
const SETTLE_MS = 1000;
let testBed: TwoServers;
let room: string;
let rooms = 0;
let mercutio: User;
const clients: { stop?(): Promise<void>; leaveServer?(): Promise<void> }[] = [];

beforeAll(async () => {
  testBed = await TwoServers.open(
    { ping_muc_delay: 1, ping_muc_timeout: 5, ping_muc_patience: 0, ping_muc_reenter: true },
    { production: {} },
  );
});
afterAll(() => testBed.close());
beforeEach(async () => {
  rooms += 1;
  room = testBed.room(`room-${rooms}`);
  mercutio = keep(await testBed.guest('mercutio'));
  await mercutio.join(room, 'Mercutio');
});
afterEach(async () => {
  for (const client of clients.splice(0)) await (client.stop ?? client.leaveServer)?.call(client);
});

function keep<Client extends User | BoshClient>(client: Client): Client {
  clients.push(client);
  return client;
}

const stanzas = (client: User | BoshClient): BoshClient['received'] =>
  client.received.map((received) => ('stanza' in received ? received.stanza : received));

/** What a client has received from the room from its n-th stanza on, as text. */
function receivedFrom(client: User | BoshClient, from: number): readonly string[] {
  return stanzas(client)
    .slice(from)
    .filter((stanza) => String(stanza.attrs['from']).startsWith(room) && !isOfRoom(stanza))
    .map((stanza) => {
      if (stanza.is('message')) return stanza.getChildText('body') ?? 'subject';
      return [
        String(stanza.attrs['type'] ?? 'there'),
        String(stanza.attrs['from']).split('/')[1],
        ...statusCodes(stanza),
      ].join(' ');
    });
}

/**
 * The room drops a client and receives a message, and the streams break. Returns how many stanzas the client had
 * before.
 */
async function lose(client: User | BoshClient): Promise<number> {
  const before = client.received.length;
  await testBed.dropOccupant(room, client);
  await mercutio.sendMessage(room, 'missed');
  const cut = testBed.dropStreams();
  expect(await testBed.checkDone(cut)).toMatchObject({ left: 1, reentered: 1, gone: 0, notified: 0 });
  return before;
}

const BACK = ['there Mercutio', 'there Juliet 110', 'missed', 'subject'];

it.each([
  ['TCP', () => testBed.user('juliet')],
  ['websocket', () => testBed.user('juliet', 'phone', testBed.home.websocketService)],
  ['HTTP (BOSH)', () => BoshClient.connect(testBed.lab, testBed.home, 'juliet', 'browser')],
] as const)('a client by %s is back, and receives later messages', async (_way, connect) => {
  const client = keep(await connect());
  await testBed.join(client, room, 'Juliet');
  const before = await lose(client);
  await until('it is back', () => receivedFrom(client, before).includes('subject'));
  await mercutio.sendMessage(room, 'later');
  await until('it receives the message', () => receivedFrom(client, before).includes('later'));
  await sleep(SETTLE_MS);
  expect(receivedFrom(client, before)).toEqual([...BACK, 'later']);
});

it('a hibernating client is back in the room when it resumes, and receives the messages since then', async () => {
  const juliet = keep(await testBed.user('juliet'));
  await testBed.join(juliet, room, 'Juliet');
  await juliet.die();
  const before = await lose(juliet);
  await mercutio.sendMessage(room, 'later');
  await sleep(SETTLE_MS);
  expect(receivedFrom(juliet, before)).toEqual([]);
  await juliet.resume();
  await until('it receives the message', () => receivedFrom(juliet, before).includes('later'));
  await sleep(SETTLE_MS);
  expect(receivedFrom(juliet, before)).toEqual([...BACK, 'later']);
  await juliet.sendMessage(room, 'I am here');
  await until('her message has arrived', () =>
    stanzas(mercutio).some((stanza) => stanza.getChildText('body') === 'I am here'),
  );
});

it('an inactive client (XEP-0352) is back, and is woken for messages only', async () => {
  const juliet = keep(await testBed.user('juliet'));
  await testBed.join(juliet, room, 'Juliet');
  await juliet.becomeInactive();
  const before = await lose(juliet);
  await until('it receives the message', () => receivedFrom(juliet, before).includes('missed'));
  await sleep(SETTLE_MS);
  expect(receivedFrom(juliet, before).filter((what) => what !== 'subject')).toEqual(BACK.slice(0, 3));
});
