import { styleText } from 'node:util';
import { ensurePackage, ensurePackages } from './debian.ts';
import { sleep, until } from '../lab/lab.ts';
import type { Client } from '../lab/clients/client.ts';
import { CLIENTS, type Kind } from '../lab/clients/clients.ts';
import { DELAY_SECONDS, EARLY, Loss, MISSED, MODES, type Mode, NICK, type ClientInRoom } from '../lab/clients/loss.ts';

/**
 * Real clients lose their rooms, between real servers (docs/what-users-see.md). Installs them where they are missing.
 *
 * `npm run test:clients`, or with the names of some: `npm run test:clients -- profanity poezio`.
 */

/** What is promised comes so long after the delay, at most. */
const TOLERANCE_SECONDS = 3;
/** How long a client may take to show what has come. */
const SHOW_MS = 3000;
/** How long a client without ping-muc is watched after the loss. */
const WATCH_SECONDS = 20;
/** The whole takes no longer. */
const LIMIT_MS = 15 * 60_000;
const LATER = 'a later line';
const OWN = 'a line of my own';

/** What was seen of one client in one mode. */
interface Seen {
  readonly words: string;
  /** What is promised, and was not seen. */
  readonly broken: readonly string[];
}

const count = (text: string, line: string): number => text.split(line).length - 1;
const isTrue = (what: string, probe: () => boolean | Promise<boolean>, milliseconds: number): Promise<boolean> =>
  until(what, probe, milliseconds).then(
    () => true,
    () => false,
  );
const hasWithin = (client: Client, line: string): Promise<boolean> =>
  isTrue(line, async () => count(await client.shown(), line) > 0, SHOW_MS);
/** Nicks as a list shows them. */
const nicks = (list: readonly string[] | undefined): string =>
  list === undefined ? 'not shown' : [...new Set(list)].sort().join(', ');

/** Whether the missed lines are shown, each once and in order, and what was heard before them, before them. */
function missedIn(shown: string): string {
  const counts = [EARLY, ...MISSED].map((line) => count(shown, line));
  if (counts.slice(1).every((times) => times === 0)) return 'none';
  const places = [EARLY, ...MISSED].map((line) => shown.indexOf(line));
  const inOrder = places.every((place, index) => index === 0 || place > (places[index - 1] ?? -1));
  return counts.every((times) => times === 1) && inOrder
    ? 'once and in order'
    : `${counts.join(', ')} times, the first of which had been heard${inOrder ? '' : ', out of order'}`;
}

/** The client is back, and nobody noticed anything. */
async function seeBack(loss: Loss, { room }: ClientInRoom, client: Client): Promise<Seen> {
  const isBack = await isTrue(
    'back',
    () => loss.isInRoom(room),
    (DELAY_SECONDS + TOLERANCE_SECONDS + 1) * 1000 - loss.seconds * 1000,
  );
  const seconds = loss.seconds;
  if (!isBack)
    return {
      words: `not back after ${seconds.toFixed(1)} s; ${(await client.farewell()) ?? 'looks as if it were in'}`,
      broken: ['back'],
    };
  await hasWithin(client, MISSED.at(-1) ?? '');
  await loss.mercutio.sendMessage(room, LATER);
  const isLaterShown = await hasWithin(client, LATER);
  await client.typeLine(OWN);
  const isHeard = await isTrue('heard', () => loss.hasReceived(room, OWN), SHOW_MS);
  const isOwnShown = await hasWithin(client, OWN);
  const shown = await client.shown();
  const missed = missedIn(shown);
  const list = nicks(await client.occupants());
  const farewell = await client.farewell();
  const promises: readonly (readonly [string, boolean])[] = [
    [`back within ${DELAY_SECONDS + TOLERANCE_SECONDS} s`, seconds <= DELAY_SECONDS + TOLERANCE_SECONDS],
    ['the missed lines once and in order', missed === 'once and in order'],
    ['a later line, once', isLaterShown && count(shown, LATER) === 1],
    ['its own line reaches the room, and is shown once', isHeard && isOwnShown && count(shown, OWN) === 1],
    [
      `the list is ${nicks(['Mercutio', 'Tybalt', NICK])}`,
      list === nicks(['Mercutio', 'Tybalt', NICK]) || list === 'not shown',
    ],
    ['it shows nothing of the loss', farewell === undefined],
  ];
  return {
    words: `back after ${seconds.toFixed(1)} s; missed lines: ${missed}; list: ${list}; ${isHeard ? 'its line reaches the room' : 'its line does not reach the room'}; ${farewell ?? 'nothing of the loss is shown'}`,
    broken: promises.filter(([, isKept]) => !isKept).map(([promise]) => promise),
  };
}

/** The client is told that it is out. */
async function seeTold(loss: Loss, { room }: ClientInRoom, client: Client): Promise<Seen> {
  const milliseconds = (DELAY_SECONDS + TOLERANCE_SECONDS + 1) * 1000 - loss.seconds * 1000;
  const farewell = await until('told', () => client.farewell(), milliseconds).catch(() => undefined);
  const seconds = loss.seconds;
  const broken = [
    ...(farewell === undefined || seconds > DELAY_SECONDS + TOLERANCE_SECONDS
      ? [`told within ${DELAY_SECONDS + TOLERANCE_SECONDS} s`]
      : []),
    ...(loss.isInRoom(room) ? ['out of the room'] : []),
  ];
  return { words: `after ${seconds.toFixed(1)} s: ${farewell ?? `nothing of it: ${await client.shown()}`}`, broken };
}

/** Nobody tells the client anything. */
async function seeNothing(loss: Loss, { room }: ClientInRoom, client: Client): Promise<Seen> {
  await sleep(Math.max(0, (WATCH_SECONDS - loss.seconds) * 1000));
  const look = async (): Promise<string> =>
    (await client.farewell()) ?? `looks as if it were in, list: ${nicks(await client.occupants())}`;
  const [before, isBack] = [await look(), loss.isInRoom(room)];
  const missed = missedIn(await client.shown());
  await client.typeLine(OWN);
  await sleep(SHOW_MS);
  const fate = loss.hasReceived(room, OWN) ? 'reaches the room' : 'does not reach the room';
  const after = `${await look()}; ${count(await client.shown(), OWN) > 0 ? 'its line is shown' : 'its line is not shown'}`;
  return {
    words: `${isBack ? 'back by itself' : 'out'} after ${WATCH_SECONDS} s: ${before}; missed lines: ${missed}. A line typed then ${fate}: ${after}`,
    broken: [],
  };
}

const LOOKS: Readonly<Record<Mode, typeof seeBack>> = {
  'with re-entry': seeBack,
  'with re-entry, into a room with an archive': seeBack,
  'with re-entry, which the room refuses': seeTold,
  'with notices': seeTold,
  'without ping-muc': seeNothing,
};

async function play(mode: Mode, kinds: readonly Kind[], seen: Map<string, Map<Mode, Seen>>): Promise<void> {
  const put = (name: string, result: Seen): void => {
    seen.set(name, (seen.get(name) ?? new Map<Mode, Seen>()).set(mode, result));
    say(
      `  ${name}: ${result.words}${result.broken.length === 0 ? '' : styleText('red', ` – not as promised: ${result.broken.join('; ')}`)}`,
    );
  };
  const loss = await Loss.open(mode, kinds);
  open = loss;
  try {
    say(`${mode}: ${kinds.join(', ')} start, each in a room of its own`);
    await Promise.all(kinds.map((kind) => loss.addClient(kind, CLIENTS[kind].start)));
    await loss.lose();
    say(
      `the link was cut, ${MISSED.length} lines were said, Benvolio left, Tybalt came, everyone of the other server was thrown out; mended after ${loss.seconds.toFixed(1)} s`,
    );
    await Promise.all(
      loss.clients.map(async (one) => {
        const { client, kind, trouble = '' } = one;
        if (client === undefined)
          return put(kind, { words: `could not be started: ${trouble}`, broken: ['it starts'] });
        put(
          client.name,
          await LOOKS[mode](loss, one, client).catch((error: unknown) => ({
            words: String(error),
            broken: ['it can be looked at'],
          })),
        );
      }),
    );
    if (mode === 'without ping-muc') return;
    const { left, reentered, refused, notified } = await loss.checked();
    const lost = loss.clients.filter(({ client }) => client !== undefined).length;
    const expected = LOOKS[mode] === seeBack ? [lost, lost, 0, 0] : [lost, 0, mode === 'with notices' ? 0 : lost, lost];
    const isKept = [left, reentered, refused, notified].join() === expected.join();
    put('the functions', {
      words: `${left} lost, ${reentered} back, ${refused} refused, ${notified} told`,
      broken: isKept ? [] : [`${expected.join(', ')} were to be`],
    });
  } finally {
    await loss.testBed.close();
  }
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

let open: Loss | undefined;
const isKind = (name: string): name is Kind => name in CLIENTS;
const asked = process.argv.slice(2);
const kinds = (asked.length === 0 ? Object.keys(CLIENTS) : asked).filter(isKind);
if (!asked.every(isKind)) {
  process.stderr.write(`There is ${Object.keys(CLIENTS).join(', ')}\n`);
  process.exit(1);
}
ensurePackage('prosody', 'prosody');
ensurePackages([...new Set(kinds.flatMap((kind) => CLIENTS[kind].packages))]);
const seen = new Map<string, Map<Mode, Seen>>();
const given = async (): Promise<boolean> => {
  for (const mode of Object.keys(MODES) as Mode[]) await play(mode, kinds, seen);
  return true;
};
const interrupted = new Promise<boolean>((resolve) => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve(false));
  process.stdout.on('error', () => resolve(false)); // nobody reads it any more
  setTimeout(() => resolve(false), LIMIT_MS).unref();
});
let isWhole = false;
try {
  isWhole = await Promise.race([given(), interrupted]);
} catch (error) {
  process.stderr.write(`The run failed: ${error instanceof Error ? error.message : String(error)}\n`);
}
if (!isWhole) await open?.testBed.close();
say('');
for (const [name, modes] of seen) {
  say(styleText('bold', name));
  for (const [mode, { words, broken }] of modes) say(`  ${broken.length === 0 ? '✓' : '✗'} ${mode}: ${words}`);
}
const isKept =
  isWhole && [...seen.values()].every((modes) => [...modes.values()].every(({ broken }) => broken.length === 0));
say(isKept ? `\n${styleText('green', 'All as promised.')}` : `\n${styleText('red', 'Not all is as promised.')}`);
process.exit(isKept ? 0 : 1);
