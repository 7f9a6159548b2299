import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, open, writeFile } from 'node:fs/promises';
import { type Server, createServer, request } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ensurePackages } from '../../scripts/debian.ts';
import { type Lab, until } from '../lab.ts';

const REQUIREMENTS = fileURLToPath(new URL('requirements.txt', import.meta.url));
/** `npm ci` empties it. */
const CACHE = fileURLToPath(new URL('../../node_modules/.cache/ping-muc-aws', import.meta.url));
const INSTALL_TIMEOUT_MS = 300_000;
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 10_000;
const REGION = 'us-east-1';

/** Installs ministack, the AWS CLI and cfn-lint, if they are missing. Returns their folder. */
export async function installAwsTools(): Promise<string> {
  const commands = join(CACHE, 'bin');
  const mark = join(CACHE, 'complete');
  if (existsSync(mark)) return commands;
  ensurePackages(['python3-venv']);
  await mkdir(CACHE, { recursive: true });
  for (const [command, ...args] of [
    ['/usr/bin/python3', '-m', 'venv', '--clear', CACHE],
    [join(commands, 'pip'), 'install', '--quiet', '--require-hashes', '--requirement', REQUIREMENTS],
  ] as const) {
    const { status, stderr, error } = spawnSync(command, args, { encoding: 'utf8', timeout: INSTALL_TIMEOUT_MS });
    if (status !== 0) throw new Error(`${command} ${args.join(' ')} failed: ${String(error ?? stderr.slice(-2000))}`);
  }
  await writeFile(mark, '');
  return commands;
}

/** An AWS on this machine that we did not write: ministack, empty at its start. */
export class Emulator {
  /** For the SDK, the CDK and the AWS CLI. */
  readonly environment: NodeJS.ProcessEnv;
  readonly endpoint: string;
  readonly #process: ChildProcess;
  readonly #relays: Server[] = [];

  private constructor(endpoint: string, environment: NodeJS.ProcessEnv, child: ChildProcess) {
    this.endpoint = endpoint;
    this.environment = environment;
    this.#process = child;
  }

  static async start(lab: Lab): Promise<Emulator> {
    const commands = await installAwsTools();
    const port = await freePort();
    const directory = join(lab.directory, 'aws');
    await mkdir(directory, { recursive: true });
    // functions run on this Node
    const path = [commands, dirname(process.execPath), process.env['PATH']].join(delimiter);
    const log = await open(join(directory, 'ministack.log'), 'w');
    const child = spawn(join(commands, 'ministack'), {
      cwd: directory,
      env: {
        ...process.env,
        PATH: path,
        GATEWAY_PORT: String(port),
        BIND_HOST: '127.0.0.1',
        LAMBDA_EXECUTOR: 'local',
        STATE_DIR: directory,
        S3_DATA_DIR: join(directory, 's3'),
        TMPDIR: directory,
      },
      stdio: ['ignore', log.fd, log.fd],
      detached: true, // with its functions, it is a group of processes, which ends as a whole
    });
    await log.close();
    const endpoint = `http://127.0.0.1:${port}`;
    const environment = {
      ...process.env,
      PATH: path,
      AWS_ENDPOINT_URL: endpoint,
      AWS_REGION: REGION,
      AWS_DEFAULT_REGION: REGION,
      AWS_ACCESS_KEY_ID: `AKIA${randomBytes(8).toString('hex').toUpperCase()}`, // the CDK keeps the account of each key
      AWS_SECRET_ACCESS_KEY: 'emulated',
      HOME: directory, // for the caches of the CDK and of the AWS CLI
    };
    const emulator = lab.keep(new Emulator(endpoint, environment, child));
    await until('the emulator of AWS answers', () => emulator.#isUp(), START_TIMEOUT_MS);
    return emulator;
  }

  async #isUp(): Promise<boolean> {
    if (this.#process.exitCode !== null) throw new Error('ministack ended by itself');
    const answer = await fetch(`${this.endpoint}/_ministack/health`).catch(() => undefined);
    return answer?.ok === true;
  }

  /** What it answers to a GET request, as JSON. */
  async get(path: string): Promise<unknown> {
    return (await fetch(`${this.endpoint}${path}`, { signal: AbortSignal.timeout(10_000) })).json();
  }

  /**
   * A URL on loopback for a URL of the emulated API Gateway, whose host name only the emulator knows.
   * @param address a loopback address of the lab
   */
  async relay(url: string, address: string): Promise<string> {
    const { host, pathname } = new URL(url);
    const server = createServer((incoming, response) => {
      const { method, headers, url: path } = incoming;
      const options = { method, path, headers: { ...headers, host } };
      const outgoing = request(this.endpoint, options, (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      });
      outgoing.on('error', () => response.destroy());
      incoming.pipe(outgoing);
    });
    server.listen(0, address);
    await once(server, 'listening');
    this.#relays.push(server);
    return `http://${address}:${(server.address() as AddressInfo).port}${pathname}`;
  }

  async stop(): Promise<void> {
    for (const relay of this.#relays) {
      relay.closeAllConnections();
      relay.close();
    }
    const { pid } = this.#process;
    if (pid === undefined) return;
    const ended = once(this.#process, 'exit', { signal: AbortSignal.timeout(STOP_TIMEOUT_MS) });
    if (this.#process.exitCode !== null) return;
    process.kill(-pid, 'SIGKILL'); // it has nothing to save
    await ended;
  }
}

async function freePort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
