import { parseArgs, styleText } from 'node:util';
import xml, { Parser, escapeXML, escapeXMLText, type Element } from '@xmpp/xml';
import { ensureServer } from './debian.ts';
import { commandLine } from '../local/installation.ts';
import { Lab, sleep, until } from '../lab/lab.ts';
import { Runtime } from '../lab/runtime.ts';
import { type Kind, isKind, startServer } from '../lab/servers.ts';
import { RecordingProxy } from '../lab/recording-proxy.ts';
import { User, statusCodes } from '../lab/user.ts';
import type { XmppServer } from '../lab/xmpp-server.ts';
import { SERVERS } from '../infra/server-settings.ts';

/**
 * Shows the main path on real servers. Juliet, Nurse and Romeo are in rooms on another server, and the connection
 * breaks. Juliet's room removes her, and she is brought back. Nurse's room removes her and meanwhile admits members
 * only, so she is notified. Romeo is still in his room, and is left alone.
 */
const DELAY_SECONDS = 5;
/** Juliet must be back, and Nurse notified, within this time after the delay. */
const TOLERANCE_SECONDS = 3;
/** The lines that Juliet misses. */
const MISSED = ['O, then, I see Queen Mab hath been with you.', 'True, I talk of dreams.'];

/**
 * `npm run demo -- --watch`: the console is served, and stays open after the success. `--server ejabberd`: both servers
 * are ejabberd.
 */
const { watch: isWatched, server: serverName } = parseArgs({
  options: { watch: { type: 'boolean', default: false }, server: { type: 'string', default: 'prosody' } },
}).values;

let cutAt: number | undefined;
/** What can be watched and done while the demo stays open. */
let toWatch = '';

/** Prints one line of the timeline. Times are seconds after the cut. */
function report(who: string, what: string): void {
  const time = cutAt === undefined ? '' : `${((Date.now() - cutAt) / 1000).toFixed(1)} s`;
  process.stdout.write(`${styleText('dim', time.padStart(7))}  ${styleText('bold', who.padEnd(9))} ${what}\n`);
}

/** Prints XML below a line of the timeline, with one element in a line. */
function show(element: Element, depth = 0): void {
  const { children, name } = element;
  const attributes = Object.entries(element.attrs as Record<string, string>).map(
    ([key, value]) => ` ${key}="${escapeXML(value)}"`,
  );
  const indent = ' '.repeat(19 + 2 * depth);
  const line = (text: string): void => void process.stdout.write(`${indent}${styleText('cyan', text)}\n`);
  const open = `<${name}${attributes.join('')}`;
  if (children.length === 0) line(`${open}/>`);
  else if (children.every((child) => typeof child === 'string'))
    line(`${open}>${escapeXMLText(children.join(''))}</${name}>`);
  else {
    line(`${open}>`);
    for (const child of element.getChildElements()) show(child, depth + 1);
    line(`</${name}>`);
  }
}

function parse(text: string): readonly Element[] {
  const elements: Element[] = [];
  const parser = new Parser();
  parser.on('element', (element: Element) => elements.push(element));
  parser.write(text);
  return elements;
}

interface Scene {
  readonly runtime: Runtime;
  readonly api: RecordingProxy;
  readonly servers: readonly XmppServer[];
  readonly juliet: User;
  readonly nurse: User;
  readonly romeo: User;
  readonly mercutio: User;
  readonly rooms: Readonly<Record<'balcony' | 'kitchen' | 'garden', string>>;
}

async function start(lab: Lab, kind: Kind): Promise<Scene> {
  const [home, away, muc] = [lab.address(2), lab.address(3), lab.address(4)];
  report('set-up', 'start the functions as they run in AWS: the same bundles, table and state machine');
  const api = await RecordingProxy.start(lab, lab.address(1), 8789, `http://${home}:5280/ping_muc/stanzas`);
  const environment = isWatched ? { PING_MUC_CONSOLE: '0' } : {};
  const runtime = await Runtime.start(lab, { serverApi: api.url.replace('/stanzas', ''), environment });
  report(
    'set-up',
    `start two ${SERVERS[kind].name} servers: ${home} with the users, and ${away} with the rooms at ${muc}`,
  );
  const changes = { ping_muc_delay: DELAY_SECONDS, ping_muc_reenter: true, http_host: home };
  const homeServer = await startServer(kind, lab, {
    host: home,
    users: ['juliet', 'nurse', 'romeo'],
    module: { runtime, changes },
  });
  toWatch = `The console stays open at ${runtime.consoleUrl}
Break the connection again, to see another check there:

  ${homeServer.closeCommand(home, muc)}

See what waits:

  ${commandLine('control', `status --data ${runtime.data}`)}

Press Ctrl-C to end the demo.
`;
  const awayServer = await startServer(kind, lab, { host: away, mucs: [muc], users: ['mercutio'] });
  const mercutio = await User.connect(lab, awayServer, 'mercutio', 'desk');
  const [juliet, nurse, romeo] = (await Promise.all(
    ['juliet', 'nurse', 'romeo'].map((name) => User.connect(lab, homeServer, name, 'phone')),
  )) as [User, User, User];
  const rooms = { balcony: `balcony@${muc}`, kitchen: `kitchen@${muc}`, garden: `garden@${muc}` };
  return { runtime, api, servers: [homeServer, awayServer], juliet, nurse, romeo, mercutio, rooms };
}

async function joinRooms({ runtime, juliet, nurse, romeo, mercutio, rooms }: Scene): Promise<void> {
  await mercutio.join(rooms.balcony, 'Mercutio');
  await mercutio.join(rooms.kitchen, 'Mercutio');
  report('Mercutio', 'is a user of the other server, and writes many messages');
  await juliet.join(rooms.balcony, 'Juliet');
  report('Juliet', `joins ${rooms.balcony}, where Mercutio is`);
  await nurse.join(rooms.kitchen, 'Nurse');
  report('Nurse', `joins ${rooms.kitchen}, where Mercutio is, too`);
  await romeo.join(rooms.garden, 'Romeo');
  report('Romeo', `joins ${rooms.garden}, where nobody writes`);
  const recorded = (): number => runtime.lines.reduce((sum, line) => sum + Number(line['JoinsRecorded'] ?? 0), 0);
  await until('all joins are recorded', () => recorded() === 3);
  report('functions', 'all three joins are recorded');
}

/** Prints each request to the server's API, and its answer. */
function showRequests(api: RecordingProxy): void {
  api.watch(({ body, answer }) => {
    const asked = parse(body.toString());
    report('functions', `${request(asked)}:`);
    for (const stanza of asked) show(stanza);
    const answers = parse(answer);
    if (answers.length > 0) report('server', 'answers:');
    for (const stanza of answers) show(stanza);
  });
}

/** Breaks the connection until the rooms have removed Juliet and Nurse. Returns the time of the cut. */
async function loseUsers({ runtime, servers, mercutio, rooms }: Scene): Promise<number> {
  await Promise.all(servers.map((server) => server.cut()));
  const cut = Date.now();
  cutAt = cut;
  report('network', 'the connection between the two servers breaks');
  const isOut = (room: string): boolean =>
    mercutio.presences(room).some((presence) => presence.attrs['type'] === 'unavailable');
  // stanzas written to a connection that has just broken may be lost without a bounce, so he continues to write
  for (const room of [rooms.balcony, rooms.kitchen]) {
    await until(`${room} removes its user`, async () => {
      await mercutio.sendMessage(room, 'Is anybody there?');
      await sleep(500);
      return isOut(room);
    });
  }
  report('rooms', "Mercutio's messages bounce, so the rooms remove Juliet and Nurse, whose clients are not informed");
  for (const line of MISSED) await mercutio.sendMessage(rooms.balcony, line);
  report('Mercutio', `writes: ${MISSED.map((line) => `“${line}”`).join(' ')}`);
  await mercutio.send(membersOnly(rooms.kitchen));
  report('Mercutio', 'restricts the kitchen to members');
  await Promise.all(servers.map((server) => server.mend()));
  report('network', 'a new connection is possible');
  await runtime.line('webhook stored', (line) => Number(line['ChecksStarted']) > 0);
  report('functions', `the close was reported; the workflow waits until ${DELAY_SECONDS} s after it`);
  return cut;
}

async function play(lab: Lab, kind: Kind): Promise<boolean> {
  const scene = await start(lab, kind);
  await joinRooms(scene);
  showRequests(scene.api);
  const cut = await loseUsers(scene);
  const { juliet, nurse, romeo } = scene;

  const isSelf = (stanza: Element): boolean =>
    stanza.is('presence') && statusCodes(stanza).includes('110') && stanza.attrs['type'] === undefined;
  const back = await until(
    'Juliet is back',
    () => juliet.received.find(({ at, stanza }) => at > cut && isSelf(stanza)),
    (DELAY_SECONDS + 10) * 1000,
  );
  report('Juliet', 'is in the room again. Her client receives:');
  show(back.stanza);
  const notice = await until('the notice', () => nurse.notices()[0], (DELAY_SECONDS + 10) * 1000);
  report('Nurse', 'is notified that she is out, and why. Her client receives:');
  show(notice.stanza);
  await sleep(Math.max(1000, cut + (DELAY_SECONDS + TOLERANCE_SECONDS) * 1000 - Date.now()));
  const heard = juliet.received
    .flatMap(({ at, stanza }) => (at > cut && stanza.is('message') ? [stanza.getChildText('body') ?? ''] : []))
    .filter((body) => MISSED.includes(body));
  report('Juliet', `has received the lines that she missed: ${heard.map((line) => `“${line}”`).join(' ')}`);
  const disturbed = romeo.received.filter(({ at, stanza }) => at > cut && stanza.is('presence'));
  report(
    'Romeo',
    disturbed.length === 0
      ? 'has received nothing, and is still in his room'
      : `has received ${disturbed.map(({ stanza }) => String(stanza)).join('')}`,
  );

  const inTime = (at: number): boolean =>
    at - cut >= DELAY_SECONDS * 1000 && at - cut <= (DELAY_SECONDS + TOLERANCE_SECONDS) * 1000;
  const seconds = (at: number): string => `${((at - cut) / 1000).toFixed(1)} s`;
  const faults = [
    inTime(back.at) ? [] : [`Juliet was back after ${seconds(back.at)}`],
    juliet.notices().length === 0 ? [] : ['Juliet was notified'],
    heard.join() === MISSED.join() ? [] : ['Juliet did not receive the missed lines once and in order'],
    inTime(notice.at) ? [] : [`Nurse was notified after ${seconds(notice.at)}`],
    nurse.notices().length === 1 ? [] : [`Nurse was notified ${nurse.notices().length} times`],
    disturbed.length === 0 ? [] : ['Romeo received presence'],
  ].flat();
  const success =
    `Juliet was back ${seconds(back.at)} after the cut and noticed nothing; ` +
    `Nurse was notified once, after ${seconds(notice.at)}; Romeo was left alone.`;
  process.stdout.write(
    faults.length === 0
      ? `\n${styleText('green', 'Success')}: ${success}\n`
      : `\n${styleText('red', 'Failure')}: ${faults.join('; ')}.\n`,
  );
  return faults.length === 0;
}

/** What a request to the server's API does. All its stanzas are of one kind. */
function request(stanzas: readonly Element[]): string {
  const [first] = stanzas;
  const users = (name: 'from' | 'to'): string => stanzas.map(({ attrs }) => String(attrs[name])).join(', ');
  if (first?.is('presence') !== true) return `ping ${users('to')}, on behalf of ${users('from')}`;
  if (first.attrs['type'] === undefined) return `enter ${users('to')} again, on behalf of ${users('from')}`;
  return 'send a notice, which the server delivers if the join is still the same';
}

/** XEP-0045 §10.2: the owner restricts the room to members. */
function membersOnly(room: string): Element {
  const field = (name: string, value: string): Element => xml('field', { var: name }, xml('value', {}, value));
  const fields = [
    field('FORM_TYPE', 'http://jabber.org/protocol/muc#roomconfig'),
    field('muc#roomconfig_membersonly', '1'),
  ];
  const query = xml(
    'query',
    { xmlns: 'http://jabber.org/protocol/muc#owner' },
    xml('x', { xmlns: 'jabber:x:data', type: 'submit' }, ...fields),
  );
  return xml('iq', { type: 'set', id: 'members-only', to: room }, query);
}

if (!isKind(serverName)) {
  process.stderr.write(`--server must be ${Object.keys(SERVERS).join(' or ')}; got ${serverName}\n`);
  process.exit(1);
}
process.stdout.write(
  `Wait about ${DELAY_SECONDS + 15} seconds. ` +
    'The demo starts two XMPP servers with three users in rooms, and breaks the connection between the servers.\n\n',
);
ensureServer(serverName);
const lab = await Lab.open();
const interrupted = new Promise<boolean>((resolve) => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve(false));
});
let good = false;
try {
  good = await Promise.race([play(lab, serverName), interrupted]);
  if (good && isWatched) {
    process.stdout.write(`\n${toWatch}`);
    await interrupted;
  }
} catch (error) {
  process.stderr.write(`The demo failed: ${error instanceof Error ? error.message : String(error)}\n`);
} finally {
  await lab.close();
}
process.exit(good ? 0 : 1);
