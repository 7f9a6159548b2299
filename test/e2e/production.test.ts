import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { BoshClient } from '../../lab/bosh.ts';
import { sleep, until } from '../../lab/lab.ts';
import { TwoServers } from '../../lab/two-servers.ts';
import type { User } from '../../lab/user.ts';
import type { Stream, XmppServer } from '../../lab/xmpp-server.ts';

/**
 * Servers that are configured as in production: TLS and certificates are required, and one managed stream carries both
 * directions (issue 10). The tests vary which server opens the stream, which closes it, and how.
 */
const DELAY = 1;
/** Time for a second notice of the same loss to arrive. */
const SETTLE_MS = 1500;

let testBed: TwoServers;

beforeAll(async () => {
  testBed = await TwoServers.open({ ping_muc_delay: DELAY }, { production: {} });
});
afterAll(() => testBed.close());

const users: { leaveServer(): Promise<void> }[] = [];

afterEach(async () => {
  for (const user of users.splice(0)) await user.leaveServer();
});

async function user(name: string, service?: string): Promise<User> {
  const connected = await testBed.user(name, 'phone', service);
  users.push(connected);
  return connected;
}

/** There is one stream, or one for each direction, and both servers show it as in production. */
async function expectProduction(opener: 'users' | 'chat'): Promise<void> {
  const { bidi: isBidi, managedStreams: isManaged } = testBed.abilities;
  const seen = async (server: XmppServer, remote: string): Promise<readonly Stream[]> => {
    const streams = (): Promise<readonly Stream[]> => server.streams(remote);
    await until('the streams are there', async () => {
      const now = await streams();
      return now.length === (isBidi ? 1 : 2) && now.every((stream) => stream.isManaged === isManaged);
    }).catch(() => undefined);
    return streams();
  };
  const expected = (remote: string, openers: readonly Stream['opener'][]): unknown =>
    openers.map((each) => ({ opener: each, isBidi, isEncrypted: true, isCertified: true, isManaged, remote }));
  const [atUsers, atChat] = opener === 'users' ? (['this', 'other'] as const) : (['other', 'this'] as const);
  const both = ['this', 'other'] as const;
  const byOpener = (streams: readonly Stream[]): readonly Stream[] =>
    streams.toSorted((one, other) => (one.opener > other.opener ? -1 : 1));
  expect(byOpener(await seen(testBed.home, testBed.muc))).toEqual(expected(testBed.muc, isBidi ? [atUsers] : both));
  expect(byOpener(await seen(testBed.away, testBed.home.host))).toEqual(
    expected(testBed.home.host, isBidi ? [atChat] : both),
  );
}

/** Opens a stream between the two servers, from one of them. */
async function openStream(opener: 'users' | 'chat'): Promise<void> {
  if (opener === 'users') await testBed.home.openStream(testBed.home.host, testBed.muc);
  else await testBed.away.openStream(testBed.muc, testBed.home.host);
  const streams = async (): Promise<number> => (await testBed.home.streams(testBed.muc)).length;
  await until('a stream is open', async () => (await streams()) > 0);
}

beforeEach(async () => {
  await testBed.home.closeStreams(testBed.muc);
  await testBed.away.closeStreams(testBed.home.host);
  await until(
    'no stream is left',
    async () =>
      (await Promise.all([testBed.home.streams(testBed.muc), testBed.away.streams(testBed.home.host)])).flat()
        .length === 0,
  );
});

describe('a room drops one of two users: this one is notified once, and the other is not', () => {
  it.each([
    ['the connection to the chat server is reset', 'users', () => testBed.away.links.get(testBed.muc)?.drop()],
    ["the connection to the users' server is reset", 'chat', () => testBed.home.links.get(testBed.home.host)?.drop()],
    [
      "the users' server cleanly closes the stream that it opened",
      'users',
      () => testBed.home.closeStreams(testBed.muc),
    ],
    [
      "the users' server cleanly closes the stream that the chat server opened",
      'chat',
      () => testBed.home.closeStreams(testBed.muc),
    ],
    [
      'the chat server cleanly closes the stream that it opened',
      'chat',
      () => testBed.away.closeStreams(testBed.home.host),
    ],
    [
      "the chat server cleanly closes the stream that the users' server opened",
      'users',
      () => testBed.away.closeStreams(testBed.home.host),
    ],
  ] as const)('%s', async (how, opener, close) => {
    await openStream(opener);
    const room = testBed.room(`balcony-${how.replaceAll(/\W/g, '')}`);
    const [juliet, romeo] = [await user('juliet'), await user('romeo')];
    await testBed.join(juliet, room, 'Juliet');
    await testBed.join(romeo, room, 'Romeo');
    await expectProduction(opener);

    await testBed.dropOccupant(room, juliet);
    const closed = Date.now();
    await close();
    expect(await testBed.checkDone(closed)).toMatchObject({ joined: 1, left: 1, notified: 1 });
    await until('the notice', () => juliet.notices()[0]);
    await sleep(SETTLE_MS);
    expect(juliet.notices()).toHaveLength(1);
    expect(romeo.notices()).toEqual([]);
  });
});

it('the chat server is killed, and starts without its rooms: each of their users is notified once', async () => {
  await openStream('users');
  const room = testBed.room('killed');
  const [juliet, romeo] = [await user('juliet'), await user('romeo')];
  await testBed.join(juliet, room, 'Juliet');
  await testBed.join(romeo, room, 'Romeo');
  await expectProduction('users');

  const killed = await testBed.restartChatServer();
  expect(await testBed.checkDone(killed)).toMatchObject({ joined: 0, left: 2, notified: 2 });
  await sleep(SETTLE_MS);
  expect([juliet.notices().length, romeo.notices().length]).toEqual([1, 1]);
});

describe('for all kinds of clients', () => {
  it('clients by websocket and HTTP are notified once, and a hibernating one when it resumes', async () => {
    const room = testBed.room('ways');
    const byWebsocket = await user('juliet', testBed.home.websocketService);
    const hibernating = await user('romeo');
    const byHttp = await BoshClient.connect(testBed.lab, testBed.home, 'nurse', 'browser');
    for (const [index, member] of [byWebsocket, hibernating, byHttp].entries())
      await testBed.join(member, room, `nick ${index}`);
    expect((await testBed.home.connections()).toSorted()).toEqual(['BOSH', 'TCP', 'WebSocket']);

    await hibernating.die();
    const killed = await testBed.restartChatServer();
    expect(await testBed.checkDone(killed)).toMatchObject({ left: 3, gone: 0, notified: 3 });
    await until('the notices', () => byWebsocket.notices().length > 0 && byHttp.notices().length > 0);
    expect(hibernating.notices()).toEqual([]);
    await hibernating.resume();
    await until('the notice to the client that has resumed', () => hibernating.notices()[0]);
    await sleep(SETTLE_MS);
    expect([byWebsocket, hibernating, byHttp].map((member) => member.notices().length)).toEqual([1, 1, 1]);
    await byHttp.stop();
  });

  it('an inactive client (XEP-0352) is notified at once: the notice is not held back', async () => {
    const room = testBed.room('inactive');
    const juliet = await user('juliet');
    await testBed.join(juliet, room, 'Juliet');
    await juliet.becomeInactive();

    const killed = await testBed.restartChatServer();
    expect(await testBed.checkDone(killed)).toMatchObject({ left: 1, notified: 1 });
    await sleep(SETTLE_MS);
    expect(juliet.notices()).toHaveLength(1);
  });
});
