import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ensurePackage, ensurePackages } from './debian.ts';
import { sleep, until } from '../lab/lab.ts';
import { CLIENTS } from '../lab/clients/clients.ts';
import { DELAY_SECONDS, Loss, MISSED, type Mode } from '../lab/clients/loss.ts';

/** `npm run pictures` takes screenshots of real clients on the test bed, for docs/what-users-see.md. */
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

ensurePackage('prosody', 'prosody');
ensurePackages([...new Set(KINDS.flatMap((kind) => CLIENTS[kind].packages))]);
mkdirSync(FOLDER, { recursive: true });
for (const [mode, name] of Object.entries(PICTURES)) await take(mode as Mode, name);
process.exit(0);
