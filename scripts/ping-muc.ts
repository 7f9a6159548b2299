import { readFileSync } from 'node:fs';

/**
 * The command of a release: `ping-muc start`. Each command is a program, which reads the words that follow its name.
 * It is bundled into `app/` by scripts/release/bundles.ts.
 */
const USAGE = `Usage: ping-muc <command> [options]

  start        runs ping-muc on this machine
  settings     prints the settings for the XMPP server, which contain the secret
  doctor       tests each link of the way, and says what to do about one that is broken
  control      shows and controls the checks: status, pause, resume, held, release, drop
  demo         shows two real XMPP servers, and users who are brought back and notified

  --version
  --help       after a command: its options
`;

const COMMANDS: Readonly<Record<string, () => Promise<unknown>>> = {
  start: () => import('../local/main.ts'),
  settings: () => import('./settings.ts'),
  doctor: () => import('./doctor.ts'),
  control: () => import('./control.ts'),
  demo: () => import('./demo.ts'),
};

function version(): string {
  const manifest = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  return (JSON.parse(manifest) as { version: string }).version;
}

const [name = ''] = process.argv.splice(2, 1);
const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
if (command !== undefined) await command();
else if (name === '--version') process.stdout.write(`${version()}\n`);
else if (name === '--help') process.stdout.write(USAGE);
else {
  process.stderr.write(`${name === '' ? 'There is no command' : `There is no command ${name}`}.\n\n${USAGE}`);
  process.exitCode = 1;
}
