import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { BoshClient } from '../../lab/bosh.ts';
import { sleep, until } from '../../lab/lab.ts';
import type { Prosody, Stream } from '../../lab/prosody.ts';
import { Scene } from '../../lab/scene.ts';
import type { User } from '../../lab/user.ts';

/**
 * Servers as they are in production: TLS between them, certificates and nothing else believed, one managed stream for both
 * directions (issue 10). Whose connection it is differs, and who closes it, and how.
 */
const DELAY = 1;
/** A second notice for the same loss has come by then. */
const AFTERMATH_MS = 1500;

let scene: Scene;

beforeAll(async () => {
  scene = await Scene.open({ ping_muc_delay: DELAY }, { production: {} });
});
afterAll(() => scene.close());

const users: { leaveServer(): Promise<void> }[] = [];

afterEach(async () => {
  for (const user of users.splice(0)) await user.leaveServer();
});

async function user(name: string, service?: string): Promise<User> {
  const connected = await scene.user(name, 'phone', service);
  users.push(connected);
  return connected;
}

const PRODUCTION: Omit<Stream, 'type' | 'remote' | 'secure'> = {
  dir: '<->',
  sasl: 'Succeeded',
  cert: 'Valid',
  smacks: 'yes',
};

/** The one stream that there is, seen from both servers, is what production has. */
async function expectProduction(opener: 'users' | 'chat'): Promise<void> {
  const seen = async (server: Prosody, remote: string): Promise<readonly Stream[]> => {
    const streams = (): Promise<readonly Stream[]> => server.streams(remote);
    await until('the stream is managed', async () => (await streams()).every(({ smacks }) => smacks === 'yes')).catch(
      () => undefined,
    );
    return streams();
  };
  const secure = expect.stringMatching(/^TLSv1\.[23]$/) as string;
  const [atUsers, atChat] = opener === 'users' ? (['s2sout', 's2sin'] as const) : (['s2sin', 's2sout'] as const);
  expect(await seen(scene.home, scene.muc)).toEqual([{ ...PRODUCTION, type: atUsers, remote: scene.muc, secure }]);
  expect(await seen(scene.away, scene.home.host)).toEqual([
    { ...PRODUCTION, type: atChat, remote: scene.home.host, secure },
  ]);
}

/** A stream between users and rooms is there, and it is one that this server opened. */
async function openStream(opener: 'users' | 'chat'): Promise<void> {
  const [server, from, to] =
    opener === 'users' ? [scene.home, scene.home.host, scene.muc] : [scene.away, scene.muc, scene.home.host];
  // a chat service refuses a ping, but over the stream
  await server.shell(`xmpp:ping("${from}", "${to}")`).catch(() => undefined);
}

beforeEach(async () => {
  for (const server of [scene.home, scene.away]) await server.shell('s2s:closeall()').catch(() => undefined); // it may have none
  await until(
    'no stream is left',
    async () =>
      (await Promise.all([scene.home.streams(scene.muc), scene.away.streams(scene.home.host)])).flat().length === 0,
  );
});

describe('of two users in a room that forgot one of them, this one is told once and the other never', () => {
  it.each([
    ['the way to the chat server is reset', 'users', () => scene.away.links.get(scene.muc)?.drop()],
    ["the way to the users' server is reset", 'chat', () => scene.home.links.get(scene.home.host)?.drop()],
    [
      "the users' server closes the stream that it opened, in good order",
      'users',
      () => scene.home.shell(`s2s:closeall("${scene.muc}")`),
    ],
    [
      "the users' server closes the stream that the chat server opened, in good order",
      'chat',
      () => scene.home.shell(`s2s:closeall("${scene.muc}")`),
    ],
    [
      'the chat server closes the stream that it opened, in good order',
      'chat',
      () => scene.away.shell(`s2s:close("${scene.muc}", "${scene.home.host}")`),
    ],
    [
      "the chat server closes the stream that the users' server opened, in good order",
      'users',
      () => scene.away.shell(`s2s:closeall("${scene.home.host}")`),
    ],
  ] as const)('%s', async (how, opener, close) => {
    await openStream(opener);
    const room = scene.room(`balcony-${how.replaceAll(/\W/g, '')}`);
    const [juliet, romeo] = [await user('juliet'), await user('romeo')];
    await scene.join(juliet, room, 'Juliet');
    await scene.join(romeo, room, 'Romeo');
    await expectProduction(opener);

    await scene.forget(room, juliet);
    const closed = Date.now();
    await close();
    expect(await scene.checkDone(closed)).toMatchObject({ joined: 1, left: 1, notified: 1 });
    await until('the notice', () => juliet.notices()[0]);
    await sleep(AFTERMATH_MS);
    expect(juliet.notices()).toHaveLength(1);
    expect(romeo.notices()).toEqual([]);
  });
});

it('the chat server is killed and has forgotten its rooms when it is back: each of their users is told once', async () => {
  await openStream('users');
  const room = scene.room('killed');
  const [juliet, romeo] = [await user('juliet'), await user('romeo')];
  await scene.join(juliet, room, 'Juliet');
  await scene.join(romeo, room, 'Romeo');
  await expectProduction('users');

  const killed = await scene.restartAway();
  expect(await scene.checkDone(killed)).toMatchObject({ joined: 0, left: 2, notified: 2 });
  await sleep(AFTERMATH_MS);
  expect([juliet.notices().length, romeo.notices().length]).toEqual([1, 1]);
});

describe('whatever the way to the client', () => {
  it('clients by websocket and by HTTP are told once, and one that hibernates when it is back', async () => {
    const room = scene.room('ways');
    const byWebsocket = await user('juliet', scene.home.websocketService);
    const hibernating = await user('romeo');
    const byHttp = await BoshClient.connect(scene.lab, scene.home, 'nurse', 'browser');
    for (const [index, member] of [byWebsocket, hibernating, byHttp].entries())
      await scene.join(member, room, `nick ${index}`);
    const methods = await scene.home.shell('c2s:show(nil, "jid method")');
    expect(methods.match(/TCP|WebSocket|BOSH/g)?.sort()).toEqual(['BOSH', 'TCP', 'WebSocket']);

    await hibernating.die();
    const killed = await scene.restartAway();
    expect(await scene.checkDone(killed)).toMatchObject({ left: 3, gone: 0, notified: 3 });
    await until('the notices', () => byWebsocket.notices().length > 0 && byHttp.notices().length > 0);
    expect(hibernating.notices()).toEqual([]);
    await hibernating.resume();
    await until('the notice to the client that is back', () => hibernating.notices()[0]);
    await sleep(AFTERMATH_MS);
    expect([byWebsocket, hibernating, byHttp].map((member) => member.notices().length)).toEqual([1, 1, 1]);
    await byHttp.stop();
  });

  it('a client that nobody looks at (XEP-0352) is told at once: the notice is not held back', async () => {
    const room = scene.room('inactive');
    const juliet = await user('juliet');
    await scene.join(juliet, room, 'Juliet');
    await juliet.fallInactive();
    await until('the server knows', async () =>
      (await scene.home.shell('c2s:show(nil, "jid csi")')).includes('inactive'),
    );

    const killed = await scene.restartAway();
    expect(await scene.checkDone(killed)).toMatchObject({ left: 1, notified: 1 });
    await sleep(AFTERMATH_MS);
    expect(juliet.notices()).toHaveLength(1);
  });
});
