import { Ejabberd } from './ejabberd.ts';
import type { Lab } from './lab.ts';
import { Prosody, type ProsodySettings } from './prosody.ts';
import type { ServerSettings, XmppServer } from './xmpp-server.ts';

/** The servers that can play both roles. */
const KINDS = { prosody: Prosody, ejabberd: Ejabberd };
export type Kind = keyof typeof KINDS;
export const isKind = (name: string): name is Kind => Object.hasOwn(KINDS, name);

export interface Roles {
  /** The users' server, which has the module. */
  readonly users: Kind;
  /** The server with the rooms. */
  readonly rooms: Kind;
}

/**
 * Which server plays which role: `PING_MUC_SERVERS=ejabberd,prosody`. Both are Prosody by default.
 * @throws if the variable does not name two servers
 */
export const ROLES: Roles = readRoles(process.env['PING_MUC_SERVERS'] ?? 'prosody,prosody');

function readRoles(pair: string): Roles {
  const [users = '', rooms = '', ...more] = pair.split(',');
  if (isKind(users) && isKind(rooms) && more.length === 0) return { users, rooms };
  throw new Error(`PING_MUC_SERVERS must name the users' server and the rooms' server: prosody,ejabberd; got ${pair}`);
}

/** @param settings `global` and `forHost` are for Prosody alone; a test that needs them is in test/differences.ts */
export function startServer(kind: Kind, lab: Lab, settings: ServerSettings | ProsodySettings): Promise<XmppServer> {
  return KINDS[kind].start(lab, settings);
}

/** Starts a server in the role of the users' server, or of a server with rooms. */
export const startHome = (lab: Lab, settings: ServerSettings | ProsodySettings): Promise<XmppServer> =>
  startServer(ROLES.users, lab, settings);
export const startAway = (lab: Lab, settings: ServerSettings): Promise<XmppServer> =>
  startServer(ROLES.rooms, lab, settings);
