import { DatabaseSync, type StatementSync } from 'node:sqlite';

/**
 * Opens a database file. A crash of this process loses nothing that was written. A crash of the machine can lose the
 * last moments, but the file stays whole.
 * https://www.sqlite.org/pragma.html#pragma_synchronous
 */
export function openDatabase(file: string): DatabaseSync {
  const database = new DatabaseSync(file);
  database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL');
  return database;
}

/** The statements of a database, each prepared once. As many as there are texts in the code. */
export class Statements {
  readonly #database: DatabaseSync;
  readonly #prepared = new Map<string, StatementSync>();

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  get(sql: string): StatementSync {
    const statement = this.#prepared.get(sql) ?? this.#database.prepare(sql);
    this.#prepared.set(sql, statement);
    return statement;
  }

  /** Before the database is closed. */
  clear(): void {
    this.#prepared.clear();
  }
}
