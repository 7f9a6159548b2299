import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import { S2sPeer } from '../../lab/s2s-peer.ts';
import { mucPresence } from '../../lab/scripted-muc.ts';
import { type Reported, ScriptedRooms } from '../../lab/scripted-rooms.ts';
import { User } from '../../lab/user.ts';

/**
 * Rules 2 and 5 (docs/rules.md): which closes are reported, and how often closes and changes of one join are reported
 * at most.
 */
const DELAY = 4;
/** With patience, so that nobody is notified while the streams break repeatedly. */
const SETTINGS = { ping_muc_delay: DELAY, ping_muc_patience: 300 };
/** Another host of the users' server, with its own instance of the module. */
let secondHost: string;
let testBed: ScriptedRooms;
let juliet: User;
let room: string;
let rooms = 0;

beforeAll(async () => {
  testBed = await ScriptedRooms.open(SETTINGS);
  secondHost = testBed.lab.address(4);
});
afterAll(() => testBed.close());

beforeEach(async () => {
  rooms += 1;
  room = testBed.muc().room(`room-${rooms}`);
  juliet = await testBed.user('juliet');
  await testBed.join(juliet, room, 'Juliet');
});
afterEach(() => juliet.leaveServer());

/** Waits until the sender holds nothing back, and no check is pending. */
const quiet = (): Promise<void> => sleep((DELAY + 1.5) * 1000);
const pings = (since: number): number =>
  testBed.pinged(since).filter((occupant) => occupant.startsWith(`${room}/`)).length;
/**
 * Ends the streams between the chat service and the users' host: cleanly, as after an idle time-out, or with an error.
 */
async function endStreams(condition?: string): Promise<number> {
  const since = Date.now();
  await testBed.away.closeStreams(testBed.home.host, condition);
  await until('the streams have ended', async () => (await testBed.home.streams(testBed.muc().domain)).length === 0);
  return since;
}

describe('a close is reported for', () => {
  it('the authenticated host, not the host in the stream header', async () => {
    const stranger = await S2sPeer.open(testBed.lab, testBed.lab.address(20));
    await quiet();
    const since = Date.now();
    const stream = await stranger.call(testBed.home.host, testBed.muc().domain);
    await stream.authenticate(testBed.home.host);
    stream.end();
    await until('both sides have ended the stream', () => stream.isOver);
    await testBed.settle(juliet);
    expect(testBed.closes(since)).toEqual([]);
    expect(pings(since)).toBe(0);
  });

  it('the local host that has a join, on a stream of two local hosts', async () => {
    const second = await testBed.home.addHost(secondHost, ['romeo'], { http_host: secondHost });
    const peer = await S2sPeer.open(testBed.lab, testBed.lab.address(21));
    const romeo = await User.connect(testBed.lab, second, 'romeo', 'phone');
    const there = `there@${peer.domain}`;
    await romeo.enter(there, 'Romeo');
    await until('the peer receives the presence', () => peer.received.includes(`${there}/Romeo`));
    const stream = await peer.call(testBed.home.host);
    await stream.authenticate(testBed.home.host);
    await stream.authenticate(secondHost);
    stream.write(mucPresence({ from: `${there}/Romeo`, to: romeo.jid, codes: [110] }));
    await testBed.waitForHistory(there, ['joined Romeo']);
    const since = Date.now();
    stream.reset();
    const closesOf = (remote: string): readonly Reported[] =>
      testBed
        .reported()
        .filter(({ type, remote: of, at }) => type === 's2s.closed' && of === remote && at >= since * 1000);
    await until('a close is reported', () => closesOf(peer.domain).length > 0);
    const senders = testBed.webhooks.requests.filter(
      ({ body }) => body.includes('s2s.closed') && body.includes(peer.domain),
    );
    expect(senders.map(({ body }) => (JSON.parse(body.toString()) as { host: string }).host)).toEqual([secondHost]);
    await romeo.leaveServer();
  });
});

describe('the clean end of a stream', () => {
  it.each([undefined, 'connection-timeout'])(
    'is a close if users sent stanzas, and no close if only a check sent pings (%s)',
    async (condition) => {
      await quiet();
      const first = await endStreams(condition);
      await until('a close is reported', () => testBed.closes(first).length > 0);
      await testBed.checkDone(first, testBed.muc().domain);
      await quiet();
      expect(pings(first)).toBeGreaterThan(0);

      const second = await endStreams(condition);
      await quiet();
      expect(testBed.closes(second)).toEqual([]);
      expect(pings(second)).toBe(0);
    },
  );

  it('is a close if it was an error, even if only a check sent pings', async () => {
    const first = await endStreams();
    await testBed.checkDone(first, testBed.muc().domain);
    await quiet();
    const second = await endStreams('system-shutdown');
    await until('a close is reported', () => testBed.closes(second).length > 0);
  });
});

describe('a host that closes streams repeatedly', () => {
  it('causes one report in each half delay, and the last report is for the last close', async () => {
    const SECONDS = Number(process.env['FLAP_SECONDS'] ?? 20); // FLAP_SECONDS=120 passes, too
    await quiet();
    const since = Date.now();
    let drops = 0;
    let last = since;
    while (Date.now() < since + SECONDS * 1000) {
      await juliet.sendMessage(room, 'Still here');
      await sleep(230);
      last = testBed.dropStreams();
      drops += 1;
    }
    await sleep((DELAY / 2 + 1) * 1000);
    const closes = testBed.closes(since);
    expect(drops).toBeGreaterThan(SECONDS * 3);
    expect(closes.length).toBeGreaterThan(SECONDS / (DELAY / 2) / 2);
    expect(closes.length).toBeLessThanOrEqual(SECONDS / (DELAY / 2) + 2);
    expect(closes.at(-1)?.at).toBeGreaterThanOrEqual((last - 500) * 1000);
  }, 180_000);

  it('causes a report for its last close, even if the module is reloaded before it', async () => {
    await quiet();
    const first = testBed.dropStreams();
    await until('a close is reported', () => testBed.closes(first).length > 0);
    await juliet.sendMessage(room, 'Still here');
    await sleep(500);
    const second = testBed.dropStreams();
    await sleep(200);
    expect(testBed.closes(second)).toEqual([]);
    await testBed.home.reloadModule();
    await until('the second close is reported', () => testBed.closes(second).length > 0);
    expect(testBed.closes(second)[0]?.at).toBeLessThan((second + 400) * 1000);
  });
});

describe('a join that changes repeatedly', () => {
  const change = (nick: string): void =>
    testBed.muc().send(mucPresence({ from: `${room}/${nick}`, to: juliet.jid, codes: [110] }));

  it('is reported less and less often, and its newest nick is reported in the end', async () => {
    for (let n = 1; n <= 100; n += 1) {
      change(`nick-${n}`);
      await sleep(120);
    }
    await until('the newest nick is reported', () => testBed.history(room).at(-1) === 'joined nick-100');
    // four at once, then after 1, 2 and 4 seconds, and after each delay
    expect(testBed.history(room).length).toBeLessThanOrEqual(9);
    expect(testBed.history(room).length).toBeGreaterThan(5);
  });

  it('and ends: its end is reported, after a delay', async () => {
    for (let n = 1; n <= 10; n += 1) {
      change(`nick-${n}`);
      await sleep(200);
    }
    testBed
      .muc()
      .send(mucPresence({ from: `${room}/nick-10`, to: juliet.jid, type: 'unavailable', codes: [110, 307] }));
    await until('its end is reported', () => testBed.history(room).at(-1) === 'left');
    expect(testBed.history(room).length).toBeLessThanOrEqual(7);
  });

  it('and ends while the module is reloaded: its end is reported', async () => {
    for (let n = 1; n <= 8; n += 1) {
      change(`nick-${n}`);
      await sleep(200);
    }
    await juliet.leave(room, 'nick-8');
    await testBed.home.reloadModule();
    await until('its end is reported', () => testBed.history(room).at(-1) === 'left');
  });
});
