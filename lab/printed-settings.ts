import { SERVERS, type ServerName } from '../infra/server-settings.ts';
import { MODULES } from '../local/installation.ts';

/** Settings of the server's module. */
export type Settings = Readonly<Record<string, string | number | boolean | readonly string[]>>;

/** The settings that the functions print for each server, and these with the changes that a test needs. */
export class PrintedSettings {
  readonly #texts: ReadonlyMap<ServerName, string>;

  constructor(texts: ReadonlyMap<ServerName, string>) {
    this.#texts = texts;
  }

  /** As the functions would print them, for a receiver of webhooks in their place. */
  static for(webhookUrl: string, secret: string): PrintedSettings {
    const values = { serverApiUrl: 'http://{host}:5280/ping_muc', webhookUrl, secret };
    const names = Object.keys(SERVERS) as ServerName[];
    const printed = (name: ServerName): string => SERVERS[name].settings({ ...values, modules: MODULES[name] });
    return new PrintedSettings(new Map(names.map((name) => [name, printed(name)])));
  }

  settingsFor(server: ServerName): string {
    return this.#texts.get(server) ?? '';
  }

  /** For the global section of Prosody, and for the host. */
  prosodySettings(changes: Settings = {}): { global: string; forHost: string } {
    const [, globalPart = '', hostPart = ''] = this.settingsFor('prosody').split(
      /^-- (?:at the top|below the line).*$/m,
    );
    const lua = (value: Settings[string]): string =>
      typeof value === 'object' ? `{ ${value.map(lua).join(', ')} }` : JSON.stringify(value);
    const changed = (part: string, isOf: (name: string) => boolean): string => {
      const own = Object.entries(changes).filter(([name]) => isOf(name));
      const kept = part.split('\n').filter((line) => !own.some(([name]) => line.startsWith(`${name} =`)));
      return [...kept, ...own.map(([name, value]) => `${name} = ${lua(value)}`)].join('\n');
    };
    const isGlobal = (name: string): boolean => globalPart.split('\n').some((line) => line.startsWith(`${name} =`));
    return { global: changed(globalPart, isGlobal), forHost: changed(hostPart, (name) => !isGlobal(name)) };
  }
}
