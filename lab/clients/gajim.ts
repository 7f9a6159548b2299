import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { debianVersion } from '../../scripts/debian.ts';
import { until } from '../lab.ts';
import type { Prosody } from '../prosody.ts';
import type { Client, ClientOptions } from './client.ts';
import { Desktop } from './desktop.ts';
import { looker } from './look.ts';
import { makeHome, runAsPerson } from './person.ts';

const ACCOUNT = 'lab';
const PLUGIN = {
  name: 'PingMucLab',
  short_name: 'ping_muc_lab',
  description: 'the laboratory of ping-muc',
  authors: ['ping-muc'],
  homepage: '',
  config_dialog: false,
  version: '1.0',
  requirements: ['gajim>=1.4'],
  platforms: ['linux'],
};
/** Gajim 1.7's settings, in its database. */
const CREATE = `
import json, os, sqlite3, sys
folder = os.path.join(os.environ["XDG_CONFIG_HOME"], "gajim")
os.makedirs(folder)
database = sqlite3.connect(os.path.join(folder, "settings.sqlite"))
database.execute("CREATE TABLE settings (name TEXT UNIQUE, settings TEXT)")
database.execute("CREATE TABLE account_settings (account TEXT UNIQUE, settings TEXT)")
settings, account = json.loads(sys.argv[1])
for name, value in settings.items():
    database.execute("INSERT INTO settings VALUES (?, ?)", (name, json.dumps(value)))
database.execute("INSERT INTO account_settings VALUES (?, ?)", ("${ACCOUNT}", json.dumps(account)))
database.execute("PRAGMA user_version=5")
database.commit()
`;

/** What the page of the room shows. */
interface Look {
  readonly shown: readonly string[];
  /** The list of occupants: groups, nicks and more. */
  readonly listed: readonly string[];
}

/** The settings of Gajim, and of its account. */
function settingsFor(user: string, server: Prosody): readonly [settings: object, account: object] {
  const settings = {
    app: {
      use_keyring: false,
      check_for_update: false,
      show_trayicon: false,
      show_notifications: false,
      one_message_window: 'always',
      chat_handpaned_position: 0,
    },
    soundevents: {},
    status_presets: {},
    proxies: {},
    plugins: { ping_muc_lab: { active: true } },
    workspaces: { lab: {} },
  };
  const account = {
    account: {
      name: user,
      hostname: server.host,
      account_label: 'Juliet',
      resource: 'gajim',
      password: server.password,
      savepass: true,
      active: true,
      autoconnect: true,
      use_custom_host: true,
      custom_host: server.host,
      custom_port: 5222,
      custom_type: 'PLAIN',
      use_plain_connection: true,
      confirm_unencrypted_connection: false,
    },
    contact: {},
    group_chat: {},
  };
  return [settings, account];
}

/** Gajim, on a virtual screen. */
export async function gajim({ lab, server, user, room, nick }: ClientOptions): Promise<Client> {
  const home = await makeHome(lab, {
    'data/gajim/plugins/ping_muc_lab/__init__.py': 'from .plugin import PingMucLab\n',
    'data/gajim/plugins/ping_muc_lab/plugin.py': readFileSync(
      fileURLToPath(new URL('gajim.py', import.meta.url)),
      'utf8',
    ),
    'data/gajim/plugins/ping_muc_lab/plugin-manifest.json': JSON.stringify(PLUGIN),
  });
  const desktop = await Desktop.open(lab, home);
  const environment = { ...desktop.environment, LAB_ACCOUNT: ACCOUNT, LAB_ROOM: room, LAB_NICK: nick };
  const prepare = runAsPerson(lab, ['python3', '-c', CREATE, JSON.stringify(settingsFor(user, server))], {
    cwd: home,
    env: environment,
    stdio: 'inherit',
  });
  await until("Gajim's settings are written", () => prepare.exitCode !== null);
  const program = runAsPerson(lab, ['dbus-run-session', '--', 'gajim'], {
    cwd: home,
    env: environment,
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const look = looker<Look>(program, 'Gajim');
  await desktop.maximize('gajim');
  return {
    name: `Gajim ${debianVersion('gajim')}`,
    typeLine: (line) => desktop.type(line),
    shown: async () => (await look()).shown.join('\n'),
    occupants: async () => (await look()).listed.filter((text) => /^[A-Z]\w*$/.test(text)),
    farewell: async () => (await look()).shown.find((text) => text.includes('You have left')),
    picture: (path) => desktop.picture(path),
  };
}
