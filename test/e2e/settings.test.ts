import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { until } from '../../lab/lab.ts';
import { Prosody } from '../../lab/prosody.ts';
import { ScriptedRooms } from '../../lab/scripted-rooms.ts';
import type { User } from '../../lab/user.ts';

/** What happens when the settings, or the code, of a running module change. */
const OURS = fileURLToPath(new URL('../../prosody', import.meta.url));
const DELAY = 1;
let testBed: ScriptedRooms;
/** This folder comes before our own, so that its modules take precedence. */
let plugins: string;
let juliet: User;
let room: string;
let rooms = 0;

beforeAll(async () => {
  plugins = await mkdtemp(join(tmpdir(), 'ping-muc-plugins-'));
  testBed = await ScriptedRooms.open({ ping_muc_delay: DELAY, plugin_paths: [plugins, OURS] }, 2);
});
afterAll(async () => {
  await testBed.close();
  await rm(plugins, { recursive: true, force: true });
});

beforeEach(async () => {
  rooms += 1;
  room = testBed.muc().room(`room-${rooms}`);
  juliet = await testBed.user('juliet');
  await testBed.join(juliet, room, 'Juliet');
});
afterEach(async () => {
  testBed.webhooks.interceptor = {};
  await juliet.leaveServer();
});

const command = (verb: string, name = 'ping_muc_webhook'): Promise<string> =>
  Prosody.of(testBed.home).shell(`module:${verb}("${name}", "${testBed.home.host}")`);
/** Replaces some of the module's settings in the configuration, and reloads it. */
async function configure(settings: Readonly<Record<string, string>>): Promise<void> {
  const file = join(testBed.lab.directory, `prosody-${testBed.home.host}`, 'prosody.cfg.lua');
  let config = await readFile(file, 'utf8');
  for (const [name, value] of Object.entries(settings)) {
    config = config
      .replace(new RegExp(`^${name} = .*\n`, 'gm'), '')
      .replace(`VirtualHost "${testBed.home.host}"\n`, (line) => `${line}${name} = ${value}\n`);
  }
  await writeFile(file, config);
  await Prosody.of(testBed.home).shell('config:reload()');
}
const delays = (since: number): readonly unknown[] =>
  testBed.closes(since).map((close) => (close as unknown as { delay: number }).delay);

describe('a host that is removed from ping_muc_exclude', () => {
  it.each(['by a reload of the module', 'by a reload of the configuration alone'])(
    '%s: the users in its rooms are watched',
    async (how) => {
      const set = async (hosts: string): Promise<void> => {
        await configure({ ping_muc_exclude: hosts });
        if (!how.includes('alone')) await command('reload');
      };
      const elsewhere = testBed.muc(1).room(`room-${rooms}`);
      await testBed.join(juliet, elsewhere, 'Juliet');
      await set(`{ "${testBed.muc().domain}" }`);
      await testBed.waitForHistory(room, ['joined Juliet', 'left']);
      expect(testBed.muc().count('ping', room)).toBe(0);
      await set('{}');
      await testBed.waitForHistory(room, ['joined Juliet', 'left', 'joined Juliet']);
      expect([testBed.muc().count('ping', room), testBed.muc(1).count('ping', elsewhere)]).toEqual([1, 0]);
      expect(testBed.history(elsewhere)).toEqual(['joined Juliet']);
    },
  );
});

describe('settings', () => {
  it('change with a reload of the configuration alone', async () => {
    await configure({ ping_muc_delay: '2' });
    const at = testBed.dropOutgoing();
    await until('the close is reported', () => testBed.closes(at).length > 0);
    expect(delays(at)).toEqual([2]);
    await configure({ ping_muc_delay: String(DELAY) });
  });

  it.each(['config:reload()', 'module:reload()'])(
    'that are wrong at a %s: the module says so, and keeps its previous settings',
    async (how) => {
      const waiting = testBed.muc().room(`waiting-${rooms}`);
      testBed.webhooks.interceptor.before = () => {
        throw new Error('no events are accepted for now');
      };
      await juliet.join(waiting, 'Juliet');
      await configure({ ping_muc_delay: '"soon"' });
      if (how.startsWith('module')) expect(await command('reload')).toMatch(/OK/);
      const complaint = new RegExp(
        'ping_muc_delay must be a whole number of seconds from 1 to 86400, but it is the string "soon". ' +
          'For example: ping_muc_delay = 60',
      );
      expect(await testBed.home.log()).toMatch(complaint);
      testBed.webhooks.interceptor = {};
      await testBed.waitForHistory(waiting, ['joined Juliet']);
      expect(await command('info')).toMatch(complaint); // it does not depend on the webhooks

      testBed.muc().dropOccupant(room, juliet.jid);
      const at = testBed.dropOutgoing();
      expect(await testBed.checkDone(at, testBed.muc().domain)).toMatchObject({ joined: 1, left: 1, notified: 1 });
      expect(delays(at)).toEqual([DELAY]);

      await configure({ ping_muc_delay: String(DELAY) });
      expect(await command('info')).not.toMatch(complaint);
    },
  );

  it('that are invalid when the module is loaded for the first time: it is not loaded', async () => {
    await command('unload');
    await configure({ ping_muc_delay: '"soon"' });
    expect(await command('load').catch(String)).toMatch(/ping_muc_delay must be a whole number of seconds/);
    await configure({ ping_muc_delay: String(DELAY) });
    expect(await command('load')).toMatch(/OK/);
    await testBed.waitForHistory(room, ['joined Juliet', 'joined Juliet']); // found again
  });
});

it('an upgrade by a reload keeps the state of the previous release', async () => {
  const other = testBed.muc().room(`other-${rooms}`);
  await juliet.join(other, 'Juliet');
  await command('unload');
  // The saved state: one known join, one join whose event has not been sent, and one event that was in flight
  const folder = join(plugins, 'mod_ping_muc_webhook');
  await mkdir(folder);
  await writeFile(
    join(folder, 'mod_ping_muc_webhook.lua'),
    `local cache = require "util.cache";
local at = math.floor(require "util.time".now() * 1e6);
local user, room, other = "${juliet.jid}", "${room}", "${other}";
local function event(key, at, of, join)
  local text = ('{"type":"muc.joined","at":%d,"user":"%s","room":"%s","nick":"Juliet"}'):format(at, user, of);
  return { key = key, kind = "muc.joined", at = at, text = text, since = at / 1e6, join = join };
end
function module.save()
  local known = { at = at, nick = "Juliet", announced = true };
  local unsent = { at = at + 1, nick = "Juliet", announced = false };
  local queue = cache.new(2^31);
  queue:set(other.."\\0"..user, event(other.."\\0"..user, at + 1, other, unsent));
  local body = '{"host":"'..module.host..'","events":['..event("", at, room).text..']}';
  return {
    version = 1, last_at = at + 1e10, remotes = { ["${testBed.muc().domain}"] = 2 }, joins = 2, queue = queue,
    tracks = { [user] = { rooms = { [room] = known, [other] = unsent }, count = 2, asks = cache.new(1000) } },
    batch = { id = "msg_before", body = body, since = at / 1e6, events = { event(room.."\\0"..user, at, room) } },
    replays = cache.new(10000, false),
  };
end
`,
  );
  await command('load');
  await rm(folder, { recursive: true });
  const [asked, reports] = [testBed.muc().count('ping'), [...testBed.history(room), ...testBed.history(other)].length];
  await command('reload');
  await until(
    'both joins are reported',
    () => [...testBed.history(room), ...testBed.history(other)].length === reports + 2,
  );
  expect(testBed.webhooks.requests.filter(({ headers }) => headers['webhook-id'] === 'msg_before')).toHaveLength(1);
  expect(testBed.muc().count('ping')).toBe(asked); // no join had to be found again
  const first = testBed.reported().length;
  await juliet.leave(room, 'Juliet');
  await until('the leave is reported', () => testBed.history(room).at(-1) === 'left');
  // times continue from the saved one
  expect(testBed.reported()[first]?.at).toBeGreaterThan((Date.now() + 9_000_000) * 1000);
});

describe('mod_ping_muc on the same host', () => {
  const warning =
    'mod_ping_muc is loaded on this host, too, and users would be notified twice. ' +
    'Remove one of the two from modules_enabled';
  const warnings = async (): Promise<number> => (await testBed.home.log()).split(warning).length - 1;

  it('causes a warning, in whichever order the two are loaded', async () => {
    await mkdir(join(plugins, 'mod_ping_muc'), { recursive: true });
    await writeFile(join(plugins, 'mod_ping_muc', 'mod_ping_muc.lua'), '');
    expect(await warnings()).toBe(0);
    await command('load', 'ping_muc');
    expect(await warnings()).toBe(1);
    await command('reload');
    expect(await warnings()).toBe(2);
    await configure({ ping_muc_dry_run: 'true' }); // the two are compared
    await command('reload');
    expect(await warnings()).toBe(2);
    await configure({ ping_muc_dry_run: 'false' });
    await command('unload', 'ping_muc');
    await command('reload');
    expect(await warnings()).toBe(2);
  });
});
