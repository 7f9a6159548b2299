import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Lab } from './lab.ts';
import { ProsodyRooms } from './prosody-rooms.ts';
import type { Settings } from './printed-settings.ts';
import { type Command, HTTPS_PORT, PASSWORD, PREFIX, S2S_BEHIND_LINK, ServerProcess } from './server-process.ts';
import type { Production, Rooms, ServerSettings, Stream, XmppServer } from './xmpp-server.ts';

const run = promisify(execFile);

const MODULE = 'ping_muc_webhook';
const MODULES = ['roster', 'saslauth', 'dialback', 'disco', 'ping', 'smacks', 'admin_shell', 'http'];
/** Any user may create a room, and can enter it at once. */
const OPEN_ROOMS = 'restrict_room_creation = false\nmuc_room_locking = false';
const ARCHIVES = 'modules_enabled = { "muc_mam" }\nmuc_log_by_default = true';
/** What the shell shows of a stream. */
const COLUMNS = ['type', 'dir', 'remote', 'secure', 'cert', 'smacks'];

export interface ProsodySettings extends ServerSettings {
  /** Configuration for the global section, and for the host, beside that of the module. */
  readonly global?: string;
  readonly forHost?: string;
}

/** A private Prosody of the lab. */
export class Prosody extends ServerProcess implements XmppServer {
  readonly abilities = { bidi: true, managedStreams: true, emptyRequests: true };
  readonly rooms: Rooms;
  readonly #settings: ProsodySettings;
  /** The configuration of its host, and of hosts that were added. */
  readonly #forHost: string;
  #otherHosts = '';

  private constructor(lab: Lab, settings: ProsodySettings) {
    super(lab, 'prosody', settings);
    this.#settings = settings;
    this.#forHost = `${this.#ofModule().forHost}\n${settings.forHost ?? ''}`;
    this.rooms = new ProsodyRooms(this, this.directory);
  }

  /** The server as Prosody. @throws if it is another one: what is a test of Prosody alone says so in lab/differences.ts */
  static of(server: XmppServer): Prosody {
    if (server instanceof Prosody) return server;
    throw new Error('this needs Prosody');
  }

  static async start(lab: Lab, settings: ProsodySettings): Promise<Prosody> {
    const prosody = new Prosody(lab, settings);
    await prosody.open(lab);
    return prosody;
  }

  protected get command(): Command {
    return { words: ['prosody', '-F', '--config', this.config] };
  }

  protected get logFile(): string {
    return join(this.directory, 'prosody.log');
  }

  /** Except for certificates that are missing, which it does not need. */
  protected readonly errorLine = /^(?!.*certmanager\t).*(?:\terror\t|[Tt]raceback)/;

  /** `prosodyctl` for this server, as a command of the shell. */
  get controlCommand(): string {
    return [...PREFIX, '/usr/bin/prosodyctl', '--config', this.config].join(' ');
  }

  /** Runs a command of the admin shell, in one word or several, and returns its output. @throws with its error */
  async shell(...words: readonly string[]): Promise<string> {
    const [program = 'prosodyctl', ...args] = [...PREFIX, 'prosodyctl', '--config', this.config, 'shell', ...words];
    const { stdout } = await run(program, args, { timeout: 15_000 });
    return stdout;
  }

  async streams(remote: string): Promise<readonly Stream[]> {
    const shown = await this.shell(`s2s:show("${remote}", "${COLUMNS.join(' ')}")`);
    const rows = shown.split('\n').map((row) => row.split('|').map((cell) => cell.trim()));
    return rows
      .filter(([type = '', ...cells]) => /^s2s(in|out)$/.test(type) && cells.length === COLUMNS.length - 1)
      .map(([type, direction, domain = '', secure = '', cert, smacks]) => ({
        opener: type === 's2sout' ? 'this' : 'other',
        isBidi: direction === '<->',
        remote: domain,
        isEncrypted: secure.startsWith('TLS'),
        isCertified: cert === 'Valid',
        isManaged: smacks === 'yes',
      }));
  }

  async openStream(from: string, to: string): Promise<void> {
    // the other server may refuse the ping, but the stream is open then
    await this.shell(`xmpp:ping("${from}", "${to}")`).catch(() => undefined);
  }

  forgetFailures(): Promise<void> {
    return Promise.resolve();
  }

  async closeStreams(remote: string, condition?: string): Promise<void> {
    const pairs = this.domains.flatMap((domain) => [
      [domain, remote],
      [remote, domain],
    ]);
    // these fail if there is no such stream
    if (condition === undefined) await this.shell(`s2s:closeall("${remote}")`).catch(() => undefined);
    else
      for (const [from, to] of pairs)
        await this.shell(`s2s:close("${from}", "${to}", nil, "${condition}")`).catch(() => undefined);
  }

  closeCommand(from: string, to: string): string {
    return `${this.controlCommand} shell s2s close ${from} ${to}`;
  }

  async limitStreams(): Promise<void> {
    await this.shell('module:load("limits", "*")');
  }

  async connections(): Promise<readonly ('BOSH' | 'TCP' | 'WebSocket')[]> {
    const shown = await this.shell('c2s:show(nil, "jid method")');
    return [...shown.matchAll(/TCP|WebSocket|BOSH/g)].map(([method]) => method as 'BOSH' | 'TCP' | 'WebSocket');
  }

  async unacknowledged(jid: string): Promise<number> {
    const count = `prosody.full_sessions["${jid}"].outgoing_stanza_queue:count_unacked()`;
    return Number(/Result: (\d+)/.exec(await this.shell(`>return ${count}`))?.[1]);
  }

  async set(changes: Settings = {}): Promise<void> {
    await this.reload(`${this.#ofModule(changes).forHost}\n${this.#settings.forHost ?? ''}`);
  }

  async reloadModule(): Promise<void> {
    await this.shell(`module:reload("${MODULE}", "${this.host}")`);
  }

  async restartModule(): Promise<void> {
    await this.unloadModule();
    await this.loadModule();
  }

  async unloadModule(): Promise<void> {
    await this.shell(`module:unload("${MODULE}", "${this.host}")`);
  }

  async loadModule(): Promise<void> {
    await this.shell(`module:load("${MODULE}", "${this.host}")`);
  }

  moduleCommand(name: 'announce' | 'status'): Promise<string> {
    return this.shell('ping_muc', name);
  }

  async heapKb(): Promise<number> {
    const count = '(collectgarbage() == 0 and collectgarbage() == 0) and collectgarbage("count")';
    const output = await this.shell(`>return ${count}`);
    const kilobytes = /Result: ([\d.]+)/.exec(output)?.[1];
    if (kilobytes === undefined) throw new Error(`the shell does not show the memory in use: ${output}`);
    return Number(kilobytes);
  }

  async addHost(
    host: string,
    users: readonly string[],
    changes: Settings,
  ): Promise<Pick<XmppServer, 'host' | 'service' | 'password'>> {
    await this.#writeAccounts(host, users);
    this.#otherHosts = `VirtualHost "${host}"\n${this.#ofModule(changes).forHost}`;
    await this.reload();
    await this.shell(`host:activate("${host}")`);
    return { host, service: this.service, password: PASSWORD };
  }

  /** Sets the configuration of the host, and reloads it. By default, it is restored. */
  async reload(forHost = this.#forHost): Promise<void> {
    await this.configure(forHost);
    await this.shell('config:reload()');
  }

  /** Its configuration file. */
  get config(): string {
    return join(this.directory, 'prosody.cfg.lua');
  }

  /** For streams between servers, and for real clients. */
  #tls({ realClients = false }: Production): string {
    const notForClients = `c2s_ssl = { certificate = "${this.directory}/none" }`;
    return `ssl = { cafile = "${this.trusted}" }\n${realClients ? '' : notForClients}`;
  }

  #https(): string {
    const { host, httpsCertificate: folder } = this.#settings;
    if (folder === undefined) return 'https_ports = {}';
    const files = `certificate = "${folder}/server.crt", key = "${folder}/server.key"`;
    return `https_interfaces = { "${host}" }\nhttps_ports = { ${HTTPS_PORT} }\nhttps_ssl = { ${files} }`;
  }

  /** The module's settings, as the functions print them, with changes: for the global section and for the host. */
  #ofModule(changes: Settings = {}): { global: string; forHost: string } {
    const { module } = this.#settings;
    return module?.runtime.printed.prosodySettings({ ...module.changes, ...changes }) ?? { global: '', forHost: '' };
  }

  register(users: readonly string[]): Promise<void> {
    return this.#writeAccounts(this.host, users);
  }

  async #writeAccounts(host: string, users: readonly string[]): Promise<void> {
    const accounts = join(this.directory, 'data', host.replaceAll('.', '%2e'), 'accounts');
    await mkdir(accounts, { recursive: true });
    for (const user of users)
      await writeFile(join(accounts, `${user}.dat`), `return { ["password"] = "${PASSWORD}" };\n`);
  }

  /** Writes the configuration. The running server does not read it. */
  async configure(forHost = this.#forHost): Promise<void> {
    const { host, mucs = [], components = [], users = [], production, isManaged = true } = this.#settings;
    const { hibernationSeconds, hibernationStanzas, hasArchives = false } = this.#settings;
    const global = [
      this.#ofModule().global,
      `smacks_enabled_s2s = ${isManaged}`,
      hibernationSeconds === undefined ? '' : `smacks_hibernation_time = ${hibernationSeconds}`,
      hibernationStanzas === undefined ? '' : `smacks_max_queue_size = ${hibernationStanzas}`,
      this.#settings.global ?? '',
    ].join('\n');
    await this.#writeAccounts(host, users);
    const list = (domains: readonly string[]): string => domains.map((domain) => `"${domain}"`).join(', ');
    const level = process.env['PROSODY_LOG'] ?? 'info';
    const log = `{ levels = { min = "${level}" }, to = "file", filename = "${this.directory}/prosody.log" }`;
    const modules = [...MODULES, ...(production === undefined ? [] : productionModules(production))];
    const config = `
run_as_root = true
data_path = "${this.directory}/data"
admin_socket = "${this.directory}/prosody.sock"
log = { ${log} }
modules_enabled = { ${list(modules)} }
${production === undefined ? 'modules_disabled = { "tls", "s2s_auth_certs" }' : this.#tls(production)}
interfaces = { "${host}" }
s2s_interfaces = { ${list(this.domains)} }
s2s_ports = { ${S2S_BEHIND_LINK} }
c2s_ports = { 5222 }
http_interfaces = { "${host}" }
http_ports = { 5280 }
${this.#https()}
component_interfaces = { "${host}" }
component_ports = { 5347 }
c2s_require_encryption = false
s2s_require_encryption = ${production !== undefined}
s2s_secure_auth = ${production !== undefined}
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
muc_room_cache_size = 100000
${global}
VirtualHost "${host}"
${forHost}
${this.#otherHosts}
${mucs.map((muc) => `Component "${muc}" "muc"\n${OPEN_ROOMS}\n${hasArchives ? ARCHIVES : ''}\n`).join('')}
${components.map((component) => `Component "${component}"\ncomponent_secret = "${PASSWORD}"\n`).join('')}`;
    await writeFile(this.config, config);
  }
}

function productionModules({ bidi = true, realClients = false, limits = false }: Production): readonly string[] {
  return [
    'tls',
    'carbons',
    'csi_simple',
    'bosh',
    'websocket',
    ...(bidi ? ['s2s_bidi'] : []),
    ...(realClients ? ['mam'] : []), // without it, Dino 0.4.2 crashes when it enters a room with an archive
    ...(limits ? ['limits'] : []),
  ];
}
