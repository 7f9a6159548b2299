/**
 * The module's command for operators, as it is called on each XMPP server: the doctor does not know which one it is.
 */
export const moduleCommand = (name: 'announce' | 'status'): string =>
  `prosodyctl shell ping_muc ${name} (ejabberd: ejabberdctl ping_muc_${name})`;

/** Applies a changed configuration. */
export const RELOAD = 'prosodyctl shell config reload (ejabberd: ejabberdctl reload_config)';
