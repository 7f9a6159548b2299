import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { decodeSecret } from '../functions/core/signature.ts';
import { prosodySettings } from '../infra/prosody-settings.ts';
import { synthesize } from './assembly.ts';
import { prettyLine } from './log.ts';
import { startRuntime } from './runtime.ts';

const USAGE = `Usage: npm start -- [options]

  --port <number>       where webhooks come in            (PING_MUC_PORT, 8787)
  --host <address>      the address to listen on          (PING_MUC_HOST, 127.0.0.1)
  --server-api <URL>    the XMPP server's stanza API;
                        {host} stands for the XMPP host   (PING_MUC_SERVER_API, http://127.0.0.1:5280/ping_muc)
  --data <directory>    where everything is kept          (PING_MUC_DATA, .ping-muc)
  --assembly <dir>      an output of cdk synth to run,
                        instead of making one             (PING_MUC_ASSEMBLY)
  --help

The webhook secret is taken from PING_MUC_SECRET (two, separated by a comma, while rotating); where that is not set,
one is made and kept in the data directory.
`;

/** What the operator set is wrong; the message says what to set. */
class OptionError extends Error {
  override readonly name = 'OptionError';
}

interface Options {
  readonly port: number;
  readonly host: string;
  readonly serverApi: string;
  readonly data: string;
  readonly assembly: string | undefined;
}

function readOptions(): Options | undefined {
  const env = process.env;
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: env['PING_MUC_PORT'] ?? '8787' },
      host: { type: 'string', default: env['PING_MUC_HOST'] ?? '127.0.0.1' },
      'server-api': { type: 'string', default: env['PING_MUC_SERVER_API'] ?? 'http://127.0.0.1:5280/ping_muc' },
      data: { type: 'string', default: env['PING_MUC_DATA'] ?? '.ping-muc' },
      assembly: { type: 'string', default: env['PING_MUC_ASSEMBLY'] ?? '' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  const port = Number(values.port);
  if (!/^\d+$/.test(values.port) || port > 65_535)
    throw new OptionError(`--port must be a number from 0 to 65535, for example 8787; got ${values.port}`);
  return {
    port,
    host: values.host,
    serverApi: values['server-api'],
    data: resolve(values.data),
    assembly: values.assembly === '' ? undefined : resolve(values.assembly),
  };
}

/** The live secrets, current first: given, or kept, or made now. */
async function readSecrets(data: string): Promise<readonly string[]> {
  const given = process.env['PING_MUC_SECRET'];
  if (given !== undefined && given !== '')
    return checked(
      given.split(',').map((secret) => secret.trim()),
      'PING_MUC_SECRET',
    );
  const file = join(data, 'secret');
  try {
    return checked([(await readFile(file, 'utf8')).trim()], file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const made = `whsec_${randomBytes(32).toString('base64')}`;
  await writeFile(file, `${made}\n`, { mode: 0o600, flag: 'wx' });
  return [made];
}

function checked(secrets: readonly string[], source: string): readonly string[] {
  if (secrets.length > 2) throw new OptionError(`${source}: at most two secrets, current and previous`);
  try {
    secrets.forEach(decodeSecret);
  } catch (error) {
    throw new OptionError(`${source}: ${error instanceof Error ? error.message : String(error)}`);
  }
  return secrets;
}

async function main(): Promise<void> {
  const options = readOptions();
  if (options === undefined) {
    process.stdout.write(USAGE);
    return;
  }
  const isTerminal = process.stderr.isTTY;
  const log = (line: string): void => {
    if (isTerminal && line.includes('"level":"DEBUG"')) return; // for machines
    process.stderr.write(`${isTerminal ? prettyLine(line) : line}\n`);
  };
  const say = (message: string, fields: object = {}): void =>
    log(JSON.stringify({ level: 'INFO', time: new Date().toISOString(), message, ...fields }));
  await mkdir(options.data, { recursive: true, mode: 0o700 });
  const secrets = await readSecrets(options.data);
  const assembly = options.assembly ?? join(options.data, 'cdk.out');
  if (options.assembly === undefined) {
    say('synthesizing the stack');
    // plain http is for loopback alone, and a server that is named by its host is here: on this machine
    await synthesize(assembly, { serverApiUrl: options.serverApi.replace('http://{host}', 'http://localhost') });
  }
  const runtime = await startRuntime({
    ...options,
    assembly,
    secrets,
    log,
    recordCalls: process.env['PING_MUC_RECORD_CALLS'],
    awsRelay: process.env['PING_MUC_AWS_RELAY'],
  });
  const host = options.host.includes(':') ? `[${options.host}]` : options.host;
  const settings = prosodySettings({
    serverApiUrl: options.serverApi,
    pluginPath: fileURLToPath(new URL('../prosody', import.meta.url)),
    webhookUrl: `http://${host}:${runtime.port}/webhooks`,
    secret: secrets[0] ?? '',
  });
  process.stdout.write(`Add this to the configuration of Prosody, and restart it:\n\n${settings}\n`);
  say('listening', { host: options.host, port: runtime.port, data: options.data, serverApi: options.serverApi });
  const stop = (signal: string): void => {
    say('stopping; what waits goes on at the next start', { signal });
    runtime.close().then(
      () => process.exit(0),
      (error: unknown) => {
        say('could not stop cleanly', { detail: String(error) });
        process.exit(1);
      },
    );
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(1);
});
