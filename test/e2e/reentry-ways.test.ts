import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { BoshClient } from '../../lab/bosh.ts';
import { sleep, until } from '../../lab/lab.ts';
import { Scene } from '../../lab/scene.ts';
import { type User, statusCodes } from '../../lab/user.ts';

/** Rule 10 (docs/rules.md), between servers as in production: whatever the way to the client, it is back in its room. */
const AFTERMATH_MS = 1000;
let scene: Scene;
let room: string;
let rooms = 0;
let mercutio: User;
const clients: { stop?(): Promise<void>; leaveServer?(): Promise<void> }[] = [];

beforeAll(async () => {
  scene = await Scene.open(
    { ping_muc_delay: 1, ping_muc_timeout: 5, ping_muc_patience: 0, ping_muc_reenter: true },
    { production: {} },
  );
});
afterAll(() => scene.close());
beforeEach(async () => {
  rooms += 1;
  room = scene.room(`room-${rooms}`);
  mercutio = keep(await scene.guest('mercutio'));
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

/** What a client got from the room from its n-th stanza on, in words. */
function heard(client: User | BoshClient, from: number): readonly string[] {
  return stanzas(client)
    .slice(from)
    .filter((stanza) => String(stanza.attrs['from']).startsWith(room))
    .map((stanza) => {
      if (stanza.is('message')) return stanza.getChildText('body') ?? 'subject';
      return [
        String(stanza.attrs['type'] ?? 'there'),
        String(stanza.attrs['from']).split('/')[1],
        ...statusCodes(stanza),
      ].join(' ');
    });
}

/** The room forgets a client, something is said, and the streams break. Returns how much the client had heard before. */
async function lose(client: User | BoshClient): Promise<number> {
  const before = client.received.length;
  await scene.forget(room, client);
  await mercutio.say(room, 'missed');
  const cut = scene.dropStreams();
  expect(await scene.checkDone(cut)).toMatchObject({ left: 1, reentered: 1, gone: 0, notified: 0 });
  return before;
}

const BACK = ['there Mercutio', 'there Juliet 110', 'missed', 'subject'];

it.each([
  ['TCP', () => scene.user('juliet')],
  ['websocket', () => scene.user('juliet', 'phone', scene.home.websocketService)],
  ['HTTP (BOSH)', () => BoshClient.connect(scene.lab, scene.home, 'juliet', 'browser')],
] as const)('a client by %s is back, and hears later lines', async (_way, connect) => {
  const client = keep(await connect());
  await scene.join(client, room, 'Juliet');
  const before = await lose(client);
  await until('it is back', () => heard(client, before).includes('subject'));
  await mercutio.say(room, 'later');
  await until('it hears', () => heard(client, before).includes('later'));
  await sleep(AFTERMATH_MS);
  expect(heard(client, before)).toEqual([...BACK, 'later']);
});

it('a client that hibernates is back in the room when it comes back to its session, and hears what was said meanwhile', async () => {
  const juliet = keep(await scene.user('juliet'));
  await scene.join(juliet, room, 'Juliet');
  await juliet.die();
  const before = await lose(juliet);
  await mercutio.say(room, 'later');
  await sleep(AFTERMATH_MS);
  expect(heard(juliet, before)).toEqual([]);
  await juliet.resume();
  await until('it hears', () => heard(juliet, before).includes('later'));
  await sleep(AFTERMATH_MS);
  expect(heard(juliet, before)).toEqual([...BACK, 'later']);
  await juliet.say(room, 'I am here');
  await until('she is heard', () => stanzas(mercutio).some((stanza) => stanza.getChildText('body') === 'I am here'));
});

it('a client that nobody looks at (XEP-0352) is back, without being woken for more than what was said', async () => {
  const juliet = keep(await scene.user('juliet'));
  await scene.join(juliet, room, 'Juliet');
  await juliet.fallInactive();
  await until('the server knows', async () =>
    (await scene.home.shell('c2s:show(nil, "jid csi")')).includes('inactive'),
  );
  const before = await lose(juliet);
  await until('it hears', () => heard(juliet, before).includes('missed'));
  await sleep(AFTERMATH_MS);
  expect(heard(juliet, before).filter((what) => what !== 'subject')).toEqual(BACK.slice(0, 3));
});
