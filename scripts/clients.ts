import { styleText } from 'node:util';
import { ensurePackages, ensureServer } from './debian.ts';
import { sleep, until } from '../lab/lab.ts';
import type { Client } from '../lab/clients/client.ts';
import { CLIENTS, type Kind } from '../lab/clients/clients.ts';
import { DELAY_SECONDS, EARLY, Loss, MISSED, MODES, type Mode, NICK, type ClientInRoom } from '../lab/clients/loss.ts';

/**
 * Runs real clients on real servers through a loss, and compares what they show with what docs/what-users-see.md
 * promises. Installs missing clients.
 *
 * `npm run test:clients`, or some clients only: `npm run test:clients -- profanity poezio`.
 */

/** A notice or a re-entry must come within this time after the delay. */
const TOLERANCE_SECONDS = 3;
/** How long a client may take to show what it has received. */
const SHOW_MS = 3000;
/** How long a client without ping-muc is observed after the loss. */
const WATCH_SECONDS = 20;
/** The limit for the whole run. */
const LIMIT_MS = 15 * 60_000;
const LATER = 'a later line';
const OWN = 'a line of my own';

/** What one client showed in one mode. */
interface Observation {
  readonly summary: string;
  /** Promises that were not kept. */
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

/** Whether the missed lines are shown once and in order, after the line from before the loss. */
function missedIn(shown: string): string {
  const counts = [EARLY, ...MISSED].map((line) => count(shown, line));
  if (counts.slice(1).every((times) => times === 0)) return 'none';
  const places = [EARLY, ...MISSED].map((line) => shown.indexOf(line));
  const inOrder = places.every((place, index) => index === 0 || place > (places[index - 1] ?? -1));
  return counts.every((times) => times === 1) && inOrder
    ? 'once and in order'
    : `${counts.join(', ')} times (the first was received before the loss)${inOrder ? '' : ', out of order'}`;
}

/** With re-entry: the client is back in the room, and shows nothing of the loss. */
async function observeReturn(loss: Loss, { room }: ClientInRoom, client: Client): Promise<Observation> {
  const isBack = await isTrue(
    'back',
    () => loss.isInRoom(room),
    (DELAY_SECONDS + TOLERANCE_SECONDS + 1) * 1000 - loss.seconds * 1000,
  );
  const seconds = loss.seconds;
  if (!isBack)
    return {
      summary:
        `not back after ${seconds.toFixed(1)} s; ` +
        ((await client.farewell()) ?? 'the client shows that it is in the room'),
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
    summary: [
      `back after ${seconds.toFixed(1)} s`,
      `missed lines: ${missed}`,
      `list: ${list}`,
      isHeard ? 'its line reaches the room' : 'its line does not reach the room',
      farewell ?? 'nothing of the loss is shown',
    ].join('; '),
    broken: promises.filter(([, isKept]) => !isKept).map(([promise]) => promise),
  };
}

/** With notices, a client that ignores them: it is out, and shows nothing of it. */
async function observeIgnored(loss: Loss, { room }: ClientInRoom, client: Client): Promise<Observation> {
  await sleep(Math.max(0, (DELAY_SECONDS + TOLERANCE_SECONDS - loss.seconds) * 1000));
  const seconds = loss.seconds;
  const isOut = !loss.isInRoom(room);
  const farewell = await client.farewell();
  const missed = missedIn(await client.shown());
  const state = `${isOut ? 'out' : 'in'} after ${seconds.toFixed(1)} s`;
  const shown = farewell ?? `it ignores the notice, list: ${nicks(await client.occupants())}`;
  return {
    summary: `${state}: ${shown}; missed lines: ${missed}`,
    broken: [...(isOut ? [] : ['out of the room']), ...(farewell === undefined ? [] : ['the notice is ignored'])],
  };
}

/** With notices: the client shows that it is out. */
async function observeNotice(loss: Loss, one: ClientInRoom, client: Client): Promise<Observation> {
  if (client.ignoresNotices === true) return observeIgnored(loss, one, client);
  const { room } = one;
  const milliseconds = (DELAY_SECONDS + TOLERANCE_SECONDS + 1) * 1000 - loss.seconds * 1000;
  const farewell = await until('the client shows the notice', () => client.farewell(), milliseconds).catch(
    () => undefined,
  );
  const seconds = loss.seconds;
  const broken = [
    ...(farewell === undefined || seconds > DELAY_SECONDS + TOLERANCE_SECONDS
      ? [`notified within ${DELAY_SECONDS + TOLERANCE_SECONDS} s`]
      : []),
    ...(loss.isInRoom(room) ? ['out of the room'] : []),
  ];
  const shown = farewell ?? `no notice is shown: ${await client.shown()}`;
  return { summary: `after ${seconds.toFixed(1)} s: ${shown}`, broken };
}

/** Without ping-muc: the client is not informed. */
async function observeSilence(loss: Loss, { room }: ClientInRoom, client: Client): Promise<Observation> {
  await sleep(Math.max(0, (WATCH_SECONDS - loss.seconds) * 1000));
  const look = async (): Promise<string> =>
    (await client.farewell()) ?? `the client shows that it is in the room, list: ${nicks(await client.occupants())}`;
  const [before, isBack] = [await look(), loss.isInRoom(room)];
  const missed = missedIn(await client.shown());
  await client.typeLine(OWN);
  await sleep(SHOW_MS);
  const fate = loss.hasReceived(room, OWN) ? 'reaches the room' : 'does not reach the room';
  const isShown = count(await client.shown(), OWN) > 0;
  const after = `${await look()}; its line is ${isShown ? '' : 'not '}shown`;
  const state = `${isBack ? 'back by itself' : 'out'} after ${WATCH_SECONDS} s: ${before}`;
  return {
    summary: `${state}; missed lines: ${missed}. A line typed then ${fate}: ${after}`,
    broken: [],
  };
}

const OBSERVE: Readonly<Record<Mode, typeof observeReturn>> = {
  'with re-entry': observeReturn,
  'with re-entry, into a room with an archive': observeReturn,
  'with re-entry, which the room refuses': observeNotice,
  'with notices': observeNotice,
  'without ping-muc': observeSilence,
};

async function run(mode: Mode, kinds: readonly Kind[], observed: Map<string, Map<Mode, Observation>>): Promise<void> {
  const add = (name: string, result: Observation): void => {
    observed.set(name, (observed.get(name) ?? new Map<Mode, Observation>()).set(mode, result));
    const broken = result.broken.length === 0 ? '' : ` – not as promised: ${result.broken.join('; ')}`;
    print(`  ${name}: ${result.summary}${broken === '' ? '' : styleText('red', broken)}`);
  };
  const loss = await Loss.open(mode, kinds);
  open = loss;
  try {
    print(`${mode}: starting ${kinds.join(', ')}, each in its own room`);
    await Promise.all(kinds.map((kind) => loss.addClient(kind, CLIENTS[kind].start)));
    await loss.lose();
    print(
      `the link was cut; ${MISSED.length} lines were sent, Benvolio left, Tybalt entered, ` +
        `and the rooms removed all users of the other server; the link was repaired after ${loss.seconds.toFixed(1)} s`,
    );
    await Promise.all(
      loss.clients.map(async (one) => {
        const { client, kind, trouble = '' } = one;
        if (client === undefined)
          return add(kind, { summary: `could not be started: ${trouble}`, broken: ['it starts'] });
        add(
          client.name,
          await OBSERVE[mode](loss, one, client).catch((error: unknown) => ({
            summary: String(error),
            broken: ['it can be observed'],
          })),
        );
      }),
    );
    if (mode === 'without ping-muc') return;
    const { left, reentered, refused, notified } = await loss.checked();
    const lost = loss.clients.filter(({ client }) => client !== undefined).length;
    const expected =
      OBSERVE[mode] === observeReturn ? [lost, lost, 0, 0] : [lost, 0, mode === 'with notices' ? 0 : lost, lost];
    const isKept = [left, reentered, refused, notified].join() === expected.join();
    add('the functions', {
      summary: `${left} lost, ${reentered} back, ${refused} refused, ${notified} notified`,
      broken: isKept ? [] : [`expected ${expected.join(', ')}`],
    });
  } finally {
    await loss.testBed.close();
  }
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

let open: Loss | undefined;
const isKind = (name: string): name is Kind => name in CLIENTS;
const asked = process.argv.slice(2);
const kinds = (asked.length === 0 ? Object.keys(CLIENTS) : asked).filter(isKind);
if (!asked.every(isKind)) {
  process.stderr.write(
    `No such client: ${asked.filter((name) => !isKind(name)).join(', ')}. Use: ${Object.keys(CLIENTS).join(', ')}\n`,
  );
  process.exit(1);
}
ensureServer('prosody');
ensurePackages([...new Set(kinds.flatMap((kind) => CLIENTS[kind].packages))]);
const observed = new Map<string, Map<Mode, Observation>>();
const runAll = async (): Promise<boolean> => {
  for (const mode of Object.keys(MODES) as Mode[]) await run(mode, kinds, observed);
  return true;
};
const interrupted = new Promise<boolean>((resolve) => {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve(false));
  process.stdout.on('error', () => resolve(false)); // the reader of the output is gone
  setTimeout(() => resolve(false), LIMIT_MS).unref();
});
let isWhole = false;
try {
  isWhole = await Promise.race([runAll(), interrupted]);
} catch (error) {
  process.stderr.write(`The run failed: ${error instanceof Error ? error.message : String(error)}\n`);
}
if (!isWhole) await open?.testBed.close();
print('');
for (const [name, modes] of observed) {
  print(styleText('bold', name));
  for (const [mode, { summary, broken }] of modes) {
    const mark = broken.length === 0 ? '✓' : '✗';
    print(`  ${mark} ${mode}: ${summary}`);
  }
}
const isKept =
  isWhole && [...observed.values()].every((modes) => [...modes.values()].every(({ broken }) => broken.length === 0));
print(isKept ? `\n${styleText('green', 'All as promised.')}` : `\n${styleText('red', 'Not as promised.')}`);
process.exit(isKept ? 0 : 1);
