import { debianVersion } from '../../scripts/debian.ts';
import { until } from '../lab.ts';
import type { Client, ClientOptions } from './client.ts';
import { makeHome } from './person.ts';
import { Terminal } from './terminal.ts';

const ROLES = ['Moderators', 'Participants', 'Visitors'];

/** Profanity, in a terminal. */
export async function profanity({ lab, server, user, room, nick }: ClientOptions): Promise<Client> {
  const jid = `${user}@${server.host}`;
  const home = await makeHome(lab, {
    'data/profanity/accounts': [
      `[${jid}]`,
      'enabled=true',
      `jid=${jid}`,
      `password=${server.password}`,
      `server=${server.host}`,
      'port=5222',
      'tls.policy=disable',
      'resource=profanity\n',
    ].join('\n'),
    'config/profanity/profrc': '[ui]\nsplash=false\noccupants=true\noccupants.jid=false\n',
  });
  const terminal = await Terminal.start(lab, home, ['profanity', '--account', jid]);
  await until(
    'Profanity is logged in',
    async () => (await terminal.screen()).includes('logged in successfully'),
    20_000,
  );
  await terminal.type(`/join ${room} nick ${nick}`);
  /** The names in the panel at the right, below their roles. */
  const panel = async (): Promise<readonly string[]> =>
    (await terminal.screen()).split('\n').map((line) => /\s(\w+)\s*$/.exec(line)?.[1] ?? '');
  const isOpen = async (): Promise<boolean> => (await panel()).includes('Participants');
  return {
    name: `Profanity ${debianVersion('profanity')}`,
    typeLine: (line) => terminal.type(line),
    shown: () => terminal.screen(),
    occupants: async () => (await panel()).filter((name) => /^[A-Z]/.test(name) && !ROLES.includes(name)),
    farewell: async () => ((await isOpen()) ? undefined : 'the window of the room closes'),
  };
}
