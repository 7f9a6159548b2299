import { styleText } from 'node:util';
import { Parser, escapeXML, escapeXMLText, type Element } from '@xmpp/xml';
import { ensurePackage } from './debian.ts';
import { Lab, sleep, until } from './lab/lab.ts';
import { Prosody } from './lab/prosody.ts';
import { Runtime } from './lab/runtime.ts';
import { Tap } from './lab/tap.ts';
import { User, statusCodes } from './lab/user.ts';

/**
 * The mission, played on real servers: Juliet and Romeo sit in rooms of another server, the connection breaks, one room
 * loses Juliet, and she is told; Romeo's room still knows him, and he is not.
 */
const DELAY_SECONDS = 5;
/** A notice comes between the delay and so many seconds later. */
const TOLERANCE_SECONDS = 3;

let cutAt: number | undefined;

/** One line of the timeline. Times are seconds after the cut. */
function tell(who: string, what: string): void {
  const time = cutAt === undefined ? '' : `${((Date.now() - cutAt) / 1000).toFixed(1)} s`;
  process.stdout.write(`${styleText('dim', time.padStart(7))}  ${styleText('bold', who.padEnd(9))} ${what}\n`);
}

/** XML under a line, indented, an element a line. */
function show(element: Element, depth = 0): void {
  const { children, name } = element;
  const attributes = Object.entries(element.attrs as Record<string, string>).map(([key, value]) => ` ${key}="${escapeXML(value)}"`);
  const indent = ' '.repeat(19 + 2 * depth);
  const line = (text: string): void => void process.stdout.write(`${indent}${styleText('cyan', text)}\n`);
  const open = `<${name}${attributes.join('')}`;
  if (children.length === 0) line(`${open}/>`);
  else if (children.every((child) => typeof child === 'string')) line(`${open}>${escapeXMLText(children.join(''))}</${name}>`);
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
  tell('stage', 'the functions start, as they would run in AWS: the same bundles, table and state machine');
  const api = await Tap.start(lab, lab.address(1), 8789, `http://${home}:5280/ping_muc/stanzas`);
  const runtime = await Runtime.start(lab, { serverApi: api.url.replace('/stanzas', '') });
  tell('stage', `two Prosody servers start: ${home}, where the users are, and ${away} with its rooms at ${muc}`);
  const changes = { ping_muc_delay: DELAY_SECONDS, http_host: home };
  const homeServer = await Prosody.start(lab, { host: home, users: ['juliet', 'romeo'], ...runtime.prosodySettings(changes) });
  const awayServer = await Prosody.start(lab, { host: away, mucs: [muc], users: ['mercutio'] });

  const mercutio = await User.connect(lab, awayServer, 'mercutio', 'desk');
  const juliet = await User.connect(lab, homeServer, 'juliet', 'phone');
  const romeo = await User.connect(lab, homeServer, 'romeo', 'phone');
  const [balcony, garden] = [`balcony@${muc}`, `garden@${muc}`];
  await mercutio.join(balcony, 'Mercutio');
  await juliet.join(balcony, 'Juliet');
  tell('Juliet', `joins ${balcony}, where Mercutio, a user of the other server, likes to talk`);
  await romeo.join(garden, 'Romeo');
  tell('Romeo', `joins ${garden}, which is quiet`);
  const recorded = (): number => runtime.lines.reduce((sum, line) => sum + Number(line['JoinsRecorded'] ?? 0), 0);
  await until('both joins are recorded', () => recorded() === 2);
  tell('functions', 'both joins are recorded');

  api.watch(({ body, answer }) => {
    const asked = parse(body.toString());
    const isNotice = asked.every((stanza) => stanza.is('presence'));
    tell('functions', isNotice ? 'hand a notice to the server, which delivers it if the join is still the same:' : `ask ${asked.map((ping) => `${String(ping.attrs['to'])} on behalf of ${String(ping.attrs['from'])}`).join(', ')}:`);
    for (const stanza of asked) show(stanza);
    const answers = parse(answer);
    if (answers.length > 0) tell(isNotice ? 'server' : 'rooms', 'answer:');
    for (const stanza of answers) show(stanza);
  });

  await Promise.all([homeServer.cut(), awayServer.cut()]);
  cutAt = Date.now();
  tell('network', 'the connection between the two servers breaks');
  // what is written into a connection that has just broken may be lost without a bounce, so he goes on talking
  const talking = setInterval(() => void mercutio.say(balcony, 'And another thing …').catch(() => undefined), 500);
  await mercutio.say(balcony, 'Is anybody there?');
  await until('the room gives up Juliet', () => mercutio.presences(balcony).find((presence) => presence.attrs['type'] === 'unavailable')).finally(() =>
    clearInterval(talking),
  );
  tell('balcony', 'Mercutio talks; his words bounce off the broken connection, and the room throws Juliet out, who learns nothing of it');
  await Promise.all([homeServer.mend(), awayServer.mend()]);
  tell('network', 'the connection can be made again; who needs it, makes it anew');
  await runtime.line('webhook stored', (line) => Number(line['ChecksStarted']) > 0);
  tell('functions', `the close was reported; the workflow waits ${DELAY_SECONDS} s after it`);

  const notice = await until('the notice', () => juliet.notices()[0], (DELAY_SECONDS + 10) * 1000);
  const seconds = (notice.at - cutAt) / 1000;
  tell('Juliet', 'her client receives:');
  show(notice.stanza);
  await juliet.join(balcony, 'Juliet');
  tell('Juliet', 'her client joins again, and she is back in the room');
  await sleep(Math.max(1000, cutAt + (DELAY_SECONDS + TOLERANCE_SECONDS) * 1000 - Date.now()));
  const disturbed = romeo.presences(garden).filter((presence) => presence.attrs['type'] === 'unavailable' || statusCodes(presence).includes('333'));
  tell('Romeo', disturbed.length === 0 ? 'has received nothing, and is still in his room' : `was disturbed by ${disturbed.map(String).join('')}`);

  const inTime = seconds >= DELAY_SECONDS && seconds <= DELAY_SECONDS + TOLERANCE_SECONDS;
  const once = juliet.notices().length === 1;
  const good = inTime && once && disturbed.length === 0;
  process.stdout.write(
    good
      ? `\n${styleText('green', 'Success')}: Juliet was told once, ${seconds.toFixed(1)} s after the cut, and is back; Romeo was left in peace.\n`
      : `\n${styleText('red', 'Failure')}: ${inTime ? '' : `told after ${seconds.toFixed(1)} s; `}${once ? '' : `told ${juliet.notices().length} times; `}${disturbed.length === 0 ? '' : 'Romeo was disturbed'}\n`,
  );
  return good;
}

process.stdout.write(`Watch: two XMPP servers, two users in rooms, and a connection that breaks. It takes about ${DELAY_SECONDS + 15} seconds.\n\n`);
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
