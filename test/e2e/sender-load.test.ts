import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { sleep, until } from '../../lab/lab.ts';
import { type Reported, ScriptedRooms } from '../../lab/scripted-rooms.ts';
import { StubAnswer, RecordingProxy } from '../../lab/recording-proxy.ts';
import type { User } from '../../lab/user.ts';

/** The order, size and rate of the sender's requests under load. */
const SESSIONS = 5;
const ROOMS = 960; // for each session; the module watches up to 1,000
const JOINS = SESSIONS * ROOMS;
/** The maximum number of events in a request. */
const FULL = 1000;

let testBed: ScriptedRooms;
let juliet: User;
/** Another receiver, which no server uses yet. */
let fresh: RecordingProxy;

interface Request {
  /** When it arrived, in milliseconds. */
  readonly at: number;
  readonly events: readonly Reported[];
}

/** The receiver accepts everything. The functions do not receive it, because they would be slow. */
const accept = (): StubAnswer =>
  new StubAnswer(200, { 'content-type': 'application/json' }, '{"accepted":1,"rejected":[]}');
const accepting = { before: accept };

const requestsOf = (proxy: RecordingProxy, since: number): readonly Request[] =>
  proxy.requests
    .filter(({ at }) => at >= since)
    .map(({ at, body }) => ({ at, events: (JSON.parse(body.toString()) as { events: Reported[] }).events }));
const requests = (since: number): readonly Request[] => requestsOf(testBed.webhooks, since);
const closeIn = ({ events }: Request): boolean => events.some(({ type }) => type === 's2s.closed');
const keys = (all: readonly Request[]): readonly string[] =>
  all.flatMap(({ events }) =>
    events.filter(({ type }) => type === 'muc.joined').map(({ user, room }) => `${user} ${room}`),
  );

beforeAll(async () => {
  testBed = await ScriptedRooms.open({ ping_muc_refresh: 86_400 });
  testBed.webhooks.interceptor = accepting;
  fresh = await RecordingProxy.start(testBed.lab, testBed.lab.address(1), 8791, testBed.runtime.webhookUrl);
  const since = Date.now();
  for (let session = 0; session < SESSIONS; session += 1) {
    const user = await testBed.user('juliet', `phone-${session}`);
    juliet = user;
    for (let room = 0; room < ROOMS; room += 1)
      await user.enter(testBed.muc().room(`room-${room}`), `Juliet-${session}`);
  }
  await until('all joins are reported', () => new Set(keys(requests(since))).size === JOINS, 60_000);
});
afterEach(async () => {
  testBed.webhooks.interceptor = accepting;
  fresh.interceptor = accepting;
  await testBed.set({});
  await until(
    'nothing is sent any more',
    async () => {
      const before = testBed.webhooks.requests.length;
      await sleep(1500);
      return testBed.webhooks.requests.length === before;
    },
    40_000,
  );
});
afterAll(() => testBed.close());

/** Opens a stream to the rooms, and waits until a request with renewals only is in flight, or has been refused. */
async function renewing(): Promise<void> {
  await juliet.join(testBed.muc().room('visit'), 'visitor');
  await juliet.leave(testBed.muc().room('visit'), 'visitor');
  await sleep(1500);
  const since = Date.now();
  await testBed.set({ ping_muc_refresh: 1 });
  await until('joins are reported again', () => requests(since).some(({ events }) => events.length > FULL / 2), 20_000);
}

it('renewals are spread over their interval, each join once', async () => {
  const interval = 6;
  await testBed.set({ ping_muc_refresh: interval });
  await sleep(2500); // until the previous, longer interval has no effect any more
  const begin = Date.now();
  await sleep(interval * 1000 + 1200); // and one slice more: a renewal may be sent in the slice after it is due
  const end = Date.now();
  const sent = requests(begin).filter(({ at }) => at < end);
  const renewed = keys(sent);
  expect(new Set(renewed).size).toBe(JOINS);
  expect(renewed.length).toBeLessThan((1 + 2.2 / interval) * JOINS);
  for (let second = begin; second < end; second += 1000) {
    const share = keys(sent.filter(({ at }) => at >= second && at < second + 1000)).length;
    expect(share).toBeLessThan(2.2 * (JOINS / interval)); // two slices may be in one second, and none in the next
  }
});

describe('a close is sent before renewals', () => {
  it('that wait: it is in the next request', async () => {
    await renewing();
    testBed.webhooks.interceptor = { before: () => sleep(1000).then(accept) };
    await sleep(3000); // all of them wait by then
    const cut = testBed.dropOutgoing();
    const user = await testBed.user('romeo');
    const report = await until('the close is reported', () => requests(cut).find(closeIn), 20_000);
    const before = requests(cut).filter(({ at }) => at < report.at);
    expect(before.length).toBeLessThanOrEqual(1); // it was sent before the close
    expect(report.events.length).toBe(FULL); // filled up with renewals
    const entered = Date.now();
    await user.enter(testBed.muc().room('fresh'), 'Romeo');
    const joined = await until(
      'the join is reported',
      () => requests(entered).find(({ events }) => events.some(({ user: who }) => who === user.jid)),
      20_000,
    );
    expect(requests(entered).filter(({ at }) => at < joined.at).length).toBeLessThanOrEqual(1);
    await user.leaveServer();
  });

  it('whose retry is delayed: it is in the next request', async () => {
    const isRenewal = (body: string): boolean => (JSON.parse(body) as { events: unknown[] }).events.length > FULL / 2;
    testBed.webhooks.interceptor = {
      before: (body) => (isRenewal(body) ? new StubAnswer(429, { 'retry-after': '4' }) : accept()),
    };
    await renewing();
    const cut = testBed.dropOutgoing();
    const [first] = await until('the request is repeated', () =>
      requests(cut).length > 0 ? requests(cut) : undefined,
    );
    expect(first).toSatisfy(closeIn);
  });

  it('that the receiver does not answer: it is sent within seconds', async () => {
    const mayPass = (body: string): boolean =>
      body.includes('s2s.closed') || body.includes('visitor') || body.includes('muc.left');
    const { promise, resolve } = Promise.withResolvers<StubAnswer>();
    testBed.webhooks.interceptor = { before: (body) => (mayPass(body) ? accept() : promise) };
    await renewing();
    const cut = testBed.dropOutgoing();
    const { at } = await until('the close is reported', () => requests(cut).find(closeIn), 30_000);
    expect(at - cut).toBeLessThan(8000);
    resolve(accept()); // otherwise the sender repeats this request during a later test
  });
});

it('with a new address every join is reported once, as fast as possible; with the old one again, too', async () => {
  fresh.interceptor = accepting;
  const since = Date.now();
  await testBed.set({ ping_muc_webhook_url: fresh.url });
  await until('all joins are reported', () => new Set(keys(requestsOf(fresh, since))).size === JOINS, 40_000);
  expect(keys(requestsOf(fresh, since))).toHaveLength(JOINS);
  const back = Date.now();
  await testBed.set({});
  await until('all joins are reported', () => new Set(keys(requests(back))).size === JOINS, 40_000);
});

it('after a reload during these reports, the rest follows', async () => {
  fresh.interceptor = { before: () => sleep(500).then(accept) };
  const since = Date.now();
  await testBed.set({ ping_muc_webhook_url: fresh.url });
  await until('the first are sent', () => requestsOf(fresh, since).length > 0);
  await testBed.home.reloadModule();
  await until('all joins are reported', () => new Set(keys(requestsOf(fresh, since))).size === JOINS, 40_000);
});

it('after each 503 a batch is half as large, after each success it grows again, and nothing is lost', async () => {
  let count = 0;
  fresh.interceptor = { before: () => ((count += 1) <= 2 ? new StubAnswer(503, { 'retry-after': '1' }) : accept()) };
  const since = Date.now();
  await testBed.set({ ping_muc_webhook_url: fresh.url });
  await until('all joins are reported', () => new Set(keys(requestsOf(fresh, since).slice(2))).size === JOINS, 40_000);
  const sizes = requestsOf(fresh, since).map(({ events }) => events.length);
  expect(sizes.slice(0, 5)).toEqual([FULL, FULL / 2, FULL / 4, FULL / 2, FULL]);
});

it('staggered events: sixty requests at once, then one a second; no event waits for much longer', async () => {
  const seconds = 15;
  const begin = Date.now();
  const user = await testBed.user('romeo');
  let entered = 0;
  while (Date.now() < begin + seconds * 1000) {
    await user.enter(testBed.muc().room(`staggered-${(entered += 1)}`), 'Romeo');
    await sleep(40);
  }
  const isOwn = ({ type, user: who }: Reported): boolean => type === 'muc.joined' && who === user.jid;
  const within = requests(begin).filter(({ at }) => at < begin + seconds * 1000);
  await until(
    'all are reported',
    () => requests(begin).flatMap(({ events }) => events.filter(isOwn)).length >= entered,
  );
  const waits = requests(begin).flatMap(({ at, events }) => events.filter(isOwn).map((event) => at - event.at / 1000));
  expect(within.length).toBeLessThanOrEqual(60 + seconds + 1);
  expect(Math.max(...waits)).toBeLessThan(1500);
  await user.leaveServer();
});
