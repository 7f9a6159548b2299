import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Lab, until } from './lab.ts';
import { Link } from './link.ts';
import { ThreadedLink, type LinkControls } from './threaded-link.ts';

const run = promisify(execFile);

/** The port on which the server itself listens; the link to it listens on 5269. */
const S2S_BEHIND_LINK = 15_269;
const PASSWORD = 'secret';
const MODULES = ['roster', 'saslauth', 'dialback', 'disco', 'ping', 'smacks', 'admin_shell', 'http'];
/** Any user may create a room, and can enter it at once. */
const OPEN_ROOMS = 'restrict_room_creation = false\nmuc_room_locking = false';
/** A prefix for the command, to run another Prosody: `chroot <a tree of another Debian>`, for example. */
const PREFIX = (process.env['PROSODY_PREFIX'] ?? '').split(' ').filter((word) => word !== '');

/** How a server in production connects to others, and how it limits traffic. */
export interface Production {
  /** One connection carries the stanzas of both directions (XEP-0288); true by default. */
  readonly bidi?: boolean;
  /** Real clients get TLS and archives. False by default: the lab's own clients would use TLS, and be slow. */
  readonly realClients?: boolean;
  /** Streams are limited to Debian's defaults (mod_limits: c2s 10 kb/s, incoming s2s 30 kb/s). */
  readonly limits?: boolean;
}

/** A server-to-server stream, as the shell shows it. */
export interface Stream {
  readonly type: 's2sin' | 's2sout' | 's2sin_unauthed' | 's2sout_unauthed';
  /** The direction of stanzas: `<->` if it is bidirectional. */
  readonly dir: '-->' | '<--' | '<->';
  readonly remote: string;
  /** The version of TLS, or `insecure`. */
  readonly secure: string;
  /** How the remote host was authenticated: `External` means by its certificate. */
  readonly sasl: string;
  readonly cert: string;
  /** Whether it is managed (XEP-0198). */
  readonly smacks: string;
}

const COLUMNS = ['type', 'dir', 'remote', 'secure', 's2s_sasl', 'cert', 'smacks'];

export interface ProsodySettings {
  /** The domain of its users, an address of the lab. */
  readonly host: string;
  /** Domains of its chat services. */
  readonly mucs?: readonly string[];
  /** Configuration for each chat service. */
  readonly forMucs?: string;
  /** Domains of external components, which log in with the users' password. */
  readonly components?: readonly string[];
  /** Accounts; all have the same password. */
  readonly users?: readonly string[];
  /**
   * Configures the server as in production: TLS and certificates are required between servers, streams are managed, and
   * it has the modules of Debian's configuration that affect what clients receive. By default, streams are unencrypted
   * and authenticated by dialback, and each direction has its own stream, so that a test can cut one direction only.
   */
  readonly production?: Production;
  /** The links to it have threads of their own, for measurements while the test is busy. */
  readonly hasThreadedLinks?: boolean;
  /** Configuration for the global section, and for the host. */
  readonly global?: string;
  readonly forHost?: string;
}

/** A private Prosody of the lab. */
export class Prosody {
  readonly host: string;
  /** The links to its domains. */
  readonly links: ReadonlyMap<string, LinkControls>;
  readonly #settings: ProsodySettings;
  readonly #directory: string;
  /** The certificate of the authority that it trusts, if it is configured as in production. */
  #trusted: string | undefined;
  #process: ChildProcess | undefined;

  private constructor(settings: ProsodySettings, directory: string) {
    this.host = settings.host;
    this.#settings = settings;
    this.#directory = directory;
    this.links = new Map(
      this.#domains().map((domain) => [
        domain,
        new (settings.hasThreadedLinks === true ? ThreadedLink : Link)(domain, 5269, S2S_BEHIND_LINK),
      ]),
    );
  }

  static async start(lab: Lab, settings: ProsodySettings): Promise<Prosody> {
    const prosody = new Prosody(settings, join(lab.directory, `prosody-${settings.host}`));
    lab.keep(prosody);
    if (settings.production !== undefined) {
      const authority = await lab.authority();
      await authority.certify(prosody.#domains(), join(prosody.#directory, 'certs'));
      prosody.#trusted = authority.certificate;
    }
    await prosody.configure();
    for (const link of prosody.links.values()) await link.mend();
    await prosody.start();
    return prosody;
  }

  async start(): Promise<void> {
    const [command, ...args] = [...PREFIX, 'prosody', '-F', '--config', this.config];
    const child = spawn(command, args, { stdio: 'ignore' });
    this.#process = child;
    child.on('exit', () => {
      if (this.#process === child) this.#process = undefined;
    });
    child.on('error', (error) => process.stderr.write(`prosody could not be started: ${error.message}\n`));
    await until(
      `Prosody of ${this.host} answers its users`,
      async () => {
        if (this.#process === undefined)
          throw new Error(`Prosody of ${this.host} ended: ${(await this.log()).slice(-2000)}`);
        return answers(this.host);
      },
      20_000,
    );
  }

  /** Sends SIGKILL: no stream is closed cleanly. */
  async kill(): Promise<void> {
    const child = this.#process;
    if (child === undefined) return;
    await new Promise<void>((resolve) => {
      child.once('exit', () => resolve());
      child.kill('SIGKILL');
    });
  }

  /** Stops the server and its links. */
  async stop(): Promise<void> {
    await this.kill();
    for (const link of this.links.values()) await link.stop();
  }

  /** Cuts the links to all its domains. */
  async cut(): Promise<void> {
    for (const link of this.links.values()) await link.cut();
  }

  async mend(): Promise<void> {
    for (const link of this.links.values()) await link.mend();
  }

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

  /** The streams from and to a domain. */
  async streams(remote: string): Promise<readonly Stream[]> {
    const shown = await this.shell(`s2s:show("${remote}", "${COLUMNS.join(' ')}")`);
    const rows = shown.split('\n').map((row) => row.split('|').map((cell) => cell.trim()));
    return rows
      .filter(([type = '', ...cells]) => type.startsWith('s2s') && cells.length === COLUMNS.length - 1)
      .map(
        ([type, dir, domain, secure, sasl, cert, smacks]) =>
          ({ type, dir, remote: domain, secure, sasl, cert, smacks }) as Stream,
      );
  }

  /** Changes the settings of the host and reloads the configuration. */
  async reload(forHost = this.#settings.forHost): Promise<void> {
    await this.configure(forHost);
    await this.shell('config:reload()');
  }

  log(): Promise<string> {
    return readFile(join(this.#directory, 'prosody.log'), 'utf8').catch(() => '');
  }

  /**
   * Where clients log in by websocket (RFC 7395), and by HTTP (BOSH, XEP-0206), if it is configured as in production.
   */
  get websocketService(): string {
    return `ws://${this.host}:5280/xmpp-websocket`;
  }

  get boshService(): string {
    return `http://${this.host}:5280/http-bind`;
  }

  get service(): string {
    return `xmpp://${this.host}:5222`;
  }

  /** Where its external components log in. */
  get componentService(): string {
    return `xmpp://${this.host}:5347`;
  }

  /** The id of its process. @throws if it does not run */
  get pid(): number {
    const pid = this.#process?.pid;
    if (pid === undefined) throw new Error(`Prosody of ${this.host} does not run`);
    return pid;
  }

  get password(): string {
    return PASSWORD;
  }

  /** Its configuration file. */
  get config(): string {
    return join(this.#directory, 'prosody.cfg.lua');
  }

  #domains(): readonly string[] {
    return [this.#settings.host, ...(this.#settings.mucs ?? []), ...(this.#settings.components ?? [])];
  }

  /** For streams between servers, and for real clients. */
  #tls({ realClients = false }: Production): string {
    const notForClients = `c2s_ssl = { certificate = "${this.#directory}/none" }`;
    return `ssl = { cafile = "${this.#trusted}" }\n${realClients ? '' : notForClients}`;
  }

  /** Writes the configuration. The running server does not read it. */
  async configure(forHost = this.#settings.forHost): Promise<void> {
    const { host, mucs = [], forMucs = '', components = [], users = [], global = '', production } = this.#settings;
    const accounts = join(this.#directory, 'data', host.replaceAll('.', '%2e'), 'accounts');
    await mkdir(accounts, { recursive: true });
    for (const user of users)
      await writeFile(join(accounts, `${user}.dat`), `return { ["password"] = "${PASSWORD}" };\n`);
    const list = (domains: readonly string[]): string => domains.map((domain) => `"${domain}"`).join(', ');
    const level = process.env['PROSODY_LOG'] ?? 'info';
    const log = `{ levels = { min = "${level}" }, to = "file", filename = "${this.#directory}/prosody.log" }`;
    const modules = [...MODULES, ...(production === undefined ? [] : productionModules(production))];
    const config = `
run_as_root = true
data_path = "${this.#directory}/data"
admin_socket = "${this.#directory}/prosody.sock"
log = { ${log} }
modules_enabled = { ${list(modules)} }
${production === undefined ? 'modules_disabled = { "tls", "s2s_auth_certs" }' : this.#tls(production)}
interfaces = { "${host}" }
s2s_interfaces = { ${list(this.#domains())} }
s2s_ports = { ${S2S_BEHIND_LINK} }
c2s_ports = { 5222 }
http_interfaces = { "${host}" }
http_ports = { 5280 }
${/^https_ports = /m.test(global) ? '' : 'https_ports = {}'}
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
${forHost ?? ''}
${mucs.map((muc) => `Component "${muc}" "muc"\n${OPEN_ROOMS}\n${forMucs}\n`).join('')}
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

/** Whether a server accepts clients of a domain: it listens before it has loaded its domains. */
function answers(domain: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(5222, domain);
    let output = '';
    socket.setTimeout(2000, () => socket.destroy());
    socket.once('connect', () => {
      socket.write(
        '<stream:stream xmlns="jabber:client" xmlns:stream="http://etherx.jabber.org/streams" version="1.0" ' +
          `to="${domain}">`,
      );
    });
    socket.on('data', (data) => {
      output += data.toString();
      if (output.includes('<stream:features') || output.includes('<stream:error')) socket.destroy();
    });
    socket.on('error', () => undefined); // 'close' follows
    socket.once('close', () => resolve(output.includes('<stream:features')));
  });
}
