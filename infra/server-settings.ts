/** The module's defaults. They are printed nevertheless, so that an operator sees what can be set. */
export const MODULE_DEFAULTS = { delaySeconds: 60, timeoutSeconds: 60, patienceSeconds: 300 } as const;

/** The line names at most so many hosts, because CloudFormation limits the length of an output. */
const MAX_NAMED_HOSTS = 5;

/** The values for the server's configuration. */
interface ServerSettings {
  /** The server's stanza API; `{host}` stands for the XMPP host. */
  readonly serverApiUrl: string;
  /** The folder with `mod_ping_muc_webhook/` for this server; undefined: the operator copies the module. */
  readonly modules?: string;
  readonly webhookUrl: string;
  readonly secret: string;
  readonly delaySeconds?: number;
  readonly timeoutSeconds?: number;
  readonly patienceSeconds?: number;
  readonly xmppHosts?: readonly string[];
}

/**
 * The servers that have the module. Each has its file in the data directory, its name, and lines to paste. `apiPort` is
 * where its stanza API listens on one machine: Prosody's own HTTP port, and for ejabberd, whose example configuration
 * uses 5280 with TLS, a port of the API alone.
 */
export const SERVERS = {
  prosody: { name: 'Prosody', file: 'prosody-settings.lua', settings: prosodySettings, apiPort: 5280 },
  ejabberd: { name: 'ejabberd', file: 'ejabberd-settings.yml', settings: ejabberdSettings, apiPort: 5281 },
} as const;
export type ServerName = keyof typeof SERVERS;
export const isServerName = (name: string): name is ServerName => Object.hasOwn(SERVERS, name);

/** The lines to paste into the configuration of Prosody. */
function prosodySettings(settings: ServerSettings): string {
  const { serverApiUrl, modules, webhookUrl, secret, delaySeconds, timeoutSeconds, patienceSeconds, xmppHosts } = {
    ...MODULE_DEFAULTS,
    ...settings,
  };
  // without {host}, all requests arrive under this one HTTP host name
  const apiHost = serverApiUrl.includes('//{host}') ? undefined : apiAddress(serverApiUrl)?.hostname;
  const hosts = namedHosts(xmppHosts);
  return [
    '-- at the top, in the global section:',
    modules === undefined
      ? '-- (copy the folder mod_ping_muc_webhook into one of your plugin_paths)'
      : `plugin_paths = { ${JSON.stringify(modules)} }`,
    '',
    `-- below the line ${hosts.map((host) => `VirtualHost "${host}"`).join(', and below ')} of your host:`,
    'modules_enabled = { "ping_muc_webhook" }',
    ...(apiHost === undefined ? [] : [`http_host = ${JSON.stringify(apiHost)}`]),
    `ping_muc_webhook_url = "${webhookUrl}"`,
    `ping_muc_secret = "${secret}"`,
    `ping_muc_delay = ${delaySeconds}`,
    `ping_muc_timeout = ${timeoutSeconds}`,
    `ping_muc_patience = ${patienceSeconds}`,
    '-- ping_muc_silence = 21600 -- seconds without anything from a room after which it is checked; 0: never',
    '-- ping_muc_reenter = true -- bring users back who are out, and notify them only if that fails',
    '',
  ].join('\n');
}

/** The lines for the configuration of ejabberd: YAML, in the form of ejabberd's own example. */
function ejabberdSettings(settings: ServerSettings): string {
  const { serverApiUrl, modules, webhookUrl, secret, delaySeconds, timeoutSeconds, patienceSeconds, xmppHosts } = {
    ...MODULE_DEFAULTS,
    ...settings,
  };
  const api = apiAddress(serverApiUrl);
  const isLocal = api?.protocol === 'http:'; // otherwise a reverse proxy is in front
  const folder = modules === undefined ? 'the folder mod_ping_muc_webhook' : `${modules}/mod_ping_muc_webhook`;
  return [
    `# Copy ${folder} into ~/.ejabberd-modules/sources/ of the user that runs ejabberd, and run:`,
    '#   ejabberdctl module_install mod_ping_muc_webhook',
    '',
    `# In the list "listen:". The functions reach it as ${serverApiUrl}`,
    'listen:',
    '  -',
    `    port: ${isLocal && api.port !== '' ? api.port : SERVERS.ejabberd.apiPort}`,
    `    ip: "${isLocal && !serverApiUrl.includes('//{host}') ? api.hostname : '127.0.0.1'}"`,
    '    module: ejabberd_http',
    '    request_handlers:',
    `      ${api?.pathname.replace(/\/$/, '') ?? '/ping_muc'}: mod_ping_muc_webhook`,
    '',
    `# In "modules:", for ${namedHosts(xmppHosts).join(', ')}:`,
    'modules:',
    '  mod_ping_muc_webhook:',
    `    webhook_url: ${JSON.stringify(webhookUrl)}`,
    `    secret: ${JSON.stringify(secret)}`,
    `    delay: ${delaySeconds}`,
    `    timeout: ${timeoutSeconds}`,
    `    patience: ${patienceSeconds}`,
    '    # silence: 21600 # seconds without anything from a room after which it is checked; 0: never',
    '    # reenter: true # bring users back who are out, and notify them only if that fails',
    '',
  ].join('\n');
}

const apiAddress = (url: string): URL | null => URL.parse(url.replaceAll('{host}', 'host.example'));

const namedHosts = (hosts: readonly string[] = []): readonly string[] =>
  hosts.length === 0 || hosts.length > MAX_NAMED_HOSTS ? ['…'] : hosts;
