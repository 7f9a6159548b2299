import { type Element, Parser } from '@xmpp/xml';
import type { Reply, ServerAnswers } from '../../functions/adapters/probe.ts';
import { CONTRACT_VERSION } from '../../functions/names.ts';
import { clockProblem, describeUnanswered, detailOf } from './answers.ts';
import { RELOAD, moduleCommand } from './commands.ts';
import { type Finding, bad, note, ok } from './finding.ts';

/** Days left of a certificate below which it is mentioned: those who renew by a timer do so 30 days before. */
const FEW_DAYS = 14;
const DAY_MS = 86_400_000;
/** A difference of clocks below which nobody needs to know it. */
const CLOCK_SECONDS = 30;
const HOW_TO_LISTEN =
  '. Start the XMPP server, and check where its HTTP server listens: on Prosody by http_ports, https_ports and their ' +
  'interfaces, on ejabberd by the listener with ejabberd_http';

/**
 * Judges what the API of one host answers to the functions.
 * @param printed the settings that were printed for the server; undefined: not known
 */
export function* serverFindings(
  { url, unsigned, signed }: ServerAnswers,
  host: string,
  printed?: string,
): Generator<Finding, void, void> {
  if ('code' in unsigned) {
    const isOff = unsigned.code === 'ECONNREFUSED';
    return yield bad(`Server API of ${host}: ${describeUnanswered(url, unsigned)}${isOff ? HOW_TO_LISTEN : ''}`);
  }
  if (unsigned.status === 404) return yield bad(`Server API of ${host}: ${notFound(url, host)}`);
  if (unsigned.status !== 401)
    return yield bad(
      `Server API of ${host}: ${url} answers ${unsigned.status} to a request without a signature, and not 401: ` +
        `is the URL that of the XMPP server's HTTP server?`,
    );
  if (signed === undefined)
    return yield note(`Server API of ${host}: ${url} answers. More is tested with the right secret`);
  if ('code' in signed) return yield bad(`Server API of ${host}: ${describeUnanswered(url, signed)}`);
  if (signed.status !== 200) return yield bad(`Server API of ${host}: ${refused(signed, url)}`);
  yield* answered(signed, url, host, printed);
}

/** The answer does not tell the causes apart. */
function notFound(url: string, host: string): string {
  const { hostname, pathname } = new URL(url);
  const name = hostname === host ? 'its section sets no other http_host' : `its section has http_host = "${hostname}"`;
  const path = pathname.replace(/\/stanzas$/, '');
  return (
    `${url} answers 404: check that mod_ping_muc_webhook is loaded for ${host}, ` +
    `and that ${name} (Prosody reads it when it starts); ` +
    `on ejabberd, that the request_handlers of the listener have ${path}: mod_ping_muc_webhook`
  );
}

function refused(reply: Reply, url: string): string {
  const clock = clockProblem(reply, 'the functions');
  if (clock !== undefined) return `${url} refuses what is signed: ${clock}`;
  if (reply.status === 401)
    return `${url} has another secret: set the same ping_muc_secret there (ejabberd: secret), and run ${RELOAD}`;
  return `${url} answers ${reply.status} to a signed request: ${detailOf(reply)}`;
}

function* answered(
  reply: Reply,
  url: string,
  host: string,
  printed: string | undefined,
): Generator<Finding, void, void> {
  const root = readRoot(reply.body);
  if (root === undefined)
    return yield bad(`Server API of ${host}: ${url} does not answer with <xmpp>, but is no error`);
  const { host: answering, version, dry_run: dryRun, webhooks } = root;
  if (version === undefined)
    return yield bad(
      `Server API of ${host}: the module is older than these functions, and does not say whether the dry run is on. ` +
        `Copy the module of this release to the server, and reload it`,
    );
  if (answering !== host)
    return yield bad(
      `Server API of ${host}: ${url} reaches the module of ${answering}. ` +
        `Use {host} in the URL of the server API, and on Prosody give each host its own http_host`,
    );
  yield ok(`Server API of ${host}: ${url} accepts what is signed, and refuses what is not`);
  if (version !== CONTRACT_VERSION)
    yield note(
      `Contract: the module of ${host} has version ${version}, these functions have ${CONTRACT_VERSION}. ` +
        `Upgrade the older of the two`,
    );
  yield* certificate(reply, host);
  yield* clock(reply, host);
  if (webhooks === 'failing')
    yield bad(
      `Webhooks of ${host}: the newest one was not accepted. Run ${moduleCommand('status')} on the server: ` +
        `it says why. Compare ping_muc_webhook_url (ejabberd: webhook_url)`,
    );
  yield* settings(root, host, printed);
  if (dryRun === 'true')
    yield bad(
      `Dry run of ${host}: on: nobody is notified or brought back. ` +
        `Remove ping_muc_dry_run (ejabberd: dry_run) when you have seen enough`,
    );
  else yield ok(`Dry run of ${host}: off`);
}

/** Compares the settings in use with those that were printed. An operator may change them, so they are mentioned only. */
function* settings(root: Readonly<Record<string, string>>, host: string, printed = ''): Generator<Finding, void, void> {
  const names = ['delay', 'timeout', 'patience'].filter((name) => root[name] !== undefined);
  if (names.length === 0) return; // an older module does not state them
  const inUse = names.map((name) => `${name} ${root[name]} s`).join(', ');
  const changed = names.flatMap((name) => {
    const value = new RegExp(`^\\s*(?:ping_muc_)?${name}\\s*[=:]\\s*(\\d+)`, 'm').exec(printed)?.[1];
    return value === undefined || value === root[name] ? [] : [`${name} ${value} s`];
  });
  yield changed.length === 0
    ? ok(`Settings of ${host}: ${inUse}`)
    : note(`Settings of ${host}: ${inUse}. Those that were printed have ${changed.join(', ')}`);
}

/** The attributes of the root, if it is `<xmpp>`. */
function readRoot(body: string): Readonly<Record<string, string>> | undefined {
  let root: Element | undefined;
  const parser = new Parser();
  parser.on('start', (element: Element) => {
    root = element;
  });
  parser.on('error', () => undefined); // then there is no root
  parser.write(body);
  return root?.name === 'xmpp' ? root.attrs : undefined;
}

function* certificate({ expires }: Reply, host: string): Generator<Finding, void, void> {
  if (expires === undefined) return;
  const days = Math.floor((expires - Date.now()) / DAY_MS);
  const left = `Certificate of the server API of ${host}: ${days === 1 ? '1 day is' : `${days} days are`} left`;
  yield days < FEW_DAYS ? note(`${left}: check that it is renewed, and that the server then uses it`) : ok(left);
}

function* clock({ ahead }: Reply, host: string): Generator<Finding, void, void> {
  if (ahead === undefined) return;
  const seconds = Math.abs(ahead);
  if (seconds <= CLOCK_SECONDS) return yield ok(`Clock of ${host}: the same as that of the functions`);
  yield note(
    `Clock of ${host}: ${seconds} s ${ahead > 0 ? 'ahead of' : 'behind'} that of the functions. ` +
      `Run timedatectl on both`,
  );
}
