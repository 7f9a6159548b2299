import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { OverviewView } from '../local/console/views.ts';
import { ensurePackage, ensurePackages, ensureServer } from './debian.ts';
import { ConsoleBrowser } from '../lab/browser.ts';
import { Lab, sleep, until } from '../lab/lab.ts';
import { CLIENTS } from '../lab/clients/clients.ts';
import { DELAY_SECONDS, Loss, MISSED, type Mode } from '../lab/clients/loss.ts';

/**
 * `npm run pictures` takes screenshots: of real clients on the test bed, for docs/what-users-see.md, and of the console
 * in the demo's own run, for README.md. `npm run pictures -- console` takes the latter only.
 */
const FOLDER = fileURLToPath(new URL('../docs/pictures', import.meta.url));
const KINDS = ['converse', 'gajim'] as const;
const PICTURES: Readonly<Partial<Record<Mode, string>>> = {
  'with re-entry': 're-entry',
  'with notices': 'notice',
  'without ping-muc': 'without',
};
/** When the pictures are taken: clients have received and shown everything. */
const TAKEN_SECONDS = DELAY_SECONDS + 10;
const LATER = 'a later line';
const OWN = 'a line of my own';

async function take(mode: Mode, name: string): Promise<void> {
  const loss = await Loss.open(mode, ['juliet']);
  try {
    const rooms = ['balcony', 'garden'];
    await Promise.all(KINDS.map((kind, index) => loss.addClient(kind, CLIENTS[kind].start, 'juliet', rooms[index])));
    await loss.lose();
    for (const { client, room, kind, trouble } of loss.clients) {
      if (client === undefined) throw new Error(`${kind} could not be started: ${trouble}`);
      if (name === 're-entry') {
        await until('the user is back', () => loss.isInRoom(room), (DELAY_SECONDS + 5) * 1000);
        await until('the client shows the missed lines', async () =>
          (await client.shown()).includes(MISSED.at(-1) ?? ''),
        );
      } else await sleep(Math.max(0, loss.cutAt + TAKEN_SECONDS * 1000 - Date.now()));
      await loss.mercutio.sendMessage(room, LATER);
      if (name === 're-entry') await client.typeLine(OWN);
      await sleep(1500);
      const path = `${FOLDER}/${kind}-${name}.png`;
      await client.picture?.(path);
      process.stdout.write(`${mode}: ${path}\n`);
    }
  } finally {
    await loss.testBed.close();
  }
}

/** The demo ends within half a minute, or much later on a busy machine. */
const DEMO_MS = 180_000;
/** A server's first heartbeat comes after up to five minutes. Until then, an alarm says that no server reports. */
const HEARTBEAT_MS = 480_000;

/** What each picture of the console shows, and what it waits for. */
const CONSOLE_PICTURES = {
  overview: { path: '/', shows: '.total.reentered', colorScheme: 'light', height: 820 },
  dashboard: { path: '/dashboard?range=1h', shows: '.widget canvas', colorScheme: 'dark', height: 900 },
  search: { path: '/search', shows: '.answers', colorScheme: 'light', height: 680 },
} as const;

/** Whether every alarm has been evaluated, and none is raised. */
async function isQuiet(url: string): Promise<boolean> {
  const response = await fetch(`${url}api/overview`, { signal: AbortSignal.timeout(10_000) });
  const { alarms } = (await response.json()) as OverviewView;
  return alarms.every(({ state }) => state === 'OK');
}

async function takeConsole(): Promise<void> {
  const demo = spawn(process.execPath, [fileURLToPath(new URL('demo.ts', import.meta.url)), '--watch'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const lines: string[] = [];
  createInterface({ input: demo.stdout }).on('line', (line) => lines.push(line));
  const line = (text: string): Promise<string> => until(text, () => lines.find((one) => one.includes(text)), DEMO_MS);
  const lab = await Lab.open();
  try {
    const url = /http:\S+/.exec(await line('The console stays open'))?.[0] ?? '';
    const browser = await ConsoleBrowser.start(lab, url);
    await until('no alarm', () => isQuiet(url), HEARTBEAT_MS);
    for (const [name, { path, shows, ...view }] of Object.entries(CONSOLE_PICTURES)) {
      const page = await browser.open(path, { width: 1100, ...view });
      if (name === 'search') {
        await page.getByLabel('User, room or remote host').fill('nurse');
        await page.locator('.results a').first().click();
      }
      await page.locator(shows).first().waitFor();
      await page.waitForTimeout(1000); // the graphs are drawn
      const file = `${FOLDER}/console-${name}.png`;
      await page.screenshot({ path: file });
      process.stdout.write(`console: ${file}\n`);
    }
    if (browser.faults.length > 0) throw new Error(browser.faults.join('\n'));
  } finally {
    await lab.close();
    demo.kill('SIGINT');
  }
}

const isConsoleOnly = process.argv[2] === 'console';
ensureServer('prosody');
ensurePackage('chromium', 'chromium');
mkdirSync(FOLDER, { recursive: true });
await takeConsole();
if (!isConsoleOnly) {
  ensurePackages([...new Set(KINDS.flatMap((kind) => CLIENTS[kind].packages))]);
  for (const [mode, name] of Object.entries(PICTURES)) await take(mode as Mode, name);
}
process.exit(0);
