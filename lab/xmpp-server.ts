import type { PrintedSettings, Settings } from './printed-settings.ts';
import type { LinkControls } from './threaded-link.ts';

/** How a server in production connects to others, and how it limits traffic. */
export interface Production {
  /** One connection carries the stanzas of both directions (XEP-0288), if the server can do that; true by default. */
  readonly bidi?: boolean;
  /** Real clients get TLS and archives. False by default: the lab's own clients would use TLS, and be slow. */
  readonly realClients?: boolean;
  /** Streams are limited to the defaults of Debian's configuration. */
  readonly limits?: boolean;
}

/** A server-to-server stream, as a server knows it. */
export interface Stream {
  /** Who opened it: this server, or the other one. */
  readonly opener: 'this' | 'other';
  /** It carries the stanzas of both directions (XEP-0288). */
  readonly isBidi: boolean;
  readonly remote: string;
  readonly isEncrypted: boolean;
  /** The remote host was authenticated by its certificate. */
  readonly isCertified: boolean;
  /** It is managed (XEP-0198). */
  readonly isManaged: boolean;
}

/** The module of the users' server: the functions that it works with, and settings that differ from what they print. */
interface ModuleSettings {
  readonly runtime: { readonly printed: PrintedSettings };
  readonly changes: Settings;
}

export interface ServerSettings {
  /** The domain of its users, an address of the lab. */
  readonly host: string;
  /** Domains of its chat services. */
  readonly mucs?: readonly string[];
  /** Its rooms have an archive. */
  readonly hasArchives?: boolean;
  /** Domains of external components, which log in with the users' password. */
  readonly components?: readonly string[];
  /** Accounts; all have the same password. */
  readonly users?: readonly string[];
  /** It has the module. */
  readonly module?: ModuleSettings;
  /**
   * Configures the server as in production: TLS and certificates are required between servers, streams are managed, and
   * it has the modules of Debian's configuration that affect what clients receive. By default, streams are unencrypted
   * and authenticated by dialback, and each direction has its own stream, so that a test can cut one direction only.
   */
  readonly production?: Production;
  /** Whether its streams with other servers are managed (XEP-0198), if it can do that; true by default. */
  readonly isManaged?: boolean;
  /** How long it keeps the session of a lost connection, in seconds. */
  readonly hibernationSeconds?: number;
  /** How many stanzas it keeps for it. By default, 500 on Prosody, and more than any test needs on ejabberd. */
  readonly hibernationStanzas?: number;
  /** It serves HTTPS, too (`HTTPS_PORT`), with the certificate in this folder: `server.crt` and `server.key`. */
  readonly httpsCertificate?: string;
  /** The links to it have threads of their own, for measurements while the test is busy. */
  readonly hasThreadedLinks?: boolean;
}

/** An occupant of a room: one session under one nick. */
export interface Occupant {
  readonly room: string;
  readonly nick: string;
  readonly jid: string;
}

/** A change of a room, by its owner. */
export type RoomChange = 'members only' | 'persistent' | { readonly password: string } | { readonly ban: string };

/** The rooms of a server, from inside. */
export interface Rooms {
  /** The text of the error for a room that does not exist, if there is one. */
  readonly textIfMissing?: string;
  has(room: string): Promise<boolean>;
  change(room: string, change: RoomChange): Promise<void>;
  /** Forgets a room, as if the service had lost it: nobody is notified. */
  forget(room: string): Promise<void>;
  /** Drops sessions from rooms without notifying anybody. */
  drop(sessions: readonly Pick<Occupant, 'room' | 'jid'>[]): Promise<void>;
  /** All occupants of all rooms of a chat service. */
  occupants(domain: string): Promise<readonly Occupant[]>;
  /** From here on, counts the requests to enter rooms of a chat service. */
  countEntries(domain: string): Promise<void>;
  /** How often a session has asked to enter a room since `countEntries`: `<room> <user>` → count. */
  entries(domain: string): Promise<ReadonlyMap<string, number>>;
}

/** What a server can do beside what all can. */
interface Abilities {
  /** Its HTTP server passes requests without a body to the module. Otherwise it answers 400 by itself. */
  readonly emptyRequests: boolean;
}

/** What streams can do beside what all can. */
export interface StreamAbilities {
  /** They can carry both directions (XEP-0288). */
  readonly bidi: boolean;
  /** They can be managed (XEP-0198). */
  readonly managedStreams: boolean;
}

/** A private XMPP server of the lab. */
export interface XmppServer {
  readonly host: string;
  /** The links to its domains. */
  readonly links: ReadonlyMap<string, LinkControls>;
  readonly abilities: Abilities & StreamAbilities;
  readonly rooms: Rooms;
  readonly password: string;
  /** Where clients log in by TCP, by websocket (RFC 7395), and by HTTP (BOSH, XEP-0206). */
  readonly service: string;
  readonly websocketService: string;
  readonly boshService: string;
  /** The id of its process. @throws if it does not run */
  readonly pid: number;

  /** Where an external component logs in. */
  componentService(domain: string): string;
  start(): Promise<void>;
  /** Sends SIGKILL: no stream is closed cleanly. */
  kill(): Promise<void>;
  /** Stops the server and its links. */
  stop(): Promise<void>;
  /** Cuts the links to all its domains. */
  cut(): Promise<void>;
  mend(): Promise<void>;
  log(): Promise<string>;
  /** The errors in its log. */
  errors(): Promise<readonly string[]>;
  /** The memory that its interpreter uses after it has collected garbage, in kB. */
  heapKb(): Promise<number>;
  register(users: readonly string[]): Promise<void>;
  /** How its clients are connected. */
  connections(): Promise<readonly ('BOSH' | 'TCP' | 'WebSocket')[]>;

  /** How many stanzas to a session its client has not acknowledged (XEP-0198). */
  unacknowledged(jid: string): Promise<number>;

  /** The streams from and to a domain that are authenticated. */
  streams(remote: string): Promise<readonly Stream[]>;
  /** Opens a stream from one of its domains to another server. */
  openStream(from: string, to: string): Promise<void>;
  /** The link to a domain works again: forgets that connections failed, if the server would wait for a time after that. */
  forgetFailures(remote: string): Promise<void>;
  /** Ends all streams from and to a domain: cleanly, or with a stream error. */
  closeStreams(remote: string, condition?: string): Promise<void>;
  /** Limits new streams as Debian's configuration of Prosody does: clients to 10 kb/s, other servers to 30 kb/s. */
  limitStreams(): Promise<void>;

  /** Changes settings of the module, by a reload; without changes, restores those with which the server was started. */
  set(changes?: Settings): Promise<void>;
  /** The module is reloaded, or unloaded and then loaded. */
  reloadModule(): Promise<void>;
  restartModule(): Promise<void>;
  unloadModule(): Promise<void>;
  loadModule(): Promise<void>;
  /** Runs a command of the module for operators, and returns its output. */
  moduleCommand(name: 'announce' | 'status'): Promise<string>;
  /**
   * Adds another host with the module, and with accounts. Returns what a client needs in order to log in there.
   */
  addHost(
    host: string,
    users: readonly string[],
    changes: Settings,
  ): Promise<Pick<XmppServer, 'host' | 'service' | 'password'>>;
  /** What can be typed to end the streams between two domains. */
  closeCommand(from: string, to: string): string;
}
