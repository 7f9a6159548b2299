import { type ChildProcess, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type Lab, until } from './lab.ts';
import { Link } from './link.ts';
import { ThreadedLink, type LinkControls } from './threaded-link.ts';
import type { ServerSettings } from './xmpp-server.ts';

/** The port on which a server itself listens for others; the link to it listens on 5269. */
export const S2S_BEHIND_LINK = 15_269;
/** The port of its HTTPS server, if it has one. */
export const HTTPS_PORT = 5443;
/** Of all accounts and components. */
export const PASSWORD = 'secret';
/** A prefix for commands, to run other servers: `chroot <a tree of another Debian>`, for example. */
export const PREFIX = (process.env['SERVER_PREFIX'] ?? '').split(' ').filter((word) => word !== '');

/** What runs a server. */
export interface Command {
  readonly words: readonly string[];
  readonly environment?: NodeJS.ProcessEnv;
}

/** The process of a private server, and the links to it. */
export abstract class ServerProcess {
  readonly host: string;
  readonly links: ReadonlyMap<string, LinkControls>;
  readonly password = PASSWORD;
  /** Of its files. */
  protected readonly directory: string;
  /** All its domains. */
  protected readonly domains: readonly string[];
  /** The certificate of the authority that it trusts, if it is configured as in production. */
  protected trusted: string | undefined;
  readonly #isProduction: boolean;
  #process: ChildProcess | undefined;

  protected constructor(lab: Lab, name: string, settings: ServerSettings) {
    const { host, mucs = [], components = [], hasThreadedLinks = false, production } = settings;
    this.host = host;
    this.directory = join(lab.directory, `${name}-${host}`);
    this.domains = [host, ...mucs, ...components];
    this.#isProduction = production !== undefined;
    const Kind = hasThreadedLinks ? ThreadedLink : Link;
    this.links = new Map(this.domains.map((domain) => [domain, new Kind(domain, 5269, S2S_BEHIND_LINK)]));
  }

  /** Writes the configuration. The running server does not read it. */
  abstract configure(): Promise<void>;
  protected abstract readonly command: Command;
  protected abstract readonly logFile: string;
  /** A line of the log about an error. */
  protected abstract readonly errorLine: RegExp;

  /** Makes the certificates, the configuration and the links, and starts the server. */
  protected async open(lab: Lab): Promise<void> {
    lab.keep(this);
    if (this.#isProduction) {
      const authority = await lab.authority();
      await authority.certify(this.domains, join(this.directory, 'certs'));
      this.trusted = authority.certificate;
    }
    await this.configure();
    await this.mend();
    await this.start();
  }

  async start(): Promise<void> {
    const { words, environment = {} } = this.command;
    const [command = '', ...args] = [...PREFIX, ...words];
    const child = spawn(command, args, { stdio: 'ignore', env: { ...process.env, ...environment } });
    this.#process = child;
    child.on('exit', () => {
      if (this.#process === child) this.#process = undefined;
    });
    child.on('error', (error) => process.stderr.write(`${command} could not be started: ${error.message}\n`));
    await until(
      `the server of ${this.host} answers its users`,
      async () => {
        if (this.#process === undefined)
          throw new Error(`the server of ${this.host} ended: ${(await this.log()).slice(-2000)}`);
        return answers(this.host);
      },
      20_000,
    );
  }

  async kill(): Promise<void> {
    const child = this.#process;
    if (child === undefined) return;
    await new Promise<void>((resolve) => {
      child.once('exit', () => resolve());
      child.kill('SIGKILL');
    });
  }

  async stop(): Promise<void> {
    await this.kill();
    for (const link of this.links.values()) await link.stop();
  }

  async cut(): Promise<void> {
    for (const link of this.links.values()) await link.cut();
  }

  async mend(): Promise<void> {
    for (const link of this.links.values()) await link.mend();
  }

  log(): Promise<string> {
    return readFile(this.logFile, 'utf8').catch(() => '');
  }

  async errors(): Promise<readonly string[]> {
    return (await this.log()).split('\n').filter((line) => this.errorLine.test(line));
  }

  get service(): string {
    return `xmpp://${this.host}:5222`;
  }

  get websocketService(): string {
    return `ws://${this.host}:5280/xmpp-websocket`;
  }

  get boshService(): string {
    return `http://${this.host}:5280/http-bind`;
  }

  componentService(_domain: string): string {
    return `xmpp://${this.host}:5347`;
  }

  get pid(): number {
    const pid = this.#process?.pid;
    if (pid === undefined) throw new Error(`the server of ${this.host} does not run`);
    return pid;
  }
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
