import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { runCheck } from '../../functions/core/check.ts';
import { type CheckState, type Totals } from '../../functions/core/check-state.ts';
import { isNewerToDecide, isSuperseded, waitSeconds } from '../../functions/core/supersession.ts';
import type { Close, Join } from '../../functions/core/events.ts';
import { BEGINNING, Crash, HOST, REMOTE, type Run, World } from './world.ts';

vi.setConfig({ testTimeout: 60_000 }); // a second or two, on a machine that does nothing else

const users = (count: number): string[] =>
  Array.from({ length: count }, (_, index) => `user${String(index).padStart(6, '0')}`);

/** A world in which so many users are in one room. */
function crowd(count: number, room = 'room'): { world: World; joins: Join[] } {
  const world = new World();
  return { world, joins: users(count).map((user) => world.join(user, room)) };
}

const settled = ({ joined, left, undecided, gone, stale }: Totals): number => joined + left + undecided + gone + stale;

/** What the totals of a check say in which nobody re-enters. */
const NO_REENTRY = { reentered: 0, gaps: 0, refused: 0 };

/** Who was told more or less often than this. */
const toldOtherwise = (world: World, joins: readonly Join[], times: number): Join[] =>
  joins.filter((join) => world.told(join) !== times);

describe('a check', () => {
  it('tells those whom the room does not know, and nobody else', async () => {
    const { world, joins } = crowd(6);
    const lost = joins.filter((_, index) => index % 2 === 0).map((join) => world.lose(join));
    const { state } = await world.check(world.close());
    expect(world.server.notices.map(({ user }) => user).sort()).toEqual(lost.map(({ user }) => user));
    expect(state.totals).toEqual({
      pinged: 6,
      joined: 3,
      proved: 0,
      left: 3,
      undecided: 0,
      gone: 0,
      stale: 0,
      notified: 3,
      ...NO_REENTRY,
    });
  });

  it('names the join in its notice and hands on what the room said', async () => {
    const {
      world,
      joins: [join],
    } = crowd(1);
    world.server.room(join?.room ?? '').script = () => ({
      type: 'auth',
      condition: 'forbidden',
      text: 'Banned for <spam> & "worse"',
    });
    await world.check(world.close());
    expect(world.server.notices).toEqual([
      { user: join?.user, room: join?.room, nick: 'nick', at: join?.at, reason: 'Banned for <spam> & "worse"' },
    ]);
  });

  it('gives its own reason where the local server answered, whose text is not for users', async () => {
    const {
      world,
      joins: [join],
    } = crowd(1);
    world.server.room(join?.room ?? '').script = () => ({
      type: 'wait',
      condition: 'remote-server-timeout',
      by: HOST,
      text: 'socket 7 closed',
    });
    await world.check(world.close());
    expect(world.server.notices.map(({ reason }) => reason)).toEqual(['Connection to remote server lost']);
  });

  it('deletes the rows of those who are told, gone or stale, and keeps those of the joined', async () => {
    const { world, joins } = crowd(4);
    const [joined, left, gone, stale] = joins as [Join, Join, Join, Join];
    world.lose(left);
    world.server.sessions.delete(gone.user);
    world.server.joins.set(`${stale.room} ${stale.user}`, { nick: 'nick', at: world.nextAt() });
    const { state } = await world.check(world.close());
    expect([...world.table.rows.values()].map(({ user }) => user)).toEqual([joined.user]);
    expect(state.totals).toEqual({
      pinged: 4,
      joined: 1,
      proved: 0,
      left: 1,
      undecided: 0,
      gone: 1,
      stale: 1,
      notified: 1,
      ...NO_REENTRY,
    });
  });

  it('asks nobody who joined after the close: that was over a new connection', async () => {
    const world = new World();
    const before = world.join('before', 'room');
    const close = world.close();
    const after = world.join('after', 'room');
    world.lose(before);
    world.lose(after);
    expect((await world.check(close)).state.totals).toMatchObject({ pinged: 1, notified: 1 });
    expect(world.told(after)).toBe(0);
  });

  it('sends nothing where nobody is in a room of the host', async () => {
    const world = new World();
    const { state } = await world.check(world.close());
    expect(state).toMatchObject({ next: 'done', totals: { pinged: 0, notified: 0 } });
    expect(world.most.requests).toBe(0);
  });

  it('in a dry run does everything but tell, counts it, and leaves the rows as they are', async () => {
    const { world, joins } = crowd(5);
    joins.slice(1, 4).forEach((join) => world.lose(join));
    world.server.room(joins[0]?.room ?? '').script = (_kind, user) => (user === joins[0]?.user ? 'silence' : undefined);
    const { state } = await world.check(world.close({ dryRun: true }));
    expect(state.totals).toEqual({
      pinged: 5,
      joined: 1,
      proved: 0,
      left: 3,
      undecided: 1,
      gone: 0,
      stale: 0,
      notified: 4,
      ...NO_REENTRY,
    });
    expect(world.server.notices).toEqual([]);
    expect(world.table.rows.size).toBe(5);
  });

  it('finds at the notice that the session has ended: gone, and not counted as told', async () => {
    const {
      world,
      joins: [join],
    } = crowd(1);
    world.lose(join as Join);
    world.hook = ({ stanzas, phase }) => {
      if (phase === 'before' && stanzas?.includes('<presence')) world.server.sessions.clear();
      return undefined;
    };
    const { state } = await world.check(world.close());
    expect(state.totals).toMatchObject({ left: 0, gone: 1, notified: 0 });
    expect(world.table.rows.size).toBe(0);
  });
});

describe('pages and batches', () => {
  it('ask 2,300 joins, each once, at most 246 in a request, 4 requests in flight, and room for 16 re-entries among the 1,000 stanzas', async () => {
    const { world, joins } = crowd(2300);
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
    expect(toldOtherwise(world, lost, 1)).toEqual([]);
    expect(world.server.notices).toHaveLength(lost.length);
  });

  it('hold no more than a page and what is in flight, however many joins there are', async () => {
    const { world } = crowd(6000);
    await world.check(world.close());
    expect(world.most.held).toBeGreaterThan(1000);
    expect(world.most.held).toBeLessThanOrEqual(1000 + 1000 + 250);
  });

  it('are read ahead of the pings by a page, but not before the host has answered once', async () => {
    const { world } = crowd(2500);
    const story: string[] = [];
    world.hook = ({ port, phase }) => void story.push(`${port} ${phase}`);
    await world.check(world.close());
    const nth = (what: string, n: number): number =>
      story.flatMap((step, index) => (step === what ? [index] : []))[n - 1] ?? NaN;
    expect(nth('readJoins before', 2)).toBeGreaterThan(nth('send after', 1));
    expect(nth('readJoins before', 2)).toBeLessThan(nth('send before', 2));
    expect(nth('readJoins before', 3)).toBeLessThan(nth('send after', 2 + 4));
  });

  it('are one where the host is out of reach, and none is being read any more when the check has failed', async () => {
    const { world } = crowd(2500);
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

  it('tell everyone of a host at once, however slow the table, but get no further ahead of it than 6,000 joins', async () => {
    const { world, joins } = crowd(12_000);
    joins.forEach((join) => world.lose(join));
    const slow = Promise.withResolvers<undefined>();
    world.hook = ({ port, phase }) => (port === 'deleteJoin' && phase === 'before' ? slow.promise : undefined);
    const check = world.check(world.close());
    await vi.waitUntil(() => world.server.notices.length > 1, { timeout: 20_000 });
    for (let told = -1; told < world.server.notices.length; await new Promise((resolve) => setTimeout(resolve, 300)))
      told = world.server.notices.length;
    // the first alone, twenty that wait or are being written, and one more of each of the four that ping
    expect(world.server.notices.length).toBeGreaterThan(20 * 250);
    expect(world.server.notices.length).toBeLessThanOrEqual(1 + 24 * 250);
    slow.resolve(undefined);
    const { state } = await check;
    expect(state.totals).toMatchObject({ pinged: 12_000, left: 12_000, notified: 12_000 });
    expect(toldOtherwise(world, joins, 1)).toEqual([]);
    expect(world.most.writes).toBeLessThanOrEqual(4 * 16);
  });

  it('when a write fails, no more batches are begun, and what is in flight comes to its end', async () => {
    const { world, joins } = crowd(12_000);
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
    // four batches, of which the one that failed comes to its end as well, and those that begin until it has
    expect(begun).toBeLessThanOrEqual(1 + 8 * 250);
    expect(world.server.notices.length).toBeLessThan(12_000);
  });

  it('send the first ping alone, and the others only once it has come back', async () => {
    const { world } = crowd(5);
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
    'send one ping to a host that is %s, and tell everyone at once',
    async (link) => {
      const { world, joins } = crowd(1200);
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
      expect(toldOtherwise(world, joins, 1)).toEqual([]);
    },
  );

  it('go on after a first room that is silent while its host is not', async () => {
    const { world, joins } = crowd(300);
    world.server.room(joins[0]?.room ?? '').script = (_kind, user) => (user === joins[0]?.user ? 'silence' : undefined);
    const { state } = await world.check(world.close());
    expect(state.totals).toMatchObject({ pinged: 300, joined: 299, undecided: 1, notified: 1 });
  });

  it('go on where one ping of a batch says that the host is out of reach, and the others do not', async () => {
    const { world, joins } = crowd(1300);
    const lost = { type: 'wait', condition: 'remote-server-timeout', by: HOST };
    world.server.room(joins[0]?.room ?? '').script = (_kind, user) => (user === joins[10]?.user ? lost : undefined);
    const { state } = await world.check(world.close());
    expect(state.totals).toMatchObject({ pinged: 1300, joined: 1299, undecided: 1, notified: 1 });
  });

  it('stop asking a host that goes out of reach in the middle', async () => {
    const { world } = crowd(6000);
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

  it('leave a cursor when the time of an invocation runs out, and go on behind it', async () => {
    const { world, joins } = crowd(3000);
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

  it('deal with one join at least in every invocation, however little time there is', async () => {
    const { world, joins } = crowd(4);
    world.lose(joins[2] as Join);
    world.limit = 1000;
    const { state, invocations } = await world.check(world.close());
    expect(invocations).toBe(4);
    expect(state.totals).toMatchObject({ pinged: 4, joined: 3, notified: 1 });
  });

  it('go by the bytes of the keys, in which an astral letter comes after any other', async () => {
    const world = new World();
    const letters = ['a', 'Z', 'é', '｡', '🦊', '\u{10ffff}'];
    for (const letter of letters) world.join('user', `room${letter}`);
    world.limit = 1000;
    const { state } = await world.check(world.close());
    expect(state.totals).toMatchObject({ pinged: 6, joined: 6 });
  });

  it('go by them too where a host was out of reach after the first', async () => {
    const world = new World();
    for (const letter of ['｡', '🦊']) world.join('user', `room${letter}`);
    world.server.link = 'remote-server-timeout';
    world.onWait = () => void (world.server.link = 'up');
    const { state } = await world.check(world.close({ patience: 60 }));
    expect(state.totals).toMatchObject({ pinged: 3, joined: 2, notified: 0 });
  });
});

describe('a room that says item-not-found', () => {
  it('is asked once, however many occupants and batches', async () => {
    const { world, joins } = crowd(1500);
    const others = users(3).map((user) => world.join(user, 'another'));
    world.server.room(joins[0]?.room ?? '').exists = false;
    const { state } = await world.check(world.close());
    expect(world.server.queries).toEqual([joins[0]?.room]);
    expect(state.totals).toMatchObject({ pinged: 1503, left: 1500, joined: 3, notified: 1500 });
    expect(toldOtherwise(world, others, 0)).toEqual([]);
  });

  it('but is there after all has changed the nick: nobody is told', async () => {
    const { world, joins } = crowd(400);
    for (const { room, user } of joins) world.server.room(room).occupants.set(user, 'renamed');
    const { state } = await world.check(world.close());
    expect(world.server.queries).toHaveLength(1);
    expect(state.totals).toMatchObject({ joined: 400, left: 0, notified: 0 });
  });

  it('is asked through another occupant when the first one has ended meanwhile', async () => {
    const { world, joins } = crowd(5);
    const [, second] = joins as [Join, Join];
    world.server.room(second.room).script = (kind, user) => {
      if (kind === 'disco') return undefined;
      if (user === second.user) world.server.sessions.delete(user);
      return { type: 'cancel', condition: user === joins[0]?.user ? 'not-acceptable' : 'item-not-found' };
    };
    const { state } = await world.check(world.close());
    expect(state.totals).toMatchObject({ left: 1, joined: 4, notified: 1 });
  });

  it('is asked by a later batch where nobody of an earlier one could', async () => {
    const { world, joins } = crowd(3);
    const [first, second, third] = joins as [Join, Join, Join];
    world.server.room(first.room).script = (kind, user) => {
      if (user === first.user) world.server.sessions.delete(user);
      return kind === 'ping' ? { type: 'cancel', condition: 'item-not-found' } : undefined;
    };
    await world.check(world.close());
    expect([world.told(first), world.told(second), world.told(third)]).toEqual([0, 0, 0]);
  });

  it('and that does not answer leaves its occupants undecided', async () => {
    const {
      world,
      joins: [join],
    } = crowd(1);
    world.server.room(join?.room ?? '').script = (kind) =>
      kind === 'ping' ? { type: 'cancel', condition: 'item-not-found' } : 'silence';
    expect((await world.check(world.close())).state.totals).toMatchObject({ undecided: 1, notified: 1 });
  });

  it('is not guessed at when more rooms are unsure than are remembered', async () => {
    const world = new World();
    for (let room = 10_000; room < 20_300; room += 1) {
      for (const user of ['one', 'two']) {
        const join = world.join(user, `room${room}`);
        world.server.room(join.room).occupants.set(join.user, 'renamed');
      }
    }
    const { state } = await world.check(world.close());
    expect(state.totals).toMatchObject({ joined: 20_600, undecided: 0, notified: 0 });
    expect(world.server.queries.length).toBeLessThan(10_300 + 20);
  });

  it('and cannot be asked fails the invocation as any other request does, even while another room is waited for', async () => {
    const world = new World();
    world.join('user', 'a'); // alone
    for (const user of users(300)) world.join(user, 'b'); // 250 in the second batch, 50 in the third
    world.join('user', 'c'); // in the third
    for (const room of ['b', 'c']) world.server.room(`${room}@${REMOTE}`).exists = false;
    let release: (() => void) | undefined;
    world.hook = ({ phase, stanzas }) => {
      if (phase === 'after' || !stanzas?.includes('disco#info')) return undefined;
      if (stanzas.includes('to="b@')) return new Promise((resolve) => (release = resolve));
      setTimeout(() => release?.(), 5);
      throw new Crash();
    };
    const unheard: unknown[] = [];
    const listen = (reason: unknown): unknown => unheard.push(reason);
    process.on('unhandledRejection', listen);
    await expect(runCheck(world.start(world.close()), world.ports())).rejects.toThrow(Crash);
    process.off('unhandledRejection', listen);
    expect(unheard).toEqual([]);
  });
});

describe('patience', () => {
  /** A world whose room is silent to everyone but those named. */
  function silent(count: number, ...answering: number[]): { world: World; joins: Join[] } {
    const scene = crowd(count);
    const named = new Set(answering.map((index) => scene.joins[index]?.user));
    scene.world.server.room(scene.joins[0]?.room ?? '').script = (_kind, user) =>
      named.has(user) ? undefined : 'silence';
    return scene;
  }

  it('of 0 tells at once those who cannot be confirmed', async () => {
    const { world } = silent(3, 1);
    const { state, waits } = await world.check(world.close());
    expect(waits).toEqual([]);
    expect(state.totals).toMatchObject({ pinged: 3, joined: 1, undecided: 2, notified: 2 });
  });

  it('asks the undecided again, and only them, with doubling waits, and tells them when it ends', async () => {
    const { world, joins } = silent(3, 1);
    const { state, waits } = await world.check(world.close({ patience: 1000, timeout: 1 }));
    expect(waits.slice(0, 5)).toEqual([5, 10, 20, 40, 60]);
    expect(Math.max(...waits)).toBe(60);
    expect(world.server.pings.filter((ping) => ping.endsWith(joins[1]?.user ?? ''))).toHaveLength(1);
    expect(state.totals).toEqual({
      pinged: 1 + 2 * (waits.length + 1),
      joined: 1,
      proved: 0,
      left: 0,
      undecided: 2,
      gone: 0,
      stale: 0,
      notified: 2,
      ...NO_REENTRY,
    });
    const spent = waits.reduce((sum, wait) => sum + wait, 0);
    expect(spent).toBeGreaterThan(900);
    expect(spent).toBeLessThanOrEqual(1001);
  });

  it('tells nobody before its end', async () => {
    const { world } = silent(2);
    const close = world.close({ patience: 100, timeout: 1 });
    const toldAt: number[] = [];
    world.hook = ({ stanzas, phase }) => {
      if (phase === 'before' && stanzas?.includes('<presence')) toldAt.push(world.now - close.at / 1000 - 60_000);
      return undefined;
    };
    await world.check(close);
    expect(toldAt).toHaveLength(2);
    expect(Math.min(...toldAt)).toBeGreaterThanOrEqual(100_000);
    expect(Math.max(...toldAt)).toBeLessThan(105_000);
  });

  it('asks soon after the host has come back, and tells then whom it no longer knows', async () => {
    const { world, joins } = crowd(600);
    const lost = joins.filter((_, index) => index % 4 === 0).map((join) => world.lose(join));
    world.server.link = 'remote-server-not-found';
    const close = world.close({ patience: 3600 });
    world.onWait = ({ round }) => {
      if (round === 3) world.server.link = 'up';
    };
    const { state, waits } = await world.check(close);
    expect(waits).toEqual([5, 10, 20]);
    expect(state.totals).toEqual({
      pinged: 3 + 600,
      joined: 450,
      proved: 0,
      left: 150,
      undecided: 0,
      gone: 0,
      stale: 0,
      notified: 150,
      ...NO_REENTRY,
    });
    expect(toldOtherwise(world, lost, 1)).toEqual([]);
    expect(world.server.notices).toHaveLength(150);
  });

  it('costs no mark while a host of many is out of reach, as all of them are known by a key', async () => {
    const { world } = crowd(2000);
    world.server.link = 'remote-server-timeout';
    let marks = 0;
    world.hook = ({ port, phase }) => {
      if (port === 'markUndecided' && phase === 'before') marks += 1;
      return undefined;
    };
    const state = await runCheck(world.start(world.close({ patience: 600 })), world.ports());
    expect(state).toMatchObject({ next: 'wait', wait: 5, round: 1, open: 0, unaskedAfter: '' });
    expect(marks).toBe(0);
    expect(world.server.pings).toHaveLength(1);
  });

  it('asks everyone who is open when a host goes out of reach in the middle of a later round', async () => {
    const { world, joins } = crowd(3000);
    const lost = joins.filter((_, index) => index % 2 === 0).map((join) => world.lose(join));
    world.server.link = 'remote-server-timeout';
    let comesAndGoes = 0;
    world.onWait = ({ round }) => {
      world.server.link = round % 2 === 1 ? 'up' : 'remote-server-timeout';
      comesAndGoes = world.server.pings.length;
    };
    world.hook = ({ phase }) => {
      // up for some 1,200 pings at a time
      if (phase === 'before' && world.server.pings.length - comesAndGoes > 1200)
        world.server.link = 'remote-server-timeout';
      return undefined;
    };
    const { state } = await world.check(world.close({ patience: 86_400 }));
    expect(state.totals).toMatchObject({ joined: 1500, left: 1500, undecided: 0, notified: 1500 });
    expect(toldOtherwise(world, lost, 1)).toEqual([]);
  });

  it('tells all of a host that never comes back, once, when it ends', async () => {
    const { world, joins } = crowd(700);
    world.server.link = 'remote-server-not-found';
    const { state } = await world.check(world.close({ patience: 300 }));
    expect(state.totals).toMatchObject({ undecided: 700, notified: 700 });
    expect(toldOtherwise(world, joins, 1)).toEqual([]);
  });

  it('takes the mark away from a join that turns out to be there', async () => {
    const {
      world,
      joins: [join],
    } = silent(1);
    world.onWait = () => {
      expect([...world.table.rows.values()]).toEqual([expect.objectContaining({ undecidedBy: close.at })]);
      delete world.server.room(join?.room ?? '').script;
    };
    const close = world.close({ patience: 60 });
    const { state } = await world.check(close);
    expect(state.totals).toMatchObject({ pinged: 2, joined: 1, notified: 0 });
    expect([...world.table.rows.values()][0]).not.toHaveProperty('undecidedBy');
  });

  it('is not lost in paging: who was left open on an early page is asked and told like any other', async () => {
    const { world, joins } = crowd(1500);
    const silent = new Set(joins.filter((_, index) => index < 700 && index % 50 === 7).map(({ user }) => user));
    world.server.room(joins[0]?.room ?? '').script = (_kind, user) => (silent.has(user) ? 'silence' : undefined);
    world.limit = 241_000;
    world.latency = 400;
    const { state, pages, waits } = await world.check(world.close({ patience: 300 }));
    expect(pages).toBeGreaterThan(1);
    expect(waits.length).toBeGreaterThan(1);
    expect(state.totals).toMatchObject({ joined: 1486, undecided: 14, notified: 14 });
    expect(world.server.notices.map(({ user }) => user).sort()).toEqual([...silent].sort());
  });

  it('asks nobody again whose place is known, though the host was out of reach in between', async () => {
    const { world, joins } = crowd(3000);
    const room = world.server.room(joins[0]?.room ?? '');
    room.script = (_kind, user) => (user === joins[10]?.user ? 'silence' : undefined);
    world.hook = ({ phase }) => {
      if (phase === 'before' && world.server.pings.length > 1200) world.server.link = 'remote-server-timeout';
      return undefined;
    };
    world.onWait = ({ round }) => {
      if (round !== 2) return; // the first due in round 1 is refused
      world.hook = undefined;
      delete room.script;
      world.server.link = 'up';
    };
    const { state } = await world.check(world.close({ patience: 3600 }));
    expect(state.totals).toMatchObject({ joined: 3000, undecided: 0, notified: 0 });
    expect(state.round).toBe(2);
  });

  it('leaves to another check whom that one left undecided', async () => {
    const { world, joins } = silent(3, 1);
    world.onWait = () => {
      const row = [...world.table.rows.values()].find(({ user }) => user === joins[1]?.user);
      if (row) world.table.markUndecided(row, 12345);
    };
    await world.check(world.close({ patience: 30 }));
    expect(world.server.pings.filter((ping) => ping.endsWith(joins[1]?.user ?? ''))).toHaveLength(1);
  });
});

describe('once', () => {
  const fates = ['kept', 'lost', 'renamed', 'ended', 'rejoined', 'silent'] as const;
  type Fate = (typeof fates)[number];
  interface Scene {
    readonly joins: readonly (readonly [room: string, fate: Fate])[];
    readonly destroyed: readonly string[];
    readonly link: World['server']['link'];
    readonly patience: number;
  }
  const scenes = fc.record<Scene>({
    joins: fc.array(fc.tuple(fc.constantFrom('r1', 'r2', 'r3'), fc.constantFrom(...fates)), {
      minLength: 1,
      maxLength: 8,
    }),
    destroyed: fc.subarray(['r3']),
    link: fc.constantFrom('up', 'up', 'up', 'remote-server-not-found', 'remote-server-timeout'),
    patience: fc.constantFrom(0, 0, 20),
  });

  function play(scene: Scene): { world: World; close: Close; told: string[]; kept: string[] } {
    const world = new World();
    const told: string[] = [];
    const kept: string[] = [];
    const silent = new Set<string>();
    scene.joins.forEach(([room, fate], index) => {
      const join = world.join(`user${index}`, room);
      const silences = (_kind: unknown, user: string): 'silence' | undefined =>
        silent.has(user) ? 'silence' : undefined;
      world.server.room(join.room).script = silences;
      const out = fate === 'lost' || fate === 'silent' || scene.destroyed.includes(room) || scene.link !== 'up';
      if (fate === 'lost') world.lose(join);
      if (fate === 'silent') silent.add(join.user);
      if (fate === 'renamed') world.server.room(join.room).occupants.set(join.user, 'renamed');
      if (fate === 'ended') world.server.sessions.delete(join.user);
      if (fate === 'rejoined')
        world.server.joins.set(`${join.room} ${join.user}`, { nick: 'nick', at: world.nextAt() });
      (out && fate !== 'ended' && fate !== 'rejoined' ? told : kept).push(`${join.room} ${join.user}`);
    });
    for (const room of scene.destroyed) world.server.room(`${room}@${REMOTE}`).exists = false;
    world.server.link = scene.link;
    return { world, close: world.close({ patience: scene.patience }), told, kept };
  }

  const notices = (world: World): string[] => world.server.notices.map(({ room, user }) => `${room} ${user}`).sort();

  it('every lost user is told once and no other, and the totals add up', async () => {
    await fc.assert(
      fc.asyncProperty(scenes, async (scene) => {
        const { world, close, told } = play(scene);
        const { state } = await world.check(close);
        expect(notices(world)).toEqual(told.sort());
        expect(state.totals.notified).toBe(told.length);
        expect(settled(state.totals)).toBe(scene.joins.length);
        expect(state.totals.pinged).toBeGreaterThanOrEqual(1);
      }),
      { numRuns: 200 },
    );
  });

  it('also when the check dies at any call of any port, before or after its effect, and is run again', async () => {
    await fc.assert(
      fc.asyncProperty(scenes, async (scene) => {
        const whole = play(scene);
        await whole.world.check(whole.close);
        for (let n = 1; n <= whole.world.calls; n += 1) {
          for (const phase of ['before', 'after'] as const) {
            const { world, close, told } = play(scene);
            let died = false;
            world.hook = (call) => {
              if (died || call.n !== n || call.phase !== phase) return undefined;
              died = true;
              throw new Crash(`${call.port} ${phase}`);
            };
            await world.check(close);
            expect(died).toBe(true);
            expect(notices(world), `died ${phase} call ${n}`).toEqual(told.sort());
          }
        }
      }),
      { numRuns: 25 },
    );
  });

  it('also when a check of many batches dies here and there', async () => {
    for (let n = 1; n < 300; n += 59) {
      const { world, joins } = crowd(1200);
      const lost = joins.filter((_, index) => index % 2 === 1).map((join) => world.lose(join));
      world.hook = (call) => {
        if (call.n % 300 === n && call.phase === 'after') throw new Crash();
        return undefined;
      };
      await world.check(world.close());
      expect(world.server.notices).toHaveLength(lost.length);
      expect(toldOtherwise(world, lost, 1)).toEqual([]);
    }
  });

  it('when one batch fails, nothing more is begun, and what is in flight comes to its end', async () => {
    const { world } = crowd(5000);
    let begun = 0;
    let inFlight = 0;
    world.hook = ({ port, phase }) => {
      if (port !== 'send') return undefined;
      if (phase === 'after') inFlight -= 1;
      else if ((begun += 1) === 5) throw new Crash();
      else inFlight += 1;
      return undefined;
    };
    await expect(runCheck(world.start(world.close()), world.ports())).rejects.toThrow(Crash);
    expect(inFlight).toBe(0);
    expect(begun).toBeLessThanOrEqual(5 + 3);
  });

  it('two checks of one pair at the same time: each lost user is told by one of them', async () => {
    const { world, joins } = crowd(900);
    const lost = joins.filter((_, index) => index % 2 === 0).map((join) => world.lose(join));
    const [one, other] = [world.close(), world.close()];
    // neither has begun when the other does
    world.table.closes.clear();
    const runs = await Promise.all([world.check(one), world.check(other)]);
    expect(toldOtherwise(world, lost, 1)).toEqual([]);
    expect(world.server.notices).toHaveLength(lost.length);
    const notified = runs.map(({ state }) => state.totals.notified);
    expect(notified.reduce((sum, count) => sum + count)).toBe(lost.length);
  });

  it('whoever rejoins between ping and notice is not told', async () => {
    const { world, joins } = crowd(3);
    const [back, lost] = joins as [Join, Join];
    world.lose(back);
    world.lose(lost);
    let rejoined: Join | undefined;
    world.hook = ({ phase, stanzas }) => {
      if (phase === 'before' && stanzas?.includes('<presence')) rejoined ??= world.join('user000000', 'room');
      return undefined;
    };
    const { state } = await world.check(world.close());
    expect(world.told(back)).toBe(0);
    expect(world.told(lost)).toBe(1);
    expect(state.totals).toMatchObject({ left: 1, stale: 1, joined: 1, notified: 1 });
    expect([...world.table.rows.values()].map(({ at }) => at)).toContain(rejoined?.at);
  });

  it('whoever rejoins during patience is not asked about again', async () => {
    const {
      world,
      joins: [join],
    } = crowd(1);
    world.server.link = 'remote-server-timeout';
    world.onWait = ({ round }) => {
      if (round !== 2) return;
      world.server.link = 'up';
      world.join('user000000', 'room');
    };
    const { state } = await world.check(world.close({ patience: 300 }));
    expect(world.told(join as Join)).toBe(0);
    expect(state.totals).toMatchObject({ pinged: 2, notified: 0 });
  });

  it('a renewal of a join, or its report once more, does not make a patient check overlook it', async () => {
    const { world, joins } = crowd(3);
    const [join] = joins as [Join];
    world.server.room(join.room).script = (_kind, user) => (user === join.user ? 'silence' : undefined);
    world.onWait = () => world.table.record({ type: 'muc.joined', ...join });
    await world.check(world.close({ patience: 60 }));
    expect(world.told(join)).toBe(1);
  });
});

describe('a link that breaks again', () => {
  const closes = { 'as the table has it': true, 'as the server says, whose report is on its way': false } as const;

  /** All pings come back as if the link had broken again, and so it has, or is about to be reported. */
  function broken(world: World, isReported: boolean): () => Close {
    let second: Close | undefined;
    world.hook = ({ port, phase }) => {
      if (port !== 'send' || phase !== 'before' || second !== undefined) return undefined;
      const at = world.nextAt();
      world.server.link = 'remote-server-timeout';
      world.server.closed = at;
      second = isReported
        ? world.close({ at })
        : {
            host: HOST,
            remote: REMOTE,
            at,
            delay: 60,
            timeout: 60,
            patience: 0,
            dryRun: false,
            reenter: false,
            cause: 'close',
          };
      return undefined;
    };
    return () => second as Close;
  }

  it.each(Object.entries(closes))(
    'while everyone is asked, without patience: nobody is told before the newer check (%s)',
    async (_how, isReported) => {
      const { world, joins } = crowd(1200);
      const lost = joins.filter((_, index) => index % 2 === 0).map((join) => world.lose(join));
      const second = broken(world, isReported);
      const { state } = await world.check(world.close());
      expect(state).toMatchObject({ next: 'done', superseded: true, totals: { undecided: 0, notified: 0 } });
      expect(world.server.notices).toEqual([]);
      expect(world.table.rows.size).toBe(1200);
      world.hook = undefined;
      world.server.link = 'up';
      if (!isReported) world.table.recordClose(second());
      const newer = await world.check(second());
      expect(newer.state.totals).toMatchObject({ pinged: 1200, joined: 600, left: 600, notified: 600 });
      expect(toldOtherwise(world, lost, 1)).toEqual([]);
    },
  );

  it('in the last round of a patient check, too: with the default settings, that one begins after five delays', async () => {
    const {
      world,
      joins: [join],
    } = crowd(1);
    world.server.room((join as Join).room).script = () => 'silence';
    const first = world.close({ patience: 300 });
    let second: Close | undefined;
    world.hook = ({ port, phase }) => {
      if (port !== 'send' || phase !== 'before' || second !== undefined || world.now < first.at / 1000 + 360_000)
        return undefined;
      second = world.close({ patience: 300 });
      return undefined;
    };
    expect((await world.check(first)).state).toMatchObject({ superseded: true, totals: { notified: 0 } });
    expect(world.told(join as Join)).toBe(0);
    world.hook = undefined;
    expect((await world.check(second as unknown as Close)).state.totals).toMatchObject({ undecided: 1, notified: 1 });
  });

  it('an older check never overwrites the mark of a newer one, so that neither leaves a user to the other', async () => {
    const {
      world,
      joins: [join],
    } = crowd(1);
    const row = (): number | undefined => [...world.table.rows.values()][0]?.undecidedBy;
    world.server.room((join as Join).room).script = () => 'silence';
    const first = world.close({ patience: 600 });
    const older = await runCheck(world.start(first), world.ports());
    const second = world.close({ patience: 600 });
    const newer = await runCheck(world.start(second), world.ports());
    expect(row()).toBe(second.at);
    await runCheck(older, world.ports());
    expect(row()).toBe(second.at);
    expect((await world.check(second, newer)).state.totals).toMatchObject({ undecided: 1, notified: 1 });
  });

  it('what a check has passed on to one that had begun does not count against closes of another day', () => {
    const { world } = crowd(3);
    const first = world.close();
    const second = world.close();
    world.table.claimClose(second, world.table.readClose(second) ?? { at: 0, delay: 0 }, second.at);
    world.table.passOn(first, first.at);
    world.now += 86_400_000;
    const third = world.close();
    expect(world.table.readClose(third)?.since).toBe(third.at);
  });

  it('a check that runs again counts the five delays from where it did before', async () => {
    const {
      world,
      joins: [join],
    } = crowd(1);
    const first = world.close();
    world.now += 100_000;
    const second = world.close();
    let crashes = 0;
    world.hook = ({ port, phase }) => {
      if (port === 'send' && phase === 'before' && (crashes += 1) === 1) throw new Crash();
      return undefined;
    };
    world.server.room((join as Join).room).script = () => 'silence';
    const state = world.start(second);
    await expect(runCheck(state, world.ports())).rejects.toThrow(Crash);
    expect((await runCheck(state, world.ports())).oldest).toBe(first.at);
  });

  it('those whose room has answered are told all the same, at once', async () => {
    const { world, joins } = crowd(3);
    const [lost, kept, silent] = joins as [Join, Join, Join];
    world.lose(lost);
    world.server.room(lost.room).script = (_kind, user) => (user === silent.user ? 'broken' : undefined);
    world.server.closed = world.nextAt() + 5;
    const { state } = await world.check(world.close({ at: world.nextAt() }));
    expect(state).toMatchObject({ superseded: true, totals: { joined: 1, left: 1, undecided: 0, notified: 1 } });
    expect([lost, kept, silent].map((join) => world.told(join))).toEqual([1, 0, 0]);
  });

  it('five times in a row, each time while everyone is asked: nobody is told wrongly, without patience', async () => {
    const { world, joins } = crowd(600);
    const lost = joins.filter((_, index) => index % 2 === 0).map((join) => world.lose(join));
    let close = world.close({ delay: 5, timeout: 5 });
    for (let again = 0; again < 4; again += 1) {
      let next: Close | undefined;
      world.hook = ({ port, phase }) => {
        if (port !== 'send' || phase !== 'before' || next !== undefined) return undefined;
        world.now += 300;
        world.server.link = 'remote-server-timeout';
        next = world.close({ delay: 5, timeout: 5 });
        return undefined;
      };
      expect((await world.check(close)).state.superseded).toBe(true);
      close = next as unknown as Close;
      world.server.link = 'up';
    }
    world.hook = undefined;
    expect((await world.check(close)).state.totals).toMatchObject({ joined: 300, left: 300, notified: 300 });
    expect(toldOtherwise(world, lost, 1)).toEqual([]);
    expect(world.server.notices).toHaveLength(300);
  });

  it('again and again for ever: who cannot be confirmed is told after five delays all the same', async () => {
    const {
      world,
      joins: [join],
    } = crowd(1);
    let close = world.close();
    let checks = 0;
    for (; world.told(join as Join) === 0 && checks < 20; checks += 1) {
      let next: Close | undefined;
      world.hook = ({ port, phase }) => {
        if (port !== 'send' || phase !== 'before' || next !== undefined) return undefined;
        world.server.link = 'remote-server-timeout';
        next = world.close();
        return undefined;
      };
      await world.check(close);
      close = next as unknown as Close;
    }
    expect(world.told(join as Join)).toBe(1);
    expect(checks).toBe(6); // the closes of five delays, and the one after
  });

  it('and in the end no newer close comes: the undecided are told by this check, when patience is over', async () => {
    const {
      world,
      joins: [join],
    } = crowd(1);
    world.server.link = 'remote-server-timeout';
    const close = world.close({ patience: 30 });
    world.server.closed = close.at; // its own
    expect((await world.check(close)).state.totals).toMatchObject({ undecided: 1, notified: 1 });
    expect(world.told(join as Join)).toBe(1);
  });

  it('a ping that was lost with its stream is asked again after patience, for two time-outs at most', async () => {
    const {
      world,
      joins: [join],
    } = crowd(1);
    const room = world.server.room((join as Join).room);
    room.script = () => 'broken';
    const { waits, state } = await world.check(world.close({ timeout: 20 }));
    expect(waits.length).toBeGreaterThan(0);
    expect(waits.reduce((sum, wait) => sum + wait, 0)).toBeLessThanOrEqual(60);
    expect(state.totals).toMatchObject({ undecided: 1, notified: 1 });
    const other = crowd(1);
    other.world.server.room((join as Join).room).script = () => 'broken';
    other.world.onWait = () => delete other.world.server.room((join as Join).room).script;
    expect((await other.world.check(other.world.close({ timeout: 20 }))).state.totals).toMatchObject({
      joined: 1,
      notified: 0,
    });
  });
});

describe('out of reach', () => {
  it('is what the local server says, and nobody else: four rooms behind a service of which one has a dead back end', async () => {
    const world = new World();
    const joins = ['a', 'b', 'c', 'd'].map((room) => world.join('user', room));
    world.server.room((joins[0] as Join).room).script = () => ({
      type: 'cancel',
      condition: 'remote-server-not-found',
      by: REMOTE,
    });
    const { state } = await world.check(world.close());
    expect(state.totals).toMatchObject({ pinged: 4, joined: 3, undecided: 1, notified: 1 });
    expect(joins.map((join) => world.told(join))).toEqual([1, 0, 0, 0]);
  });

  it('takes more than one silent room, where nothing comes from its host, as nobody else was asked', async () => {
    const world = new World();
    const joins = ['a', 'b', 'c'].map((room) => world.join('user', room));
    world.server.room((joins[0] as Join).room).script = () => 'host silence';
    await world.check(world.close());
    expect(joins.map((join) => world.told(join))).toEqual([1, 0, 0]);
  });

  it('is a host that was silent to a batch: nothing more is sent in this round, and all are asked when it is back', async () => {
    const { world, joins } = crowd(2000);
    const [join] = joins as [Join];
    world.server.room(join.room).script = () => 'host silence';
    world.onWait = () => delete world.server.room(join.room).script;
    const { state } = await world.check(world.close({ patience: 300 }));
    expect(state.totals).toMatchObject({ joined: 2000, notified: 0 });
    expect(state.totals.pinged).toBeLessThan(2000 + 1 + 4 * 250 + 1);
  });
});

describe('someone who is just now joining again', () => {
  it('is not told, and is asked about again; the row stays until the room has answered', async () => {
    const {
      world,
      joins: [join],
    } = crowd(1);
    const { room, user } = world.lose(join as Join);
    world.server.rejoining.add(`${room} ${user}`);
    world.onWait = () => world.server.rejoining.clear();
    const { state, waits } = await world.check(world.close());
    expect(waits).toHaveLength(1);
    expect(state.totals).toMatchObject({ left: 1, stale: 0, notified: 1 });
    expect(world.told(join as Join)).toBe(1);
  });

  it('for ever, as its client tries again and again: the check ends after two time-outs, and leaves the row to the next', async () => {
    const {
      world,
      joins: [join],
    } = crowd(1);
    const { room, user } = world.lose(join as Join);
    world.server.rejoining.add(`${room} ${user}`);
    const { state, waits } = await world.check(world.close({ timeout: 20 }));
    expect(waits.reduce((sum, wait) => sum + wait, 0)).toBeLessThanOrEqual(100);
    expect(state.totals).toMatchObject({ left: 0, stale: 1, notified: 0 });
    expect([...world.table.rows.values()].map((row) => [row.user, row.undecidedBy])).toEqual([[user, undefined]]);
  });
});

describe('an execution of the release before', () => {
  it('goes on, and counts from what it had', async () => {
    const { world, joins } = crowd(600);
    world.limit = 1000;
    const half = await runCheck(world.start(world.close()), world.ports());
    expect(half.next).toBe('page');
    const {
      version: _version,
      oldest: _oldest,
      totals: { proved: _proved, ...totals },
      ...rest
    } = half;
    const { state } = await world.check(half, { ...rest, totals } as unknown as CheckState);
    expect(state.totals).toMatchObject({ pinged: 600, joined: 600, proved: 0 });
    expect(toldOtherwise(world, joins, 0)).toEqual([]);
  });

  it('that knows no re-entry goes on, with notices', async () => {
    const { world, joins } = crowd(600);
    joins.forEach((join) => world.lose(join));
    world.limit = 1000;
    const half = await runCheck(world.start(world.close()), world.ports());
    const {
      reenter: _reenter,
      cause: _cause,
      totals: { reentered: _reentered, gaps: _gaps, refused: _refused, ...totals },
      ...rest
    } = half;
    const { state } = await world.check(half, { ...rest, version: 2, totals } as unknown as CheckState);
    expect(state).toMatchObject({ version: 3, reenter: false, cause: 'close' });
    expect(state.totals).toMatchObject({ pinged: 600, left: 600, notified: 600, ...NO_REENTRY });
    expect(toldOtherwise(world, joins, 1)).toEqual([]);
  });

  it('of a release after this one it says so', async () => {
    const { world } = crowd(1);
    await expect(runCheck({ ...world.start(world.close()), version: 99 }, world.ports())).rejects.toThrow(
      /version 99.*deploy the newer release again/,
    );
  });
});

describe('waitSeconds', () => {
  const close: Close = {
    host: HOST,
    remote: REMOTE,
    at: BEGINNING * 1e6,
    delay: 60,
    timeout: 60,
    patience: 0,
    dryRun: false,
    reenter: false,
    cause: 'close',
  };

  it.each([
    ['a report of the same second waits the whole delay', BEGINNING, 60],
    ['a report that came late waits the rest', BEGINNING + 45, 15],
    ['a report that came after the delay does not wait', BEGINNING + 61, 0],
    ['a report of hours ago does not wait', BEGINNING + 86_400, 0],
    ['a timestamp before the close, as it is cut to seconds, waits no more than the delay', BEGINNING - 1, 60],
  ])('%s', (_what, sent, seconds) => {
    expect(waitSeconds(close, sent)).toBe(seconds);
  });

  it('is never less than what is left, and whole', () => {
    const moments = fc.integer({ min: 0, max: 999_999 });
    fc.assert(
      fc.property(
        moments,
        fc.integer({ min: 0, max: 70 }),
        fc.integer({ min: 1, max: 86_400 }),
        (micros, later, delay) => {
          const wait = waitSeconds({ ...close, at: close.at + micros, delay }, BEGINNING + later);
          expect(Number.isInteger(wait)).toBe(true);
          expect(wait).toBeGreaterThanOrEqual(0);
          expect(wait).toBeLessThanOrEqual(delay);
          const left = delay - (later - micros / 1e6);
          expect(wait).toBeGreaterThanOrEqual(Math.min(delay, left) - 1e-6);
          expect(wait).toBeLessThan(Math.max(left, 0) + 1);
        },
      ),
    );
  });
});

describe('isSuperseded', () => {
  const T = BEGINNING * 1e6;
  const second = 1e6;
  const close = (at: number, delay = 60): Close => ({
    host: HOST,
    remote: REMOTE,
    at,
    delay,
    timeout: 60,
    patience: 0,
    dryRun: false,
    reenter: false,
    cause: 'close',
  });

  it.each([
    ['the only close', T, { at: T, delay: 60, since: T }, false],
    ['a newer close whose check comes in time', T, { at: T + 10 * second, delay: 60, since: T }, true],
    [
      'a newer close whose check comes five delays after the oldest',
      T,
      { at: T + 240 * second, delay: 60, since: T },
      true,
    ],
    ['a newer close whose check comes later than that', T, { at: T + 240 * second + 1, delay: 60, since: T }, false],
    [
      'an older close is unanswered still: the bound is from there',
      T,
      { at: T + 200 * second, delay: 60, since: T - 100 * second },
      false,
    ],
    [
      'a report that came too late to be the oldest on record: the bound is from its own close',
      T,
      { at: T + 250 * second, delay: 60, since: T + 100 * second },
      false,
    ],
    [
      'its own check that began, and now runs again',
      T,
      { at: T + 10 * second, delay: 60, since: T, checked: T },
      false,
    ],
    [
      'a newer check that has begun, whatever has come since',
      T,
      { at: T + 900 * second, delay: 60, since: T + 10 * second, checked: T + 10 * second },
      true,
    ],
    ['an older check that has begun', T, { at: T, delay: 60, checked: T - 50 * second }, false],
    ['the delay has been shortened meanwhile', T, { at: T + 200 * second, delay: 10, since: T }, false],
  ] as const)('%s', (_what, at, record, superseded) => {
    expect(isSuperseded(close(at), record)).toBe(superseded);
  });

  it.each([
    ['no newer close', T, T, false],
    ['a newer close', T, T + second, true],
    ['one at five delays after the oldest', T, T + 300 * second, true],
    ['one after that', T, T + 300 * second + 1, false],
    ['five delays are counted from the oldest close that is unanswered', T - 100 * second, T + 201 * second, false],
  ] as const)("once it has begun, what it cannot decide is a newer close's: %s", (_what, oldest, newest, isNewer) => {
    expect(isNewerToDecide({ ...close(T), oldest }, newest)).toBe(isNewer);
  });

  it('a check that finds no record runs: better twice than never', async () => {
    const {
      world,
      joins: [join],
    } = crowd(1);
    world.lose(join as Join);
    const last = world.close();
    world.table.closes.clear();
    expect((await world.check(last)).state.totals.notified).toBe(1);
  });

  it('a superseded check does nothing at all', async () => {
    const {
      world,
      joins: [join],
    } = crowd(1);
    world.lose(join as Join);
    const [older, newer] = [world.close(), world.close()];
    const { state } = await world.check(older);
    expect(state).toMatchObject({ next: 'done', superseded: true, totals: { pinged: 0, notified: 0 } });
    expect(world.most.requests).toBe(0);
    expect((await world.check(newer)).state.totals.notified).toBe(1);
  });

  it('a check that has pinged already is not stopped by a newer close', async () => {
    const { world } = crowd(3);
    world.limit = 1000;
    const first = world.close();
    const state = await runCheck(world.start(first), world.ports());
    expect(state.next).toBe('page');
    const second = world.close();
    expect((await world.check(second)).state.totals.pinged).toBe(3);
    expect((await world.check(first, state)).state).toMatchObject({ totals: { pinged: 3, joined: 3 } });
  });

  it('one that waits for the undecided leaves them to a newer close, whose check tells them once', async () => {
    const {
      world,
      joins: [join],
    } = crowd(1);
    world.server.link = 'remote-server-timeout';
    const first = world.close({ patience: 30 });
    let second: Close | undefined;
    world.onWait = ({ round }) => {
      if (round === 1) second = world.close();
    };
    expect((await world.check(first)).state).toMatchObject({
      next: 'done',
      superseded: true,
      totals: { undecided: 0, notified: 0 },
    });
    expect(world.told(join as Join)).toBe(0);
    expect((await world.check(second as Close)).state).toMatchObject({
      next: 'done',
      totals: { undecided: 1, notified: 1 },
    });
    expect(world.told(join as Join)).toBe(1);
  });

  it('a close that comes between reading and claiming is seen', async () => {
    const { world } = crowd(1);
    const first = world.close();
    world.hook = ({ port, phase, n }) => {
      if (port === 'readClose' && phase === 'after' && n === 1) world.close();
      return undefined;
    };
    expect((await world.check(first)).state.superseded).toBe(true);
  });

  it('closes that come faster than they can be read do not stop the check', async () => {
    const { world } = crowd(1);
    const first = world.close({ delay: 1 });
    world.now += 10_000;
    world.hook = ({ port, phase }) => {
      if (port === 'readClose' && phase === 'after') world.close({ delay: 1 });
      return undefined;
    };
    expect((await world.check(first)).state.totals.joined).toBe(1);
  });

  /** Plays closes after gaps (in seconds), each with its check after the delay, and returns when which check ran. */
  async function flap(
    gaps: readonly number[],
    delay: number,
    lateness: readonly number[],
  ): Promise<{ closes: Close[]; runs: { at: number; close: Close; totals: Totals }[] }> {
    const world = new World();
    const closes: Close[] = [];
    const agenda: { at: number; act: () => Promise<void> }[] = [];
    const runs: { at: number; close: Close; totals: Totals }[] = [];
    let moment = BEGINNING;
    gaps.forEach((gap, index) => {
      moment += gap;
      const at = moment;
      agenda.push({
        at,
        act: async () => {
          world.now = at * 1000;
          world.join(`user${index}`, 'room'); // joined before this close
          const made = world.close({ delay });
          closes.push(made);
          const due = made.at / 1e6 + delay + (lateness[index % lateness.length] ?? 0);
          agenda.push({
            at: due,
            act: async () => {
              world.now = due * 1000;
              const { state } = await world.check(made);
              if (!state.superseded) runs.push({ at: due, close: made, totals: state.totals });
            },
          });
          await Promise.resolve();
        },
      });
    });
    while (agenda.length > 0) {
      agenda.sort((one, other) => one.at - other.at);
      await agenda.shift()?.act();
    }
    return { closes, runs };
  }

  it('never keeps anyone waiting for more than five delays, however the link flaps', async () => {
    const delay = 10;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.double({ min: 0.2, max: 15, noNaN: true }), { minLength: 1, maxLength: 60 }),
        async (gaps) => {
          const { closes, runs } = await flap(gaps, delay, [0]);
          for (const one of closes) {
            const answer = runs.find(({ close }) => close.at >= one.at);
            expect(answer, 'a check of this close or a newer one').toBeDefined();
            expect((answer?.at ?? Infinity) - one.at / 1e6).toBeLessThanOrEqual(5 * delay + 0.001);
          }
          expect(runs.at(-1)?.close).toBe(closes.at(-1));
          expect(runs.at(-1)?.totals.joined).toBe(closes.length);
        },
      ),
      // the second to last: two closes in one delay, of which the first check begins to answer only one
      { numRuns: 150, examples: [[[1, 9, 9, 9, 4.1, 0.9, 9, 9, 9, 9, 9, 4]]] },
    );
  });

  it('nor when the checks themselves are late, but for that', async () => {
    const delay = 10;
    const late = 7;
    const gap = fc.double({ min: 0.2, max: 15, noNaN: true });
    const lateness = fc.array(fc.double({ min: 0, max: late, noNaN: true }), { minLength: 1, maxLength: 10 });
    await fc.assert(
      fc.asyncProperty(fc.array(gap, { minLength: 1, maxLength: 40 }), lateness, async (gaps, lates) => {
        const { closes, runs } = await flap(gaps, delay, lates);
        for (const one of closes) {
          const answer = runs.filter(({ close }) => close.at >= one.at).map(({ at }) => at);
          expect(Math.min(...answer) - one.at / 1e6).toBeLessThanOrEqual(5 * delay + late + 0.001);
        }
      }),
      { numRuns: 100 },
    );
  });

  it('lets one check do the work of many: a link that flaps for an hour is checked now and then', async () => {
    const { runs } = await flap(
      Array.from({ length: 720 }, () => 5),
      60,
      [0],
    );
    expect(runs.length).toBeGreaterThanOrEqual(3600 / 300);
    expect(runs.length).toBeLessThanOrEqual(3600 / 180);
  });
});

describe('the state of an execution', () => {
  it('tells the next invocation all that it needs, and travels as JSON', async () => {
    const { world } = crowd(3);
    world.limit = 1000;
    const close = world.close({ patience: 5 });
    const state: CheckState = await runCheck(world.start(close), world.ports());
    expect(JSON.parse(JSON.stringify(state))).toEqual(state);
    expect(state).toMatchObject({
      ...close,
      next: 'page',
      cursor: expect.stringContaining('#user000000@') as string,
      round: 0,
      open: 0,
    });
    const run: Run = await world.check(close, state);
    expect(run.state).toMatchObject({ id: state.id, next: 'done', totals: { joined: 3 } });
  });
});
