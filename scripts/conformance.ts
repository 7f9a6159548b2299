import { parseArgs, styleText } from 'node:util';
import { type Result, checkConformance } from '../lab/conformance/conformance.ts';
import type { Options } from '../lab/conformance/subject.ts';

/** Checks an XMPP server against the contract (protocol/README.md): `npm run conformance -- --help`. */
const USAGE = `Usage: npm run conformance -- --server-api <URL> --user <JID> --room <room@service> [options]

Checks a running XMPP server against the contract in protocol/. Configure the server to send its webhooks to
http://127.0.0.1:8787/webhooks, and with the same secret. The user is logged in several times, enters and leaves the
room, and receives notices, so take a test user and an empty room on another server.

  --server-api <URL>   the server's stanza API, without /stanzas; {host} stands for the user's host
  --user <JID>         a user of the server, and in PING_MUC_PASSWORD the password
  --room <JID>         a room on another server, which the user may enter, and in which nobody is
  --service <URL>      where the user logs in                 (xmpp://<the user's host>:5222)
  --webhooks <URL>     where this command receives webhooks   (http://127.0.0.1:8787/webhooks)
  --close <command>    a shell command that ends the connection between the two servers. Without it, no close is
                       checked
  --help

PING_MUC_SECRET is the secret that both sides share. NODE_EXTRA_CA_CERTS names a file with the certificate of an
authority of your own.
`;

const OPTIONS = ['server-api', 'user', 'room', 'service', 'webhooks', 'close'] as const;

/** @throws with what is missing or wrong */
function readOptions(values: Readonly<Record<string, unknown>>): Options {
  const text = (name: (typeof OPTIONS)[number]): string | undefined => values[name] as string | undefined;
  const needed = (name: (typeof OPTIONS)[number], example: string): string => {
    const value = text(name);
    if (value === undefined) throw new Error(`--${name} is missing, for example --${name} ${example}`);
    return value;
  };
  const fromEnvironment = (name: string): string => {
    const value = process.env[name];
    if (value === undefined || value === '') throw new Error(`the variable ${name} is not set`);
    return value;
  };
  const user = needed('user', 'test@example.net');
  const room = needed('room', 'test@conference.example.org');
  for (const [name, jid] of Object.entries({ user, room }))
    if (!/^[^@/]+@[^@/]+$/.test(jid)) throw new Error(`--${name} must be a bare JID; got ${jid}`);
  const webhooks = URL.parse(text('webhooks') ?? 'http://127.0.0.1:8787/webhooks');
  if (webhooks?.protocol !== 'http:') throw new Error(`--webhooks must be an http URL; got ${text('webhooks')}`);
  const close = text('close');
  return {
    serverApi: needed('server-api', 'http://127.0.0.1:5280/ping_muc'),
    webhooks: { host: webhooks.hostname, port: Number(webhooks.port === '' ? 80 : webhooks.port) },
    secret: fromEnvironment('PING_MUC_SECRET'),
    user,
    password: fromEnvironment('PING_MUC_PASSWORD'),
    service: text('service') ?? `xmpp://${user.split('@')[1]}:5222`,
    room,
    ...(close !== undefined && { close }),
  };
}

function report({ check: { paragraph, what }, fault, omitted }: Result): void {
  const [mark, after] =
    fault !== undefined
      ? [styleText('red', '✗'), `\n    ${fault}`]
      : omitted !== undefined
        ? [styleText('yellow', '–'), ` (not checked: ${omitted})`]
        : [styleText('green', '✓'), ''];
  process.stdout.write(`${mark} ${styleText('dim', `${paragraph}:`)} ${what}${after}\n`);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      ...Object.fromEntries(OPTIONS.map((name) => [name, { type: 'string' as const }])),
      help: { type: 'boolean' as const, default: false },
    },
  });
  if (values['help']) return void process.stdout.write(USAGE);
  const results = await checkConformance(readOptions(values), report);
  const faults = results.filter(({ fault }) => fault !== undefined).length;
  const omitted = results.filter((result) => result.omitted !== undefined).length;
  process.stdout.write(
    `\n${results.length - faults - omitted} requirements are met, ${faults} are not, ${omitted} were not checked.\n`,
  );
  process.exitCode = faults === 0 ? 0 : 1;
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
});
