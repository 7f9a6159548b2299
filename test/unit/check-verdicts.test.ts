import { describe, expect, it, vi } from 'vitest';
import { runCheck } from '../../functions/core/check.ts';
import type { Join } from '../../functions/core/events.ts';
import { NO_REENTRY, worldWith, notifiedOtherwise, users } from './world-with.ts';
import { Crash, HOST, REMOTE, World } from './world.ts';

/** Rules 4, 6, 8 and 9 (docs/rules.md): whom a check asks about, what it concludes, and what it sends and deletes. */

vi.setConfig({ testTimeout: 60_000 }); // a second or two, on a machine that does nothing else

describe('a check', () => {
  it('notifies the users whom the room does not know, and no others', async () => {
    const { world, joins } = worldWith(6);
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

  it('names the join in its notice, and passes on the text of the room', async () => {
    const {
      world,
      joins: [join],
    } = worldWith(1);
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

  it('gives its own reason if the local server answered, whose text is not for users', async () => {
    const {
      world,
      joins: [join],
    } = worldWith(1);
    world.server.room(join?.room ?? '').script = () => ({
      type: 'wait',
      condition: 'remote-server-timeout',
      by: HOST,
      text: 'socket 7 closed',
    });
    await world.check(world.close());
    expect(world.server.notices.map(({ reason }) => reason)).toEqual(['Connection to remote server lost']);
  });

  it('deletes the rows of users who are notified, gone or stale, and keeps those of the joined', async () => {
    const { world, joins } = worldWith(4);
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

  it('does not ask about joins made after the close: they were made over a new connection', async () => {
    const world = new World();
    const before = world.join('before', 'room');
    const close = world.close();
    const after = world.join('after', 'room');
    world.lose(before);
    world.lose(after);
    expect((await world.check(close)).state.totals).toMatchObject({ pinged: 1, notified: 1 });
    expect(world.noticesTo(after)).toBe(0);
  });

  it('sends nothing if no user is in a room of the host', async () => {
    const world = new World();
    const { state } = await world.check(world.close());
    expect(state).toMatchObject({ next: 'done', totals: { pinged: 0, notified: 0 } });
    expect(world.most.requests).toBe(0);
  });

  it('in a dry run counts the notices instead of sending them, and keeps the rows', async () => {
    const { world, joins } = worldWith(5);
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

  it('counts a session as gone, and not as notified, if it ended before the notice', async () => {
    const {
      world,
      joins: [join],
    } = worldWith(1);
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

describe('a room that says item-not-found', () => {
  it('is asked once, however many occupants and batches there are', async () => {
    const { world, joins } = worldWith(1500);
    const others = users(3).map((user) => world.join(user, 'another'));
    world.server.room(joins[0]?.room ?? '').exists = false;
    const { state } = await world.check(world.close());
    expect(world.server.queries).toEqual([joins[0]?.room]);
    expect(state.totals).toMatchObject({ pinged: 1503, left: 1500, joined: 3, notified: 1500 });
    expect(notifiedOtherwise(world, others, 0)).toEqual([]);
  });

  it('and exists nevertheless has changed the nick: no user is notified', async () => {
    const { world, joins } = worldWith(400);
    for (const { room, user } of joins) world.server.room(room).occupants.set(user, 'renamed');
    const { state } = await world.check(world.close());
    expect(world.server.queries).toHaveLength(1);
    expect(state.totals).toMatchObject({ joined: 400, left: 0, notified: 0 });
  });

  it('is asked through another occupant if the first one has ended', async () => {
    const { world, joins } = worldWith(5);
    const [, second] = joins as [Join, Join];
    world.server.room(second.room).script = (kind, user) => {
      if (kind === 'disco') return undefined;
      if (user === second.user) world.server.sessions.delete(user);
      return { type: 'cancel', condition: user === joins[0]?.user ? 'not-acceptable' : 'item-not-found' };
    };
    const { state } = await world.check(world.close());
    expect(state.totals).toMatchObject({ left: 1, joined: 4, notified: 1 });
  });

  it('is asked by a later batch if no session of an earlier one could ask', async () => {
    const { world, joins } = worldWith(3);
    const [first, second, third] = joins as [Join, Join, Join];
    world.server.room(first.room).script = (kind, user) => {
      if (user === first.user) world.server.sessions.delete(user);
      return kind === 'ping' ? { type: 'cancel', condition: 'item-not-found' } : undefined;
    };
    await world.check(world.close());
    expect([world.noticesTo(first), world.noticesTo(second), world.noticesTo(third)]).toEqual([0, 0, 0]);
  });

  it('and does not answer the question leaves its occupants undecided', async () => {
    const {
      world,
      joins: [join],
    } = worldWith(1);
    world.server.room(join?.room ?? '').script = (kind) =>
      kind === 'ping' ? { type: 'cancel', condition: 'item-not-found' } : 'silence';
    expect((await world.check(world.close())).state.totals).toMatchObject({ undecided: 1, notified: 1 });
  });

  it('is asked, not guessed, even if more rooms are unsure than are remembered', async () => {
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

  it('and cannot be asked makes the invocation fail, even while another room is being asked', async () => {
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

describe('a host is out of reach', () => {
  it('only if the local server says so, not a service whose back end for one room is down', async () => {
    const world = new World();
    const joins = ['a', 'b', 'c', 'd'].map((room) => world.join('user', room));
    world.server.room((joins[0] as Join).room).script = () => ({
      type: 'cancel',
      condition: 'remote-server-not-found',
      by: REMOTE,
    });
    const { state } = await world.check(world.close());
    expect(state.totals).toMatchObject({ pinged: 4, joined: 3, undecided: 1, notified: 1 });
    expect(joins.map((join) => world.noticesTo(join))).toEqual([1, 0, 0, 0]);
  });

  it('not because one room was silent, if no other room was asked', async () => {
    const world = new World();
    const joins = ['a', 'b', 'c'].map((room) => world.join('user', room));
    world.server.room((joins[0] as Join).room).script = () => 'host silence';
    await world.check(world.close());
    expect(joins.map((join) => world.noticesTo(join))).toEqual([1, 0, 0]);
  });

  it('if it was silent to a batch: nothing more is sent in this round, and all are asked when it is back', async () => {
    const { world, joins } = worldWith(2000);
    const [join] = joins as [Join];
    world.server.room(join.room).script = () => 'host silence';
    world.onWait = () => delete world.server.room(join.room).script;
    const { state } = await world.check(world.close({ patience: 300 }));
    expect(state.totals).toMatchObject({ joined: 2000, notified: 0 });
    expect(state.totals.pinged).toBeLessThan(2000 + 1 + 4 * 250 + 1);
  });
});
