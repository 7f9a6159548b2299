/**
 * What the module takes where nothing is set; the printed lines say it all the same, so that an operator sees what can
 * be set.
 */
export const MODULE_DEFAULTS = { delaySeconds: 60, timeoutSeconds: 60, patienceSeconds: 300 } as const;

/** What Prosody's configuration needs of us. */
export interface ProsodySettings {
  /** The server's stanza API; `{host}` stands for the XMPP host. */
  readonly serverApiUrl: string;
  /** The folder that holds `mod_ping_muc_webhook/`; undefined: the operator knows where modules go. */
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
  // without {host}, requests come under this one name, whichever host they are for
  const apiHost = serverApiUrl.includes('//{host}')
    ? undefined
    : URL.parse(serverApiUrl.replaceAll('{host}', 'host.example'))?.hostname;
  const hosts = xmppHosts.length === 0 ? ['…'] : xmppHosts;
  return [
    '-- at the top, in the global section:',
    pluginPath === undefined
      ? '-- (put the folder mod_ping_muc_webhook into one of your plugin_paths)'
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
    '-- ping_muc_silence = 21600 -- a room that says nothing for so long is asked whether its users are in; 0: never',
    '-- ping_muc_reenter = true -- users who are out are brought back, and told only where that fails',
    '',
  ].join('\n');
}
