import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { runCheck } from '../../functions/core/check.ts';
import type { CheckRequest, Join } from '../../functions/core/events.ts';
import { worldWith, notifiedOtherwise, settled } from './world-with.ts';
import { Crash, REMOTE, World } from './world.ts';

/** Rule 5 (docs/rules.md): no user is notified twice, or overlooked, whatever happens to the check. */

vi.setConfig({ testTimeout: 60_000 }); // a second or two, on a machine that does nothing else

describe('each lost user is notified once', () => {
  const situations = ['kept', 'lost', 'renamed', 'ended', 'rejoined', 'silent'] as const;
  type Situation = (typeof situations)[number];
  interface Scene {
    readonly joins: readonly (readonly [room: string, situation: Situation])[];
    readonly destroyed: readonly string[];
    readonly link: World['server']['link'];
    readonly patience: number;
  }
  const scenes = fc.record<Scene>({
    joins: fc.array(fc.tuple(fc.constantFrom('r1', 'r2', 'r3'), fc.constantFrom(...situations)), {
      minLength: 1,
      maxLength: 8,
    }),
    destroyed: fc.subarray(['r3']),
    link: fc.constantFrom('up', 'up', 'up', 'remote-server-not-found', 'remote-server-timeout'),
    patience: fc.constantFrom(0, 0, 20),
  });

  function play(scene: Scene): { world: World; close: CheckRequest; notified: string[]; kept: string[] } {
    const world = new World();
    const notified: string[] = [];
    const kept: string[] = [];
    const silent = new Set<string>();
    scene.joins.forEach(([room, situation], index) => {
      const join = world.join(`user${index}`, room);
      const silences = (_kind: unknown, user: string): 'silence' | undefined =>
        silent.has(user) ? 'silence' : undefined;
      world.server.room(join.room).script = silences;
      const out =
        situation === 'lost' || situation === 'silent' || scene.destroyed.includes(room) || scene.link !== 'up';
      if (situation === 'lost') world.lose(join);
      if (situation === 'silent') silent.add(join.user);
      if (situation === 'renamed') world.server.room(join.room).occupants.set(join.user, 'renamed');
      if (situation === 'ended') world.server.sessions.delete(join.user);
      if (situation === 'rejoined')
        world.server.joins.set(`${join.room} ${join.user}`, { nick: 'nick', at: world.nextAt() });
      (out && situation !== 'ended' && situation !== 'rejoined' ? notified : kept).push(`${join.room} ${join.user}`);
    });
    for (const room of scene.destroyed) world.server.room(`${room}@${REMOTE}`).exists = false;
    world.server.link = scene.link;
    return { world, close: world.close({ patience: scene.patience }), notified, kept };
  }

  const notices = (world: World): string[] => world.server.notices.map(({ room, user }) => `${room} ${user}`).sort();

  it('and no other user, and the totals add up', async () => {
    await fc.assert(
      fc.asyncProperty(scenes, async (scene) => {
        const { world, close, notified } = play(scene);
        const { state } = await world.check(close);
        expect(notices(world)).toEqual(notified.sort());
        expect(state.totals.notified).toBe(notified.length);
        expect(settled(state.totals)).toBe(scene.joins.length);
        expect(state.totals.pinged).toBeGreaterThanOrEqual(1);
      }),
      { numRuns: 200 },
    );
  });

  it('even if the check dies at any call of any port, before or after its effect, and runs again', async () => {
    await fc.assert(
      fc.asyncProperty(scenes, async (scene) => {
        const whole = play(scene);
        await whole.world.check(whole.close);
        for (let n = 1; n <= whole.world.calls; n += 1) {
          for (const phase of ['before', 'after'] as const) {
            const { world, close, notified } = play(scene);
            let died = false;
            world.hook = (call) => {
              if (died || call.n !== n || call.phase !== phase) return undefined;
              died = true;
              throw new Crash(`${call.port} ${phase}`);
            };
            await world.check(close);
            expect(died).toBe(true);
            expect(notices(world), `died ${phase} call ${n}`).toEqual(notified.sort());
          }
        }
      }),
      { numRuns: 25 },
    );
  });

  it('even if a check of many batches dies several times', async () => {
    for (let n = 1; n < 300; n += 59) {
      const { world, joins } = worldWith(1200);
      const lost = joins.filter((_, index) => index % 2 === 1).map((join) => world.lose(join));
      world.hook = (call) => {
        if (call.n % 300 === n && call.phase === 'after') throw new Crash();
        return undefined;
      };
      await world.check(world.close());
      expect(world.server.notices).toHaveLength(lost.length);
      expect(notifiedOtherwise(world, lost, 1)).toEqual([]);
    }
  });

  it('when one batch fails, no other begins, and those in flight end', async () => {
    const { world } = worldWith(5000);
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

  it('by one of two checks of the same hosts that run at the same time', async () => {
    const { world, joins } = worldWith(900);
    const lost = joins.filter((_, index) => index % 2 === 0).map((join) => world.lose(join));
    const [one, other] = [world.close(), world.close()];
    // neither has begun when the other does
    world.table.closes.clear();
    const runs = await Promise.all([world.check(one), world.check(other)]);
    expect(notifiedOtherwise(world, lost, 1)).toEqual([]);
    expect(world.server.notices).toHaveLength(lost.length);
    const notified = runs.map(({ state }) => state.totals.notified);
    expect(notified.reduce((sum, count) => sum + count)).toBe(lost.length);
  });

  it('but not if the user rejoins between ping and notice', async () => {
    const { world, joins } = worldWith(3);
    const [back, lost] = joins as [Join, Join];
    world.lose(back);
    world.lose(lost);
    let rejoined: Join | undefined;
    world.hook = ({ phase, stanzas }) => {
      if (phase === 'before' && stanzas?.includes('<presence')) rejoined ??= world.join('user000000', 'room');
      return undefined;
    };
    const { state } = await world.check(world.close());
    expect(world.noticesTo(back)).toBe(0);
    expect(world.noticesTo(lost)).toBe(1);
    expect(state.totals).toMatchObject({ left: 1, stale: 1, joined: 1, notified: 1 });
    expect([...world.table.rows.values()].map(({ at }) => at)).toContain(rejoined?.at);
  });

  it('and is not asked about again after rejoining during patience', async () => {
    const {
      world,
      joins: [join],
    } = worldWith(1);
    world.server.link = 'remote-server-timeout';
    world.onWait = ({ round }) => {
      if (round !== 2) return;
      world.server.link = 'up';
      world.join('user000000', 'room');
    };
    const { state } = await world.check(world.close({ patience: 300 }));
    expect(world.noticesTo(join as Join)).toBe(0);
    expect(state.totals).toMatchObject({ pinged: 2, notified: 0 });
  });

  it('even if the join is renewed or reported again during patience', async () => {
    const { world, joins } = worldWith(3);
    const [join] = joins as [Join];
    world.server.room(join.room).script = (_kind, user) => (user === join.user ? 'silence' : undefined);
    world.onWait = () => world.table.record({ type: 'muc.joined', ...join });
    await world.check(world.close({ patience: 60 }));
    expect(world.noticesTo(join)).toBe(1);
  });
});
