import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { control } from '../../lab/control.ts';
import { sleep } from '../../lab/lab.ts';
import { TwoServers } from '../../lab/two-servers.ts';
import type { User } from '../../lab/user.ts';

/** Rules 13 and 14 (docs/rules.md): an operator decides about held checks, and pauses all. */

/** A check looks once a minute whether it may continue. */
const TIME = 240_000;
const HELD = 'check held: it would notify more users than ping_muc_notice_limit';
let testBed: TwoServers;
let users: readonly User[];
const room = (n: number): string => testBed.room(`room-${n}`);

beforeAll(async () => {
  testBed = await TwoServers.open({ ping_muc_notice_limit: 1 });
  users = await Promise.all(['juliet', 'romeo', 'nurse'].map((name) => testBed.user(name)));
});
afterAll(() => testBed.close());

const run = (...words: readonly string[]): Promise<string> => control(testBed.runtime.data, ...words);
const notices = (n: number): number =>
  users
    .flatMap((user) => user.notices())
    .filter(({ stanza }) => (stanza.attrs as Record<string, string>)['from']?.startsWith(`${room(n)}/`)).length;

/** All three enter a room, and the chat server loses it. Returns when. */
async function loseAll(n: number): Promise<number> {
  for (const user of users) await testBed.join(user, room(n), user.jid.split('@')[0] ?? '');
  return testBed.restartChatServer();
}

const line = (message: string, since: number): Promise<Readonly<Record<string, unknown>>> =>
  testBed.runtime.line(message, (one) => Date.parse(String(one['time'])) >= since, TIME / 2);

describe('a check beyond the limit of notices', () => {
  it(
    'is held, is shown with its name, and notifies each user once when it is released',
    async () => {
      const at = await loseAll(1);
      const { checkId } = await line(HELD, at);
      expect(notices(1)).toBeLessThanOrEqual(1);
      const shown = await run('held');
      expect(shown).toContain(String(checkId));
      expect(shown).toMatch(/host +asks +held since +told so far +left of decided/);
      await expect(run('release', 'no-such-check')).rejects.toThrow(/No check named no-such-check waits/);
      expect(await run('release', String(checkId))).toContain(`${String(checkId)}: released`);
      await testBed.checkDone(at, testBed.muc, TIME / 2);
      expect(notices(1)).toBe(3);
      expect(await run('held')).toContain('No check is held.');
    },
    TIME,
  );
});

describe('a pause', () => {
  it(
    'stops checks until it is ended; a check that is then held and dropped notifies nobody else',
    async () => {
      expect(await run('pause', '--reason', 'a test')).toMatch(/^Checks are paused since .*: a test$/m);
      const at = await loseAll(2);
      await line('check paused by an operator', at);
      expect(await run('status')).toMatch(/^Checks are paused since/);
      await sleep(5000);
      const later = testBed.runtime.lines.filter((one) => Date.parse(String(one['time'])) >= at);
      expect(later.filter((one) => Number(one['PingsSent'] ?? 0) > 0)).toEqual([]);
      await run('resume');
      const { checkId } = await line(HELD, at);
      const told = notices(2);
      expect(told).toBeLessThanOrEqual(1);
      expect(await run('drop', String(checkId))).toContain('dropped');
      await line('check dropped', at);
      expect(notices(2)).toBe(told);
    },
    TIME,
  );
});
