import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { type Lab, until } from './lab.ts';
import { compiledModule } from './ejabberd-module.ts';
import { EjabberdRooms } from './ejabberd-rooms.ts';
import { COMPILE_AND_LOAD, LIBRARIES, SHELL_PORT, SHELL_TIMEOUT_MS, binary, shell } from './erlang.ts';
import type { Settings } from './printed-settings.ts';
import { type Command, HTTPS_PORT, PASSWORD, S2S_BEHIND_LINK, ServerProcess } from './server-process.ts';
import type { Rooms, ServerSettings, Stream, XmppServer } from './xmpp-server.ts';

const MODULE = 'mod_ping_muc_webhook';
const LAB_CODE = fileURLToPath(new URL('ejabberd_lab.erl', import.meta.url));
/** Without the limits for a server that everybody can use, so that a test can have many sessions and rooms. */
const MANY = 100_000;
const MODULES = {
  ...{ mod_adhoc: {}, mod_caps: {}, mod_disco: {}, mod_http_api: {}, mod_ping: {}, mod_roster: {} },
  mod_stream_mgmt: { resend_on_timeout: 'if_offline' },
};
const PRODUCTION_MODULES = { mod_bosh: {}, mod_carboncopy: {}, mod_client_state: {} };
const FIRST_COMPONENT = 5347;
/** It compiles a module, for example. */
const COMMAND_TIMEOUT_MS = 60_000;
/**
 * After a connection that failed, it returns all stanzas to that host for a random time, by default of up to 300
 * seconds. The module ends that time. Without it, the rooms' server would not answer for so long.
 */
const RETRY_SECONDS = 1;
/** Bytes a second, as Debian's configuration of Prosody has them. */
const LIMITS = { slow_clients: 10_240, slow_servers: 30_720 };
/** What Debian's ejabberdctl passes to Erlang, and without the distribution: nothing listens beside what is configured. */
const ERLANG = ['+K', 'true', '+sbwt', 'none', '+sbwtdcpu', 'none', '+sbwtdio', 'none', '-noinput'];

export interface EjabberdSettings extends ServerSettings {
  /** The folder with modules of others, and their sources (CONTRIB_MODULES_PATH). */
  readonly contrib?: string;
}

/**
 * A private ejabberd of the lab. It runs without Erlang's distribution, so it needs no epmd, and ejabberdctl does not
 * reach it: an interpreter of Erlang listens on loopback instead.
 */
export class Ejabberd extends ServerProcess implements XmppServer {
  readonly abilities = { bidi: false, managedStreams: false, emptyRequests: false };
  readonly rooms: Rooms;
  readonly #settings: EjabberdSettings;
  /** The compiled module, if it has it. */
  #beams: string | undefined;
  #changes: Settings = {};
  #otherHosts: Readonly<Record<string, Settings>> = {};
  #isLimited = false;
  #labCode: Promise<unknown> | undefined;

  private constructor(lab: Lab, settings: EjabberdSettings) {
    super(lab, 'ejabberd', settings);
    this.#settings = settings;
    this.rooms = new EjabberdRooms(this);
  }

  /** The server as ejabberd. @throws if it is another one: what is a test of ejabberd alone says so in lab/differences.ts */
  static of(server: XmppServer): Ejabberd {
    if (server instanceof Ejabberd) return server;
    throw new Error('this needs ejabberd');
  }

  static async start(lab: Lab, settings: EjabberdSettings): Promise<Ejabberd> {
    const ejabberd = new Ejabberd(lab, settings);
    if (settings.module !== undefined) ejabberd.#beams = await compiledModule(lab);
    await ejabberd.open(lab);
    return ejabberd;
  }

  override async start(): Promise<void> {
    this.#labCode = undefined;
    await super.start();
    const isRunning = 'lists:keymember(ejabberd, 1, application:which_applications()).';
    await until(`all of ${this.host} runs`, async () => (await this.shell(isRunning)) === 'true');
    await this.register(this.#settings.users ?? []);
  }

  protected get command(): Command {
    const beams = this.#beams === undefined ? [] : ['-pa', this.#beams];
    const words = ['-mnesia', 'dir', `"${this.directory}/spool"`, '-eval', shell(this.host), '-s', 'ejabberd'];
    const environment = {
      EJABBERD_CONFIG_PATH: this.config,
      EJABBERD_LOG_PATH: this.logFile,
      ERL_CRASH_DUMP: join(this.directory, 'crash.dump'),
      ERL_LIBS: LIBRARIES,
      CONTRIB_MODULES_PATH: this.#settings.contrib ?? join(this.directory, 'modules'),
    };
    return { words: ['erl', ...ERLANG, ...beams, ...words], environment };
  }

  protected get logFile(): string {
    return join(this.directory, 'ejabberd.log');
  }

  override componentService(domain: string): string {
    return `xmpp://${this.host}:${FIRST_COMPONENT + (this.#settings.components ?? []).indexOf(domain)}`;
  }

  /** Crashes of processes are errors, too. */
  protected readonly errorLine = /\[(?:error|critical|alert|emergency)\]/;

  /** Its configuration file. */
  get config(): string {
    return join(this.directory, 'ejabberd.yml');
  }

  /** Evaluates Erlang, which returns a binary or any other term, and returns that as text. @throws with its error */
  async shell(erlang: string): Promise<string> {
    const socket = connect(SHELL_PORT, this.host);
    try {
      socket.setTimeout(SHELL_TIMEOUT_MS, () => socket.destroy(new Error('the shell does not answer')));
      await once(socket, 'connect');
      const bytes = Buffer.from(erlang);
      const length = Buffer.alloc(4);
      length.writeUInt32BE(bytes.length);
      socket.write(Buffer.concat([length, bytes]));
      const parts: Buffer[] = [];
      for await (const part of socket) parts.push(part as Buffer);
      const answer = Buffer.concat(parts).subarray(4).toString(); // after its length
      if (!answer.startsWith('+')) throw new Error(`${erlang}: ${answer.slice(1)}`);
      return answer.slice(1);
    } finally {
      socket.destroy();
    }
  }

  /** Runs a command of ejabberdctl through the HTTP API, and returns its result. @throws with its error */
  async ejabberdctl(name: string, values: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    const response = await fetch(`http://${this.host}:5280/api/${name}`, {
      method: 'POST',
      body: JSON.stringify(values),
      signal: AbortSignal.timeout(COMMAND_TIMEOUT_MS),
    });
    const answer = await response.text();
    if (!response.ok) throw new Error(`${name}: ${response.status} ${answer}`);
    return JSON.parse(answer);
  }

  /** Calls a function of ejabberd_lab.erl. */
  async call(name: string, ...terms: readonly string[]): Promise<string> {
    this.#labCode ??= this.shell(`${COMPILE_AND_LOAD}("${LAB_CODE}").`);
    await this.#labCode;
    return this.shell(`ejabberd_lab:${name}(${terms.join(', ')}).`);
  }

  async streams(remote: string): Promise<readonly Stream[]> {
    const streams = JSON.parse(await this.call('streams', binary(remote))) as Pick<
      Stream,
      'opener' | 'remote' | 'isEncrypted'
    >[];
    // without dialback, a stream can be authenticated by a certificate only
    const isCertified = this.#settings.production !== undefined;
    return streams.map((stream) => ({ ...stream, isBidi: false, isCertified, isManaged: false }));
  }

  async openStream(from: string, to: string): Promise<void> {
    await this.call('open_stream', binary(from), binary(to));
    const isOpen = async (): Promise<boolean> => (await this.streams(to)).some(({ opener }) => opener === 'this');
    await until(`a stream from ${from} to ${to} is open`, isOpen);
  }

  async forgetFailures(remote: string): Promise<void> {
    await this.call('forget_failures', binary(remote));
  }

  async closeStreams(remote: string, condition = ''): Promise<void> {
    await this.call('close_streams', binary(remote), binary(condition));
  }

  async limitStreams(): Promise<void> {
    this.#isLimited = true;
    await this.#reload();
  }

  async connections(): Promise<readonly ('BOSH' | 'TCP' | 'WebSocket')[]> {
    const NAMES = { c2s: 'TCP', http_bind: 'BOSH', websocket: 'WebSocket' } as const;
    const connections = JSON.parse(await this.call('connections', binary(this.host))) as (keyof typeof NAMES)[];
    return connections.map((connection) => NAMES[connection]);
  }

  async unacknowledged(jid: string): Promise<number> {
    return Number(await this.call('unacknowledged', binary(jid)));
  }

  async set(changes: Settings = {}): Promise<void> {
    this.#changes = changes;
    await this.#reload();
  }

  /** A module that was updated is stopped and started (`ejabberdctl module_upgrade`). */
  async reloadModule(): Promise<void> {
    await this.restartModule();
  }

  async restartModule(): Promise<void> {
    await this.unloadModule();
    await this.loadModule();
  }

  async unloadModule(): Promise<void> {
    await this.shell(`gen_mod:stop_module_keep_config(${binary(this.host)}, ${MODULE}).`);
  }

  async loadModule(): Promise<void> {
    await this.shell(`gen_mod:start_module(${binary(this.host)}, ${MODULE}).`);
  }

  async moduleCommand(name: 'announce' | 'status'): Promise<string> {
    return JSON.stringify(await this.ejabberdctl(`ping_muc_${name}`));
  }

  async heapKb(): Promise<number> {
    return Number(await this.call('memory')) / 1024;
  }

  async addHost(
    host: string,
    users: readonly string[],
    changes: Settings,
  ): Promise<Pick<XmppServer, 'host' | 'service' | 'password'>> {
    this.#otherHosts = { ...this.#otherHosts, [host]: changes };
    await this.#reload();
    await this.#register(host, users);
    return { host, service: this.service, password: PASSWORD };
  }

  closeCommand(): string {
    return `curl --data '{}' http://${this.host}:5280/api/stop_s2s_connections  # all`;
  }

  register(users: readonly string[]): Promise<void> {
    return this.#register(this.host, users);
  }

  async #register(host: string, users: readonly string[]): Promise<void> {
    const each = `fun(User) -> ejabberd_auth:try_register(User, ${binary(host)}, ${binary(PASSWORD)}) end`;
    await this.shell(`lists:foreach(${each}, [${users.map(binary).join(', ')}]).`);
  }

  async #reload(): Promise<void> {
    await this.configure();
    const answer = await this.shell('ejabberd_config:reload().');
    if (answer !== 'ok') throw new Error(`the configuration was not accepted: ${answer}`);
  }

  async configure(): Promise<void> {
    await mkdir(this.directory, { recursive: true });
    await writeFile(this.config, JSON.stringify(this.#configuration(), undefined, 1)); // JSON is YAML, too
  }

  #configuration(): object {
    const { host, production, module, httpsCertificate } = this.#settings;
    const certificates = production === undefined ? httpsCertificate : join(this.directory, 'certs');
    const others = Object.entries(this.#otherHosts);
    const tls = {
      s2s_use_starttls: 'required',
      s2s_cafile: this.trusted,
    };
    return {
      hosts: [host, ...others.map(([name]) => name)],
      loglevel: process.env['EJABBERD_LOG'] ?? 'info',
      auth_method: 'internal',
      auth_password_format: 'plain',
      ...(production === undefined ? { s2s_use_starttls: false } : tls),
      ...(certificates && { certfiles: ['crt', 'key'].map((ending) => join(certificates, `server.${ending}`)) }),
      ...(module === undefined && { s2s_max_retry_delay: RETRY_SECONDS }),
      shaper: LIMITS,
      // by rules: a listener whose options change is started again, while the old one may still listen
      shaper_rules: {
        max_user_sessions: MANY,
        clients: { [this.#isLimited ? 'slow_clients' : 'none']: 'all' },
        servers: { [this.#isLimited ? 'slow_servers' : 'none']: 'all' },
      },
      api_permissions: { lab: { who: { ip: '127.0.0.0/8' }, what: '*' } },
      listen: this.#listeners(),
      modules: { ...this.#modules(), ...this.#ofModule(this.#changes) },
      host_config: Object.fromEntries(
        others.map(([name, changes]) => [name, { modules: { ...this.#modules(), ...this.#ofModule(changes) } }]),
      ),
    };
  }

  #listeners(): readonly object[] {
    const { host, components = [], module, httpsCertificate } = this.#settings;
    const handlers = {
      ...(module !== undefined && { '/ping_muc': MODULE }),
      '/api': 'mod_http_api',
      '/http-bind': 'mod_bosh',
      '/xmpp-websocket': 'ejabberd_http_ws',
    };
    const http = { module: 'ejabberd_http', request_handlers: handlers };
    return [
      { port: 5222, ip: host, module: 'ejabberd_c2s', shaper: 'clients' },
      ...this.domains.map((ip) => ({ port: S2S_BEHIND_LINK, ip, module: 'ejabberd_s2s_in', shaper: 'servers' })),
      { port: 5280, ip: host, ...http },
      ...(httpsCertificate === undefined ? [] : [{ port: HTTPS_PORT, ip: host, ...http, tls: true }]),
      // with one listener for all, each connection would be for all
      ...components.map((domain, index) => ({
        port: FIRST_COMPONENT + index,
        ip: host,
        module: 'ejabberd_service',
        hosts: { [domain]: { password: PASSWORD } },
      })),
    ];
  }

  #modules(): object {
    const { mucs = [], hasArchives = false, production, hibernationSeconds, hibernationStanzas } = this.#settings;
    const archive = hasArchives || production?.realClients === true;
    const rooms = { hosts: mucs, max_user_conferences: MANY, max_users: 5000, default_room_options: { mam: archive } };
    // it also ends a session whose client acknowledges so many late, as one does on a busy machine
    const kept = { max_ack_queue: hibernationStanzas ?? MANY };
    const resume = hibernationSeconds === undefined ? kept : { ...kept, resume_timeout: hibernationSeconds };
    return {
      ...MODULES,
      mod_stream_mgmt: { ...MODULES.mod_stream_mgmt, ...resume },
      ...(archive && { mod_mam: { default: 'never' } }),
      ...(mucs.length > 0 && { mod_muc: rooms }),
      ...(production === undefined ? { mod_s2s_dialback: {} } : PRODUCTION_MODULES),
    };
  }

  /** The module, with the settings that the functions print, and with changes. */
  #ofModule(changes: Settings): object {
    const { module } = this.#settings;
    if (module === undefined) return {};
    const { modules } = parse(module.runtime.printed.settingsFor('ejabberd')) as { modules: Record<string, object> };
    const own = Object.entries({ ...module.changes, ...changes }).filter(([name]) => name.startsWith('ping_muc_'));
    return {
      [MODULE]: {
        ...modules[MODULE],
        ...Object.fromEntries(own.map(([name, value]) => [name.replace('ping_muc_', ''), value])),
      },
    };
  }
}
