import { styleText } from 'node:util';
import xml, { Parser, escapeXML, escapeXMLText, type Element } from '@xmpp/xml';
import { ensurePackage } from './debian.ts';
import { Lab, sleep, until } from '../lab/lab.ts';
import { Prosody } from '../lab/prosody.ts';
import { Runtime } from '../lab/runtime.ts';
import { RecordingProxy } from '../lab/recording-proxy.ts';
import { User, statusCodes } from '../lab/user.ts';

/**
 * The mission, played on real servers: Juliet, Nurse and Romeo sit in rooms of another server, and the connection breaks.
 * Juliet's room loses her, and she is brought back. Nurse's room loses her and lets in members only by then, so she is told.
 * Romeo's room still knows him, and he is left in peace.
 */
const DELAY_SECONDS = 5;
/** Juliet is back, and Nurse is told, between the delay and so many seconds later. */
const TOLERANCE_SECONDS = 3;
/** What Juliet misses. */
const MISSED = ['O, then, I see Queen Mab hath been with you.', 'True, I talk of dreams.'];

let cutAt: number | undefined;

/** One line of the timeline. Times are seconds after the cut. */
function tell(who: string, what: string): void {
  const time = cutAt === undefined ? '' : `${((Date.now() - cutAt) / 1000).toFixed(1)} s`;
  process.stdout.write(`${styleText('dim', time.padStart(7))}  ${styleText('bold', who.padEnd(9))} ${what}\n`);
}

/** XML under a line, indented, an element a line. */
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

async function play(lab: Lab): Promise<boolean> {
  const [home, away, muc] = [lab.address(2), lab.address(3), lab.address(4)];
  tell('set-up', 'the functions start, as they would run in AWS: the same bundles, table and state machine');
  const api = await RecordingProxy.start(lab, lab.address(1), 8789, `http://${home}:5280/ping_muc/stanzas`);
  const runtime = await Runtime.start(lab, { serverApi: api.url.replace('/stanzas', '') });
  tell('set-up', `two Prosody servers start: ${home}, where the users are, and ${away} with its rooms at ${muc}`);
  const changes = { ping_muc_delay: DELAY_SECONDS, ping_muc_reenter: true, http_host: home };
  const homeServer = await Prosody.start(lab, {
    host: home,
    users: ['juliet', 'nurse', 'romeo'],
    ...runtime.prosodySettings(changes),
  });
  const awayServer = await Prosody.start(lab, { host: away, mucs: [muc], users: ['mercutio'] });

  const mercutio = await User.connect(lab, awayServer, 'mercutio', 'desk');
  const [juliet, nurse, romeo] = (await Promise.all(
    ['juliet', 'nurse', 'romeo'].map((name) => User.connect(lab, homeServer, name, 'phone')),
  )) as [User, User, User];
  const [balcony, kitchen, garden] = [`balcony@${muc}`, `kitchen@${muc}`, `garden@${muc}`];
  await mercutio.join(balcony, 'Mercutio');
  await mercutio.join(kitchen, 'Mercutio');
  tell('Mercutio', 'is a user of the other server, and likes to talk');
  await juliet.join(balcony, 'Juliet');
  tell('Juliet', `joins ${balcony}, where Mercutio is`);
  await nurse.join(kitchen, 'Nurse');
  tell('Nurse', `joins ${kitchen}, where Mercutio is, too`);
  await romeo.join(garden, 'Romeo');
  tell('Romeo', `joins ${garden}, which is quiet`);
  const recorded = (): number => runtime.lines.reduce((sum, line) => sum + Number(line['JoinsRecorded'] ?? 0), 0);
  await until('all joins are recorded', () => recorded() === 3);
  tell('functions', 'all three joins are recorded');

  api.watch(({ body, answer }) => {
    const asked = parse(body.toString());
    tell('functions', `${request(asked)}:`);
    for (const stanza of asked) show(stanza);
    const answers = parse(answer);
    if (answers.length > 0) tell('server', 'answers:');
    for (const stanza of answers) show(stanza);
  });

  await Promise.all([homeServer.cut(), awayServer.cut()]);
  const cut = Date.now();
  cutAt = cut;
  tell('network', 'the connection between the two servers breaks');
  const isOut = (room: string): boolean =>
    mercutio.presences(room).some((presence) => presence.attrs['type'] === 'unavailable');
  // what is written into a connection that has just broken may be lost without a bounce, so he goes on talking
  for (const room of [balcony, kitchen]) {
    await until(`${room} gives up its user`, async () => {
      await mercutio.sendMessage(room, 'Is anybody there?');
      await sleep(500);
      return isOut(room);
    });
  }
  tell(
    'rooms',
    'Mercutio talks; his words bounce off the broken connection, and the rooms put Juliet and Nurse out, who learn nothing of it',
  );
  for (const line of MISSED) await mercutio.sendMessage(balcony, line);
  tell('Mercutio', `goes on: ${MISSED.map((line) => `“${line}”`).join(' ')}`);
  await mercutio.send(membersOnly(kitchen));
  tell('Mercutio', 'makes the kitchen a room for members only');
  await Promise.all([homeServer.mend(), awayServer.mend()]);
  tell('network', 'the connection can be made again');
  await runtime.line('webhook stored', (line) => Number(line['ChecksStarted']) > 0);
  tell('functions', `the close was reported; the workflow waits ${DELAY_SECONDS} s after it`);

  const isSelf = (stanza: Element): boolean =>
    stanza.is('presence') && statusCodes(stanza).includes('110') && stanza.attrs['type'] === undefined;
  const back = await until(
    'Juliet is back',
    () => juliet.received.find(({ at, stanza }) => at > cut && isSelf(stanza)),
    (DELAY_SECONDS + 10) * 1000,
  );
  tell('Juliet', 'is in the room again. Her client receives:');
  show(back.stanza);
  const notice = await until('the notice', () => nurse.notices()[0], (DELAY_SECONDS + 10) * 1000);
  tell('Nurse', 'is told that she is out, and why. Her client receives:');
  show(notice.stanza);
  await sleep(Math.max(1000, cut + (DELAY_SECONDS + TOLERANCE_SECONDS) * 1000 - Date.now()));
  const heard = juliet.received
    .flatMap(({ at, stanza }) => (at > cut && stanza.is('message') ? [stanza.getChildText('body') ?? ''] : []))
    .filter((body) => MISSED.includes(body));
  tell('Juliet', `has the lines that she missed: ${heard.map((line) => `“${line}”`).join(' ')}`);
  const disturbed = romeo.received.filter(({ at, stanza }) => at > cut && stanza.is('presence'));
  tell(
    'Romeo',
    disturbed.length === 0
      ? 'has received nothing, and is still in his room'
      : `was disturbed by ${disturbed.map(({ stanza }) => String(stanza)).join('')}`,
  );

  const inTime = (at: number): boolean =>
    at - cut >= DELAY_SECONDS * 1000 && at - cut <= (DELAY_SECONDS + TOLERANCE_SECONDS) * 1000;
  const seconds = (at: number): string => `${((at - cut) / 1000).toFixed(1)} s`;
  const faults = [
    inTime(back.at) ? [] : [`Juliet was back after ${seconds(back.at)}`],
    juliet.notices().length === 0 ? [] : ['Juliet was told that she is out'],
    heard.join() === MISSED.join() ? [] : ['Juliet did not get what she missed once, and in order'],
    inTime(notice.at) ? [] : [`Nurse was told after ${seconds(notice.at)}`],
    nurse.notices().length === 1 ? [] : [`Nurse was told ${nurse.notices().length} times`],
    disturbed.length === 0 ? [] : ['Romeo was disturbed'],
  ].flat();
  process.stdout.write(
    faults.length === 0
      ? `\n${styleText('green', 'Success')}: Juliet was back ${seconds(back.at)} after the cut and noticed nothing; Nurse was told once, after ${seconds(notice.at)}; Romeo was left in peace.\n`
      : `\n${styleText('red', 'Failure')}: ${faults.join('; ')}.\n`,
  );
  return faults.length === 0;
}

/** What a request to the server's API does, by its first stanza: a request is of one kind. */
function request(stanzas: readonly Element[]): string {
  const [first] = stanzas;
  const users = (name: 'from' | 'to'): string => stanzas.map(({ attrs }) => String(attrs[name])).join(', ');
  if (first?.is('presence') !== true) return `ask ${users('to')}, on behalf of ${users('from')}`;
  if (first.attrs['type'] === undefined)
    return `have the server enter ${users('to')} again, on behalf of ${users('from')}`;
  return 'hand a notice to the server, which delivers it if the join is still the same';
}

/** XEP-0045 §10.2: its owner's word on who may enter. */
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

process.stdout.write(
  `Watch: two XMPP servers, three users in rooms, and a connection that breaks. It takes about ${DELAY_SECONDS + 15} seconds.\n\n`,
);
ensurePackage('prosody', 'prosody');
const lab = await Lab.open();
const interrupted = new Promise<boolean>((resolve) => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve(false));
});
let good = false;
try {
  good = await Promise.race([play(lab), interrupted]);
} catch (error) {
  process.stderr.write(`The demo failed: ${error instanceof Error ? error.message : String(error)}\n`);
} finally {
  await lab.close();
}
process.exit(good ? 0 : 1);
