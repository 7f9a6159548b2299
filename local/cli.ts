import { accessSync, constants, statSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { SERVERS, type ServerName, isServerName } from '../infra/server-settings.ts';
import { webhookUrl } from './address.ts';
import type { Delivery } from './cloudwatch/notifier.ts';
import { MODULES, commandLine, stackAssembly } from './installation.ts';
import { prettyLine } from './log.ts';
import { nextStep } from './next-step.ts';
import { writePrivateFile } from './private-file.ts';
import { type Hooks, startRuntime } from './runtime.ts';
import { generateSecret, readSecrets } from './secrets.ts';

const USAGE = `Usage: ${commandLine('start', '[options]')}

Runs the stack on this machine, and writes the settings for Prosody and for ejabberd into its data directory. On a
terminal it prints those for one of them, too.

  --port <number>       the port for webhooks             (PING_MUC_PORT, 8787)
  --host <address>      the address to listen on          (PING_MUC_HOST, 127.0.0.1)
  --server-api <URL>    the XMPP server's stanza API;
                        {host} stands for the XMPP host   (PING_MUC_SERVER_API, http://127.0.0.1:5280/ping_muc,
                                                          with --for ejabberd http://127.0.0.1:5281/ping_muc)
  --data <directory>    the directory for all data        (PING_MUC_DATA, .ping-muc)
  --assembly <dir>      run this output of cdk synth
                        instead of ping-muc's own         (PING_MUC_ASSEMBLY)
  --alarm-command <file>
                        a program to run when an alarm
                        notifies; it reads JSON from its
                        standard input                    (PING_MUC_ALARM_COMMAND)
  --alarm-url <URL>     a URL to which the same JSON is
                        posted                            (PING_MUC_ALARM_URL)
  --console <port>|off  the console's port; it is served at
                        http://127.0.0.1:<port>/ only     (PING_MUC_CONSOLE, 8788)
  --for <server>        the XMPP server: prosody or
                        ejabberd                          (PING_MUC_FOR, prosody)
  --help

PING_MUC_SECRET sets the webhook secret (during a rotation two, separated by a comma). If it is not set, a secret is
generated and kept in the data directory.
`;

/** A wrong option. The message says what to set. */
class OptionError extends Error {
  override readonly name = 'OptionError';
}

interface Options {
  readonly port: number;
  readonly host: string;
  readonly serverApi: string;
  readonly data: string;
  readonly assembly: string | undefined;
  readonly alarms: Delivery;
  readonly console: number | undefined;
  readonly server: ServerName;
}

function readOptions(): Options | undefined {
  const env = process.env;
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: env['PING_MUC_PORT'] ?? '8787' },
      host: { type: 'string', default: env['PING_MUC_HOST'] ?? '127.0.0.1' },
      'server-api': { type: 'string', default: env['PING_MUC_SERVER_API'] },
      data: { type: 'string', default: env['PING_MUC_DATA'] ?? '.ping-muc' },
      assembly: { type: 'string', default: env['PING_MUC_ASSEMBLY'] ?? '' },
      'alarm-command': { type: 'string', default: env['PING_MUC_ALARM_COMMAND'] ?? '' },
      'alarm-url': { type: 'string', default: env['PING_MUC_ALARM_URL'] ?? '' },
      console: { type: 'string', default: env['PING_MUC_CONSOLE'] ?? '8788' },
      for: { type: 'string', default: env['PING_MUC_FOR'] ?? 'prosody' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  const server = readServer(values.for);
  return {
    server,
    port: readPort('--port must be a number from 0 to 65535, for example 8787', values.port),
    host: values.host,
    serverApi: values['server-api'] ?? `http://127.0.0.1:${SERVERS[server].apiPort}/ping_muc`,
    data: resolve(values.data),
    assembly: values.assembly === '' ? undefined : resolve(values.assembly),
    alarms: { command: alarmCommand(values['alarm-command']), url: alarmUrl(values['alarm-url']) },
    console:
      values.console === 'off'
        ? undefined
        : readPort('--console must be off or a number from 0 to 65535, for example 8788', values.console),
  };
}

function readPort(message: string, text: string): number {
  if (!/^\d{1,5}$/.test(text) || Number(text) > 65_535) throw new OptionError(`${message}; got ${text}`);
  return Number(text);
}

function readServer(name: string): ServerName {
  if (isServerName(name)) return name;
  throw new OptionError(`--for must be ${Object.keys(SERVERS).join(' or ')}; got ${name}`);
}

function alarmCommand(file: string): string | undefined {
  if (file === '') return undefined;
  const command = resolve(file);
  if (!isProgram(command))
    throw new OptionError(`--alarm-command must be a program, for example /usr/local/bin/page; ${command} is none`);
  return command;
}

function isProgram(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

/** The URL is not part of the message: it can be secret. */
function alarmUrl(url: string): string | undefined {
  if (url === '') return undefined;
  if (!/^https?:$/.test(URL.parse(url)?.protocol ?? ''))
    throw new OptionError('--alarm-url must be an http or https URL, for example https://page.example.net/ping-muc');
  return url;
}

/** Does what `npm start` does. @param hooks for the test bed */
async function start(hooks: Hooks): Promise<void> {
  const options = readOptions();
  if (options === undefined) {
    process.stdout.write(USAGE);
    return;
  }
  const isTerminal = process.stderr.isTTY;
  const write = (line: string): void => {
    if (isTerminal && line.includes('"level":"DEBUG"')) return; // of use to programs only
    process.stderr.write(`${isTerminal ? prettyLine(line) : line}\n`);
  };
  const log = (message: string, fields: object = {}): void =>
    write(JSON.stringify({ level: 'INFO', time: new Date().toISOString(), message, ...fields }));
  await mkdir(options.data, { recursive: true, mode: 0o700 });
  const secrets = (await readSecrets(options.data)) ?? (await generateSecret(options.data));
  log('starting');
  const assembly = options.assembly ?? (await stackAssembly(options.data, options.serverApi));
  const runtime = await startRuntime({ ...options, ...hooks, assembly, secrets, log: write });
  const console = runtime.console === undefined ? undefined : `http://127.0.0.1:${runtime.console}/`;
  const { host, data, serverApi, server } = options;
  const settings = await writeSettings(data, serverApi, webhookUrl(host, runtime.port), secrets[0] ?? '');
  process.stdout.write(
    nextStep({ isTerminal: process.stdout.isTTY, data, server, settings: settings[server], console }),
  );
  log('listening', { host, port: runtime.port, data, serverApi, console });
  const stop = (signal: string): void => {
    log('stopping; waiting checks continue at the next start', { signal });
    runtime.close().then(
      () => process.exit(0),
      (error: unknown) => {
        log('could not stop cleanly', { detail: String(error) });
        process.exit(1);
      },
    );
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
}

/** Writes the settings for each server into the data directory, and returns them. */
async function writeSettings(
  data: string,
  serverApiUrl: string,
  webhook: string,
  secret: string,
): Promise<Readonly<Record<ServerName, string>>> {
  const of = (server: ServerName): string =>
    SERVERS[server].settings({ serverApiUrl, modules: MODULES[server], webhookUrl: webhook, secret });
  const settings = { prosody: of('prosody'), ejabberd: of('ejabberd') };
  for (const [server, { file }] of Object.entries(SERVERS) as [ServerName, (typeof SERVERS)[ServerName]][])
    await writePrivateFile(join(data, file), settings[server]);
  return settings;
}

/** Runs the stack until a signal ends this process. */
export function run(hooks: Hooks = {}): void {
  start(hooks).catch((error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  });
}
