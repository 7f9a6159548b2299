import type { DatabaseSync } from 'node:sqlite';
import type { AlarmState, Transition } from './views.ts';

/** Changes of states that are kept. */
const MAX_TRANSITIONS = 1000;

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS alarms (
    name TEXT PRIMARY KEY, state TEXT NOT NULL, since INTEGER NOT NULL, reason TEXT NOT NULL
  );
  CREATE TABLE IF NOT EXISTS transitions (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, "from" TEXT NOT NULL, "to" TEXT NOT NULL, at INTEGER NOT NULL,
    reason TEXT NOT NULL
  );`;

/** An alarm's state, since when it has it, in milliseconds since the epoch, and why. */
export interface StoredState {
  readonly state: AlarmState;
  readonly since: number;
  readonly reason: string;
}

/** The states of alarms, and their last 1,000 changes, on disk. */
export class AlarmLog {
  readonly #database: DatabaseSync;
  readonly #states = new Map<string, StoredState>();

  constructor(database: DatabaseSync) {
    this.#database = database;
    database.exec(SCHEMA);
    const rows = database.prepare('SELECT name, state, since, reason FROM alarms').all();
    for (const { name, ...stored } of rows as unknown as ({ name: string } & StoredState)[])
      this.#states.set(name, stored);
  }

  /** Undefined if the alarm was never evaluated. */
  get(name: string): StoredState | undefined {
    return this.#states.get(name);
  }

  /** Stores a state. If it is another one than before, this is a transition. */
  set(name: string, next: StoredState): void {
    const known = this.#states.get(name);
    if (known?.state === next.state && known.reason === next.reason) return;
    this.#states.set(name, next);
    const { state, since, reason } = next;
    this.#database.prepare('INSERT OR REPLACE INTO alarms VALUES (?, ?, ?, ?)').run(name, state, since, reason);
    const from = known?.state ?? 'INSUFFICIENT_DATA'; // the state of a new alarm
    if (from === state) return;
    this.#database
      .prepare('INSERT INTO transitions (name, "from", "to", at, reason) VALUES (?, ?, ?, ?, ?)')
      .run(name, from, state, since, reason);
    this.#database
      .prepare('DELETE FROM transitions WHERE id <= (SELECT MAX(id) FROM transitions) - ?')
      .run(MAX_TRANSITIONS);
  }

  /** Newest first. */
  transitions(): readonly Transition[] {
    return this.#database
      .prepare('SELECT name, "from", "to", at, reason FROM transitions ORDER BY id DESC')
      .all() as unknown as Transition[];
  }

  /** Forgets the states of alarms that are not in the template any more. */
  keepOnly(names: ReadonlySet<string>): void {
    for (const name of [...this.#states.keys()].filter((known) => !names.has(known))) {
      this.#states.delete(name);
      this.#database.prepare('DELETE FROM alarms WHERE name = ?').run(name);
    }
  }
}
