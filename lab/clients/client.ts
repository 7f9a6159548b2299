import type { Lab } from '../lab.ts';
import type { Prosody } from '../prosody.ts';

/** Whom a client logs in as, and the room that it enters. */
export interface ClientOptions {
  readonly lab: Lab;
  readonly server: Prosody;
  readonly user: string;
  readonly room: string;
  readonly nick: string;
}

/** A real client, logged in, which has been told to enter the room. */
export interface Client {
  /** The name that people know it by, and its version. */
  readonly name: string;
  /** Types a line into the room, as its user does. */
  typeLine(line: string): Promise<void>;
  /** What it shows of the room's lines, the oldest first; it may show more around them. */
  shown(): Promise<string>;
  /** The nicks in its list of occupants; undefined where it shows none. */
  occupants(): Promise<readonly string[] | undefined>;
  /** What it shows of being out of the room; undefined where it looks as if it were in. */
  farewell(): Promise<string | undefined>;
  /** Takes a picture of it. */
  picture?(path: string): Promise<void>;
}

/** How a client is started; it is stopped with the lab. */
export type Starter = (options: ClientOptions) => Promise<Client>;
