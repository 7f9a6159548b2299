import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { until } from '../lab.ts';
import type { Client, ClientOptions } from './client.ts';
import { makeHome, runAsPerson, within } from './person.ts';

type Event =
  | { readonly kind: 'version'; readonly version: string }
  | { readonly kind: 'line'; readonly nick: string; readonly body: string }
  | { readonly kind: 'left'; readonly nick: string; readonly codes: readonly string[] }
  | { readonly kind: 'error'; readonly condition: string }
  | { readonly kind: 'roster'; readonly nicks: readonly string[] };

/** A bot that is written with slixmpp, following its tutorial. */
export async function slixmpp({ lab, server, user, room, nick }: ClientOptions): Promise<Client> {
  const home = await makeHome(lab);
  const script = readFileSync(fileURLToPath(new URL('slixmpp.py', import.meta.url)), 'utf8');
  const bot = runAsPerson(lab, ['python3', '-c', script, server.host, user, server.password, room, nick], {
    cwd: home,
    env: within(home),
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const events: Event[] = [];
  if (bot.stdout === null) throw new Error('the bot has no output');
  createInterface({ input: bot.stdout }).on('line', (line) => events.push(JSON.parse(line) as Event));
  const of = <Kind extends Event['kind']>(kind: Kind): readonly Extract<Event, { kind: Kind }>[] =>
    events.filter((event): event is Extract<Event, { kind: Kind }> => event.kind === kind);
  const version = await until('the bot prints its version', () => of('version')[0]?.version);
  const gotOffline = (): string | undefined => {
    const event = of('left').findLast(({ nick: who }) => who === nick);
    return event === undefined ? undefined : `event got_offline for its own nick, status ${event.codes.join(', ')}`;
  };
  return {
    name: `slixmpp ${version}`,
    typeLine: (line) => Promise.resolve(void bot.stdin?.write(`${line}\n`)),
    shown: () =>
      Promise.resolve(
        of('line')
          .map(({ nick: sender, body }) => `${sender}: ${body}`)
          .join('\n'),
      ),
    occupants: () => Promise.resolve(of('roster').at(-1)?.nicks),
    farewell: () => Promise.resolve(gotOffline()),
  };
}
