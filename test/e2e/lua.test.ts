import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const run = promisify(execFile);
const SCRIPT = fileURLToPath(new URL('../../lab/any-lua.lua', import.meta.url));
const MODULE = fileURLToPath(new URL('../../prosody/mod_ping_muc_webhook', import.meta.url));

/**
 * Prosody supports all of these, but Debian's packages only one: Prosody's parts in C are replaced by simple stand-ins.
 */
it.each(['5.1', '5.2', '5.3', '5.4'])('the whole module works on Lua %s', async (version) => {
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
  expect(at).toBe(Math.floor(at)); // the time, in microseconds
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
        notice_limit: 0,
        notice_share: 0.5,
      },
    ],
  });
  expect(webhook).toMatch(/"at":1795355000\d{6},/);
  expect(printed('heartbeat')).toEqual([['{"host":"example.net","queue":{"length":0,"oldest":0},"events":[]}']]);

  expect(printed('query')).toEqual([
    ['get', user, `${room}/Juliet`, 'urn:xmpp:ping'],
    ['get', user, room, 'http://jabber.org/protocol/disco#info'],
  ]);
  expect(printed('answer').map(([status]) => status)).toEqual(['200', '200', '200', '200']);
  expect(
    printed('answer').map(([, body]) => [...String(body).matchAll(/ (?:type|code)='(\w+)'/g)].map(([, type]) => type)),
  ).toEqual([['result'], ['result'], ['110'], []]);
  expect(printed('session').map(([stanza]) => /<history seconds='\d+'\/>/.test(String(stanza)))).toEqual([true]);
  // the client learns that Romeo has left, is back, and receives what it had missed; later it receives the notice
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

/** Runs parts of the module with a simulated clock, and returns their output. */
async function runParts(what: string, ...values: readonly (string | number)[]): Promise<readonly string[]> {
  const { stdout } = await run('lua5.4', [PARTS, MODULE, what, ...values.map(String)]);
  return stdout.trim().split('\n');
}

describe('a session that is back receives no message twice, and misses none:', () => {
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

/** Rule 11 (docs/rules.md): how many checks follow within a minute, within four hours and in total. */
describe('all rooms answer at once that nobody is in them:', () => {
  it.each([
    ['ten of one host', [1, 10, 1000, 'is_silent'], '10 10 10'],
    ['200 of one host: ten are checked, and then the host', [1, 200, 1000, 'is_silent'], '11 11 11'],
    ['200 of one host, which answer', [1, 200, 1000, 'answers'], '11 11 11'],
    ['500 of 50 hosts, all of one user, which are silent', [50, 10, 1, 'is_silent'], '60 84 500'],
    ['500 of 50 hosts, which are silent', [50, 10, 1000, 'is_silent'], '120 168 500'],
  ] as const)(
    '%s: the limit is checked at once, the others later, each once, none is left out, and the allowance is restored',
    async (_what, parameters, found) => {
      expect(await runParts('errors', ...parameters)).toEqual([`${found}\t0`, 'forgotten']);
    },
  );

  it('reloads of the module allow no more checks, and lose none', async () => {
    expect(await runParts('reloads', 200, 'is_silent')).toEqual(['11\t11\t0']);
  });
});

describe('a host that sends nothing is checked in each interval', () => {
  it.each([
    ['in four of its rooms, if it does not answer', 'is_silent', '4 4 4'],
    ['in all of them, if it answers', 'answers', '600 600 599'],
  ])('%s', async (_what, how, found) => {
    expect(await runParts('silence', 600, how)).toEqual([found]);
  });
});

describe('the list of occupants', () => {
  it('is known when all have been shown, unless there are more than the limit', async () => {
    expect(await runParts('larger', 2000, 1999, 2000, 2001)).toEqual(['nil\tfalse', 'nil\tfalse', 'nil\tnil']);
  });

  it('has space again when old lists of other rooms have expired', async () => {
    expect(await runParts('snapshots')).toEqual(['nil', 'false']);
  });
});

/** Rule 12 (docs/rules.md): when each request is sent, its status, the number of its events, and its queue. */
describe('heartbeats', () => {
  const requests = (interval: number, seconds: number, ...steps: string[]): Promise<readonly string[]> =>
    runParts('heartbeats', interval, seconds, ...steps);

  it('are sent at the beginning and every five minutes while nothing happens, and none with 0', async () => {
    expect(await requests(300, 950)).toEqual(['5 200 0 0/0', '305 200 0 0/0', '605 200 0 0/0', '905 200 0 0/0']);
    expect(await requests(0, 5000, '4000:event')).toEqual(['4000 200 1 -']);
  });

  it('are not sent while there are webhooks: some of these carry the queue', async () => {
    const events = ['100', '200', '300', '400', '500', '600'].map((at) => `${at}:event`);
    expect(await requests(300, 890, ...events)).toEqual([
      '5 200 0 0/0',
      '100 200 1 -',
      '200 200 1 1/0',
      '300 200 1 -',
      '400 200 1 1/0',
      '500 200 1 -',
      '600 200 1 1/0',
    ]);
  });

  it('say how many events wait, and for how long, as soon as they are accepted again', async () => {
    const [, ...found] = await requests(300, 700, '100:down', '110:event', '200:event', '500:up');
    const accepted = found.filter((line) => line.split(' ')[1] === '200');
    expect(accepted).toHaveLength(2); // what was sent before, and what came meanwhile
    const [at, , events, queue] = String(accepted[0]).split(' ');
    expect(Number(at)).toBeLessThanOrEqual(560);
    expect([events, queue]).toEqual(['1', `2/${Number(at) - 110}`]);
    const retries = found.filter((line) => line.split(' ')[1] === '0');
    expect(new Set(retries.slice(0, 5).map((line) => line.split(' ')[3]))).toEqual(new Set(['-']));
    expect(retries.at(-1)).toMatch(/ 0 1 2\/\d+$/);
  });

  it('that are not accepted are repeated, and make no batch smaller', async () => {
    const events = Array.from({ length: 20 }, () => '500:event');
    const found = await requests(300, 700, '250:down', '450:up', ...events);
    expect(found.filter((line) => line.endsWith(' 0 0/0')).length).toBeGreaterThan(5);
    expect(found.at(-1)).toBe('500 200 20 -');
  });

  it('continue after a reload', async () => {
    const reloads = ['100', '200', '299', '400', '599'].map((at) => `${at}:reload`);
    expect(await requests(300, 700, ...reloads)).toEqual(['5 200 0 0/0', '309 200 0 0/0', '609 200 0 0/0']);
  });
});

describe('a setting', () => {
  const read = (name: string, value: number | string, field: string): Promise<readonly string[]> =>
    runParts('setting', `ping_muc_${name}`, value, field);

  it.each([
    ['heartbeat', 0],
    ['heartbeat', 60],
    ['heartbeat', 600],
    ['notice_limit', 0],
    ['notice_limit', 1000000],
    ['notice_share', 0],
    ['notice_share', 0.25],
    ['notice_share', 1],
  ])('%s may be %s', async (name, value) => {
    expect((await read(name, value, name)).map(Number)).toEqual([value]);
  });

  it('has a default: five minutes, no limit, more than half', async () => {
    const defaults = ['heartbeat', 'notice_limit', 'notice_share'].map((field) => read('delay', 60, field));
    expect((await Promise.all(defaults)).flat()).toEqual(['300', '0', '0.5']);
  });

  const seconds = 'a whole number of seconds (or 0 for never) from 60 to 600';
  it.each([
    ['heartbeat', 59, `${seconds}, but it is the number 59. For example: ping_muc_heartbeat = 300`],
    ['heartbeat', 601, `${seconds}, but it is the number 601. For example: ping_muc_heartbeat = 300`],
    [
      'notice_limit',
      -1,
      'a whole number of notices (or 0 for no limit) from 0 to 1000000, but it is the number -1. ' +
        'For example: ping_muc_notice_limit = 0',
    ],
    ['notice_share', 1.5, 'a number from 0 to 1, but it is the number 1.5. For example: ping_muc_notice_share = 0.5'],
    [
      'notice_share',
      'half',
      'a number from 0 to 1, but it is the string "half". For example: ping_muc_notice_share = 0.5',
    ],
  ])('%s may not be %s, and the error says what to set', async (name, value, message) => {
    expect(await read(name, value, name)).toEqual([`ping_muc_${name} must be ${message}`]);
  });
});
