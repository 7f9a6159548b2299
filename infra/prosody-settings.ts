/** The module's defaults. They are printed nevertheless, so that an operator sees what can be set. */
export const MODULE_DEFAULTS = { delaySeconds: 60, timeoutSeconds: 60, patienceSeconds: 300 } as const;

/** The line names at most so many hosts, because CloudFormation limits the length of an output. */
const MAX_NAMED_HOSTS = 5;

/** The values for Prosody's configuration. */
export interface ProsodySettings {
  /** The server's stanza API; `{host}` stands for the XMPP host. */
  readonly serverApiUrl: string;
  /** The folder that contains `mod_ping_muc_webhook/`; undefined: the operator copies the module. */
  readonly pluginPath?: string;
  readonly webhookUrl: string;
  readonly secret: string;
  readonly delaySeconds?: number;
  readonly timeoutSeconds?: number;
  readonly patienceSeconds?: number;
  readonly xmppHosts?: readonly string[];
}

/** The lines to paste into the configuration of Prosody. */
export function prosodySettings(settings: ProsodySettings): string {
  const {
    serverApiUrl,
    pluginPath,
    webhookUrl,
    secret,
    delaySeconds,
    timeoutSeconds,
    patienceSeconds,
    xmppHosts = [],
  } = { ...MODULE_DEFAULTS, ...settings };
  // without {host}, all requests arrive under this one HTTP host name
  const apiHost = serverApiUrl.includes('//{host}')
    ? undefined
    : URL.parse(serverApiUrl.replaceAll('{host}', 'host.example'))?.hostname;
  const hosts = xmppHosts.length === 0 || xmppHosts.length > MAX_NAMED_HOSTS ? ['…'] : xmppHosts;
  return [
    '-- at the top, in the global section:',
    pluginPath === undefined
      ? '-- (copy the folder mod_ping_muc_webhook into one of your plugin_paths)'
      : `plugin_paths = { ${JSON.stringify(pluginPath)} }`,
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
