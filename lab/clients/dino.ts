import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { debianVersion } from '../../scripts/debian.ts';
import type { Client, ClientOptions } from './client.ts';
import { Desktop } from './desktop.ts';
import { looker } from './look.ts';
import { makeHome, runAsPerson } from './person.ts';

/**
 * GnuTLS trusts what is in this file only. A mount namespace shows Dino another file there, and needs a user namespace,
 * in which Dino's user has the id 0.
 */
const TRUSTED = '/etc/ssl/certs/ca-certificates.crt';
const WITH_TRUST = ['unshare', '--map-root-user', '--mount', '--', 'sh', '-c'];
const MOUNT = `mount --bind "$0" ${TRUSTED} && exec "$@"`;

/** Where the input is, on the screen: the list of occupants keeps the focus when it closes. */
const INPUT = [640, 538] as const;

/** What Dino writes after a line that the room has refused. */
const FAILED = 'delivery failed';

/** What the window shows. */
interface Look {
  /** The room's messages, each with its sender and its time if they are shown. */
  readonly shown: readonly string[];
  /** What is below the messages: errors. */
  readonly below: readonly string[];
  /** The list of open conversations. */
  readonly conversations: readonly string[];
  /** The nicks in the list of occupants, which is opened only to be read. */
  readonly listed: readonly string[];
}

/** Dino, on a virtual screen. */
export async function dino({ lab, server, user, room, nick }: ClientOptions): Promise<Client> {
  const authority = await lab.authority();
  const home = await makeHome(lab, { 'authority.crt': await readFile(authority.certificate, 'utf8') });
  const desktop = await Desktop.open(lab, home);
  const script = readFileSync(fileURLToPath(new URL('dino.py', import.meta.url)), 'utf8');
  const account = [`${user}@${server.host}`, server.password, room, nick];
  const program = runAsPerson(
    lab,
    [...WITH_TRUST, MOUNT, join(home, 'authority.crt'), 'dbus-run-session', '--', 'python3', '-c', script, ...account],
    { cwd: home, env: { ...desktop.environment, GSK_RENDERER: 'cairo' }, stdio: ['pipe', 'pipe', 'ignore'] },
  );
  const look = looker<Look>(program, 'Dino');
  await look(); // it has its window
  await desktop.maximize('dino');
  const farewell = async (): Promise<string | undefined> => {
    const { shown, below, conversations } = await look();
    if (conversations.length === 0) return 'the conversation closes';
    return [...below, ...shown.filter((line) => line.endsWith(FAILED))].join(' ') || undefined;
  };
  return {
    name: `Dino ${debianVersion('dino-im')}`,
    ignoresNotices: true,
    typeLine: async (line) => {
      await desktop.click(...INPUT);
      await desktop.type(line);
    },
    shown: async () => (await look()).shown.join('\n'),
    occupants: async () => (await look('occupants')).listed,
    farewell,
    picture: (path) => desktop.picture(path),
  };
}
