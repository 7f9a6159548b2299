import { readFile } from 'node:fs/promises';
import { debianVersion } from '../../scripts/debian.ts';
import { until } from '../lab.ts';
import type { Client, ClientOptions } from './client.ts';
import { makeHome } from './person.ts';
import { Terminal } from './terminal.ts';

/** Poezio, in a terminal. */
export async function poezio({ lab, server, user, room, nick }: ClientOptions): Promise<Client> {
  const settings = {
    jid: `${user}@${server.host}/poezio`,
    password: server.password,
    custom_host: server.host,
    custom_port: 5222,
    ca_cert_path: 'authority.crt', // in its home
    rooms: `${room}/${nick}`,
    use_log: false,
    plugins_autoload: '',
  };
  const text = Object.entries(settings)
    .map(([name, value]) => `${name} = ${value}\n`)
    .join('');
  const home = await makeHome(lab, {
    'config/poezio/poezio.cfg': `[Poezio]\n${text}`,
    'authority.crt': await readFile((await lab.authority()).certificate, 'utf8'),
  });
  const terminal = await Terminal.start(lab, home, ['poezio']);
  await until(
    'Poezio has a tab for the room',
    async () => (await terminal.screen()).includes(`1.${room.split('@')[0]}`),
    20_000,
  );
  await terminal.press('C-n');
  return {
    name: `Poezio ${debianVersion('poezio')}`,
    typeLine: (line) => terminal.type(line),
    shown: () => terminal.screen(),
    occupants: async () =>
      (await terminal.screen()).split('\n').flatMap((line) => /│\S{2}(\w+)\s*$/.exec(line)?.[1] ?? []),
    farewell: async () =>
      /(?:\S+ has left the room due to an error|Not connected)[^│]*/.exec(await terminal.screen())?.[0].trim(),
  };
}
