import type { Lab } from '../lab.ts';
import type { Prosody } from '../prosody.ts';

/** The account of a client, and the room that it enters. */
export interface ClientOptions {
  readonly lab: Lab;
  readonly server: Prosody;
  readonly user: string;
  readonly room: string;
  readonly nick: string;
}

/** A real client that is logged in and enters the room. */
export interface Client {
  /** Its name and version. */
  readonly name: string;
  /** Whether it ignores notices: its view of the room stays as it was, at most its list changes. False by default. */
  readonly ignoresNotices?: boolean;
  /** Types a line into the room, as its user does. */
  typeLine(line: string): Promise<void>;
  /** The lines of the room that it shows, the oldest first; other text may be around them. */
  shown(): Promise<string>;
  /** The nicks in its list of occupants; undefined if it has no list. */
  occupants(): Promise<readonly string[] | undefined>;
  /** What it shows when it is out of the room; undefined if it shows nothing of the kind. */
  farewell(): Promise<string | undefined>;
  /** Takes a picture of it. */
  picture?(path: string): Promise<void>;
}

/** How a client is started; it is stopped with the lab. */
export type Starter = (options: ClientOptions) => Promise<Client>;
