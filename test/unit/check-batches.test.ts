import { describe, expect, it, vi } from 'vitest';
import { runCheck } from '../../functions/core/check.ts';
import type { Join } from '../../functions/core/events.ts';
import { NO_REENTRY, worldWith, notifiedOtherwise, settled } from './world-with.ts';
import { Crash, HOST, World } from './world.ts';

/** How a check reads, pings and writes many joins, and how it continues in the next invocation. */

vi.setConfig({ testTimeout: 60_000 }); // a second or two, on a machine that does nothing else

describe('a check reads joins in batches', () => {
  it('pings 2,300 joins once each: 246 in a request, 4 requests in flight, 16 re-entries besides', async () => {
    const { world, joins } = worldWith(2300);
    const lost = joins.filter((_, index) => index % 3 === 0);
    lost.forEach((join) => world.lose(join));
    const { state } = await world.check(world.close());
    expect(world.server.pings).toHaveLength(2300);
    expect(new Set(world.server.pings).size).toBe(2300);
    expect(world.most).toMatchObject({ stanzas: 246, requests: 4 });
    expect(world.most.pings).toBeGreaterThan(500);
    expect(world.most.pings).toBeLessThanOrEqual(1000 - 16);
    expect(world.most.writes).toBeGreaterThan(4);
    expect(world.most.writes).toBeLessThanOrEqual(4 * 16);
    expect(state.totals).toEqual({
      pinged: 2300,
      joined: 2300 - lost.length,
      proved: 0,
      left: lost.length,
      undecided: 0,
      gone: 0,
      stale: 0,
      notified: lost.length,
      ...NO_REENTRY,
    });
    expect(notifiedOtherwise(world, lost, 1)).toEqual([]);
    expect(world.server.notices).toHaveLength(lost.length);
  });

  it('holds at most a page of joins and those in flight, however many there are', async () => {
    const { world } = worldWith(6000);
    await world.check(world.close());
    expect(world.most.held).toBeGreaterThan(1000);
    expect(world.most.held).toBeLessThanOrEqual(1000 + 1000 + 250);
  });

  it('reads one page ahead of the pings, but only after the host has answered once', async () => {
    const { world } = worldWith(2500);
    const story: string[] = [];
    world.hook = ({ port, phase }) => void story.push(`${port} ${phase}`);
    await world.check(world.close());
    const nth = (what: string, n: number): number =>
      story.flatMap((step, index) => (step === what ? [index] : []))[n - 1] ?? NaN;
    expect(nth('readJoins before', 2)).toBeGreaterThan(nth('send after', 1));
    expect(nth('readJoins before', 2)).toBeLessThan(nth('send before', 2));
    expect(nth('readJoins before', 3)).toBeLessThan(nth('send after', 2 + 4));
  });

  it('reads one page if the host is out of reach, and reads nothing any more when it has failed', async () => {
    const { world } = worldWith(2500);
    let [begun, ended] = [0, 0];
    world.hook = ({ port, phase }) => {
      if (port === 'readJoins' && phase === 'before') begun += 1;
      if (port === 'readJoins' && phase === 'after') ended += 1;
      if (port === 'send' && phase === 'before' && world.server.link === 'up' && begun === 2) throw new Crash();
      return undefined;
    };
    world.server.link = 'remote-server-not-found';
    await runCheck(world.start(world.close({ patience: 5 })), world.ports());
    expect(begun).toBe(1);
    world.server.link = 'up';
    begun = ended = 0;
    await expect(runCheck(world.start(world.close()), world.ports())).rejects.toThrow(Crash);
    expect([begun, ended]).toEqual([2, 2]);
  });

  it('notifies all users at once even if the table is slow, but is at most 6,000 joins ahead of it', async () => {
    const { world, joins } = worldWith(12_000);
    joins.forEach((join) => world.lose(join));
    const slow = Promise.withResolvers<undefined>();
    world.hook = ({ port, phase }) => (port === 'deleteJoin' && phase === 'before' ? slow.promise : undefined);
    const check = world.check(world.close());
    await vi.waitUntil(() => world.server.notices.length > 1, { timeout: 20_000 });
    for (let count = -1; count < world.server.notices.length; await new Promise((resolve) => setTimeout(resolve, 300)))
      count = world.server.notices.length;
    // the first alone, twenty that wait or are being written, and one more for each of the four workers
    expect(world.server.notices.length).toBeGreaterThan(20 * 250);
    expect(world.server.notices.length).toBeLessThanOrEqual(1 + 24 * 250);
    slow.resolve(undefined);
    const { state } = await check;
    expect(state.totals).toMatchObject({ pinged: 12_000, left: 12_000, notified: 12_000 });
    expect(notifiedOtherwise(world, joins, 1)).toEqual([]);
    expect(world.most.writes).toBeLessThanOrEqual(4 * 16);
  });

  it('begins no more batches when a write has failed, and lets those in flight end', async () => {
    const { world, joins } = worldWith(12_000);
    joins.forEach((join) => world.lose(join));
    let [begun, inFlight] = [0, 0];
    world.hook = ({ port, phase }) => {
      if (port !== 'deleteJoin') return undefined;
      if (phase === 'after') inFlight -= 1;
      else if ((begun += 1) === 100) throw new Crash();
      else inFlight += 1;
      return undefined;
    };
    await expect(runCheck(world.start(world.close()), world.ports())).rejects.toThrow(Crash);
    expect(inFlight).toBe(0);
    // four batches, of which the one that failed ends as well, and those that begin until then
    expect(begun).toBeLessThanOrEqual(1 + 8 * 250);
    expect(world.server.notices.length).toBeLessThan(12_000);
  });

  it('sends the first ping alone, and the others when it is answered', async () => {
    const { world } = worldWith(5);
    const sizes: number[] = [];
    let flying = 0;
    world.hook = ({ port, phase, stanzas }) => {
      if (port !== 'send') return undefined;
      flying += phase === 'before' ? 1 : -1;
      if (phase === 'before') sizes.push(stanzas?.match(/<ping/g)?.length ?? 0);
      if (sizes.length === 1) expect(flying).toBeLessThanOrEqual(1);
      return undefined;
    };
    await world.check(world.close());
    expect(sizes).toEqual([1, 4]);
  });

  it.each(['remote-server-not-found', 'remote-server-timeout'] as const)(
    'sends one ping if it gets %s, and notifies all users at once',
    async (link) => {
      const { world, joins } = worldWith(1200);
      world.server.link = link;
      const { state } = await world.check(world.close());
      expect(world.server.pings).toHaveLength(1);
      expect(state.totals).toEqual({
        pinged: 1,
        joined: 0,
        proved: 0,
        left: 0,
        undecided: 1200,
        gone: 0,
        stale: 0,
        notified: 1200,
        ...NO_REENTRY,
      });
      expect(notifiedOtherwise(world, joins, 1)).toEqual([]);
    },
  );

  it('continues after a first room that is silent while its host is not', async () => {
    const { world, joins } = worldWith(300);
    world.server.room(joins[0]?.room ?? '').script = (_kind, user) => (user === joins[0]?.user ? 'silence' : undefined);
    const { state } = await world.check(world.close());
    expect(state.totals).toMatchObject({ pinged: 300, joined: 299, undecided: 1, notified: 1 });
  });

  it('continues if only one ping of a batch is answered with an out-of-reach error', async () => {
    const { world, joins } = worldWith(1300);
    const lost = { type: 'wait', condition: 'remote-server-timeout', by: HOST };
    world.server.room(joins[0]?.room ?? '').script = (_kind, user) => (user === joins[10]?.user ? lost : undefined);
    const { state } = await world.check(world.close());
    expect(state.totals).toMatchObject({ pinged: 1300, joined: 1299, undecided: 1, notified: 1 });
  });

  it('stops asking a host that goes out of reach in between', async () => {
    const { world } = worldWith(6000);
    world.hook = ({ phase }) => {
      if (phase === 'after' && world.server.pings.length > 1000) world.server.link = 'remote-server-timeout';
      return undefined;
    };
    const { state } = await world.check(world.close());
    expect(world.server.pings.length).toBeLessThan(3100);
    expect(settled(state.totals)).toBe(6000);
    expect(state.totals.undecided).toBe(state.totals.notified);
    expect(state.totals.joined).toBeGreaterThanOrEqual(1000);
  });

  it('leaves a cursor when the time of an invocation runs out, and continues after it', async () => {
    const { world, joins } = worldWith(3000);
    joins.filter((_, index) => index % 5 === 0).forEach((join) => world.lose(join));
    world.limit = 241_000; // what must be left is 240 s: two time-outs and two minutes
    world.latency = 400;
    const { state, pages } = await world.check(world.close());
    expect(pages).toBeGreaterThan(1);
    expect(state).not.toHaveProperty('cursor');
    expect(new Set(world.server.pings).size).toBe(3000);
    expect(world.server.pings).toHaveLength(3000);
    expect(state.totals).toEqual({
      pinged: 3000,
      joined: 2400,
      proved: 0,
      left: 600,
      undecided: 0,
      gone: 0,
      stale: 0,
      notified: 600,
      ...NO_REENTRY,
    });
  });

  it('checks at least one join in each invocation, however little time there is', async () => {
    const { world, joins } = worldWith(4);
    world.lose(joins[2] as Join);
    world.limit = 1000;
    const { state, invocations } = await world.check(world.close());
    expect(invocations).toBe(4);
    expect(state.totals).toMatchObject({ pinged: 4, joined: 3, notified: 1 });
  });

  it('continues in the order of the bytes of the keys, not of UTF-16', async () => {
    const world = new World();
    const letters = ['a', 'Z', 'é', '｡', '🦊', '\u{10ffff}'];
    for (const letter of letters) world.join('user', `room${letter}`);
    world.limit = 1000;
    const { state } = await world.check(world.close());
    expect(state.totals).toMatchObject({ pinged: 6, joined: 6 });
  });

  it('uses the same order for the joins that were not asked, after the host was out of reach', async () => {
    const world = new World();
    for (const letter of ['｡', '🦊']) world.join('user', `room${letter}`);
    world.server.link = 'remote-server-timeout';
    world.onWait = () => void (world.server.link = 'up');
    const { state } = await world.check(world.close({ patience: 60 }));
    expect(state.totals).toMatchObject({ pinged: 3, joined: 2, notified: 0 });
  });
});
