import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const run = promisify(execFile);
const PLAY = fileURLToPath(new URL('../../lab/any-lua.lua', import.meta.url));
const MODULE = fileURLToPath(new URL('../../prosody/mod_ping_muc_webhook', import.meta.url));

/** Prosody runs on each of these, though Debian's own packages on one alone: the parts in C are simple stand-ins here. */
it.each(['5.1', '5.2', '5.3', '5.4'])('the whole module does its job on Lua %s', async (version) => {
  const { stdout } = await run(`lua${version}`, [PLAY, MODULE]);
  const lines = stdout
    .trim()
    .split('\n')
    .map((line) => line.split('\t'));
  const said = (what: string): readonly string[][] =>
    lines.filter(([first]) => first === what).map(([, ...rest]) => rest);
  expect(said('log')).toEqual([]);

  const [[webhook = ''] = []] = said('webhook');
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

  expect(said('query')).toEqual([
    ['get', user, `${room}/Juliet`, 'urn:xmpp:ping'],
    ['get', user, room, 'http://jabber.org/protocol/disco#info'],
  ]);
  expect(said('answer').map(([status]) => status)).toEqual(['200', '200', '200', '200']);
  expect(
    said('answer').map(([, body]) => [...String(body).matchAll(/ (?:type|code)='(\w+)'/g)].map(([, type]) => type)),
  ).toEqual([['result'], ['result'], ['110'], []]);
  expect(said('session').map(([stanza]) => /<history seconds='\d+'\/>/.test(String(stanza)))).toEqual([true]);
  // back, told that Romeo is gone, and shown what it had not seen; later it is told
  const before = [
    `${room}/Romeo\tpresence`,
    `${room}/Juliet\tpresence`,
    `${room}/Juliet\tmessage`,
    `${room}/Juliet\tmessage`,
  ];
  const sentAgain = [`${room}/Juliet\tmessage`, `${room}\tmessage`];
  expect(said('arrived').map((cells) => cells.join('\t'))).toEqual([
    ...before,
    `${room}/Juliet\tpresence`,
    ...sentAgain,
  ]);
  expect(said('client').map(([stanza]) => /from='room@muc.host\/(\w+)'/.exec(String(stanza))?.[1])).toEqual([
    'Romeo',
    'Juliet',
  ]);
});
