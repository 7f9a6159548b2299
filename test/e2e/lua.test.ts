import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const run = promisify(execFile);
const SCRIPT = fileURLToPath(new URL('../../lab/any-lua.lua', import.meta.url));
const MODULE = fileURLToPath(new URL('../../prosody/mod_ping_muc_webhook', import.meta.url));

/** Prosody runs on each of these, though Debian's own packages on one alone: the parts in C are simple stand-ins here. */
it.each(['5.1', '5.2', '5.3', '5.4'])('the whole module does its job on Lua %s', async (version) => {
  const { stdout } = await run(`lua${version}`, [SCRIPT, MODULE]);
  const lines = stdout
    .trim()
    .split('\n')
    .map((line) => line.split('\t'));
  const printed = (what: string): readonly string[][] =>
    lines.filter(([first]) => first === what).map(([, ...rest]) => rest);
  expect(printed('log')).toEqual([]);

  const [[webhook = ''] = []] = printed('webhook');
  const { host, events } = JSON.parse(webhook) as { host: string; events: Record<string, unknown>[] };
  const at = events[0]?.['at'] as number;
  const [user, room] = ['juliet@example.net/phone', 'room@muc.host'];
  expect(at).toBe(Math.floor(at)); // the moment, to the microsecond
  expect({ host, events }).toEqual({
    host: 'example.net',
    events: [
      { type: 'muc.joined', at, user, room, nick: 'Juliet' },
      {
        type: 's2s.closed',
        at: events[1]?.['at'],
        remote: 'muc.host',
        direction: 'incoming',
        reason: 'closed',
        delay: 60,
        timeout: 60,
        patience: 300,
        dry_run: false,
        reenter: true,
      },
    ],
  });
  expect(webhook).toMatch(/"at":1795355000\d{6},/);

  expect(printed('query')).toEqual([
    ['get', user, `${room}/Juliet`, 'urn:xmpp:ping'],
    ['get', user, room, 'http://jabber.org/protocol/disco#info'],
  ]);
  expect(printed('answer').map(([status]) => status)).toEqual(['200', '200', '200', '200']);
  expect(
    printed('answer').map(([, body]) => [...String(body).matchAll(/ (?:type|code)='(\w+)'/g)].map(([, type]) => type)),
  ).toEqual([['result'], ['result'], ['110'], []]);
  expect(printed('session').map(([stanza]) => /<history seconds='\d+'\/>/.test(String(stanza)))).toEqual([true]);
  // back, told that Romeo is gone, and shown what it had not seen; later it is told
  const before = [
    `${room}/Romeo\tpresence`,
    `${room}/Juliet\tpresence`,
    `${room}/Juliet\tmessage`,
    `${room}/Juliet\tmessage`,
  ];
  const sentAgain = [`${room}/Juliet\tmessage`, `${room}\tmessage`];
  expect(printed('arrived').map((cells) => cells.join('\t'))).toEqual([
    ...before,
    `${room}/Juliet\tpresence`,
    ...sentAgain,
  ]);
  expect(printed('client').map(([stanza]) => /from='room@muc.host\/(\w+)'/.exec(String(stanza))?.[1])).toEqual([
    'Romeo',
    'Juliet',
  ]);
});

const PARTS = fileURLToPath(new URL('../../lab/lua-parts.lua', import.meta.url));

/** Plays parts of the module with a clock of the test's, and returns what they print. */
async function runParts(what: string, ...values: readonly (string | number)[]): Promise<readonly string[]> {
  const { stdout } = await run('lua5.4', [PARTS, MODULE, what, ...values.map(String)]);
  return stdout.trim().split('\n');
}

describe('what a session that is back had heard does not come again, and nothing that it missed is lost:', () => {
  const every = (count: number, seconds: number, from = 0): readonly number[] =>
    Array.from({ length: count }, (_, n) => from + (n * seconds) / count);

  it.each([
    ['one line', 20, [100]],
    ['lines 10 to 13 s before the last one', 20, [100, ...every(6, 3, 107), 120]],
    ['a line each second', 20, every(60, 60)],
    ['20 lines in 2 s, where the room keeps 20', 20, every(20, 2, 100)],
    ['40 lines in 10 s, where the room keeps more', 100, every(40, 10, 100)],
    ['40 lines in 7 s, where the room keeps more', 100, every(40, 7, 100)],
  ])('%s', async (_what, kept, received) => {
    expect(await runParts('history', kept, ...received)).toEqual(['0\t0']);
  });
});

/** Rule 11 (docs/rules.md): how many checks the errors of rooms cause in a minute, within four hours, and in the end. */
describe('all rooms say at once that nobody is in them:', () => {
  it.each([
    ['200 of one host, silent when asked', [1, 200, 1000, 'is_silent'], '60 84 200'],
    ['200 of one host, which answers', [1, 200, 1000, 'answers'], '60 200 200'],
    ['500 of 50 hosts, all of one user, silent when asked', [50, 10, 1, 'is_silent'], '60 84 500'],
    ['500 of 50 hosts, silent when asked', [50, 10, 1000, 'is_silent'], '120 168 500'],
  ] as const)(
    '%s: so many are checked, the others later, each once, and what was spent is forgotten',
    async (_what, parameters, found) => {
      expect(await runParts('errors', ...parameters)).toEqual([found, 'forgotten']);
    },
  );

  it('reloads of the module allow no more, and lose nobody', async () => {
    expect(await runParts('reloads', 200, 'is_silent')).toEqual(['61\t200']);
  });
});

describe('a host from which nothing comes is asked about in each interval', () => {
  it.each([
    ['in four of its rooms, where it does not answer', 'is_silent', '4 4 4'],
    ['in all of them, where it does', 'answers', '600 600 599'],
  ])('%s', async (_what, how, found) => {
    expect(await runParts('silence', 600, how)).toEqual([found]);
  });
});

describe('who is in a room', () => {
  it('is known once all have been shown, and not where there are more than are kept', async () => {
    expect(await runParts('larger', 2000, 1999, 2000, 2001)).toEqual(['nil\tfalse', 'nil\tfalse', 'nil\tnil']);
  });

  it('has a place again once what was kept for those who did not come back is old', async () => {
    expect(await runParts('snapshots')).toEqual(['nil', 'false']);
  });
});
