import type { DatabaseSync, SQLInputValue } from 'node:sqlite';
import { Statements, openDatabase } from '../sqlite.ts';

/** Changes in one transaction: some ten milliseconds of the process's time, which serves webhooks, too. */
const CHANGES_AT_A_TIME = 500;
/** Changes that may wait. More are written at once, and what brings them waits. */
const MAX_WAITING = 5000;
/** How long changes are collected. */
const COLLECT_MS = 50;
/** A full disk would otherwise fill the log, too. */
const REPORT_AT_MOST_EVERY_MS = 60_000;
/** A change of the tables below needs another number: the file is then started over. */
const SCHEMA_VERSION = 1;

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS joins (
    room TEXT, user TEXT, bare TEXT, remote TEXT, host TEXT, nick TEXT, at INTEGER, undecided INTEGER,
    PRIMARY KEY (room, user)
  ) WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS joins_of_user ON joins (bare);
  CREATE INDEX IF NOT EXISTS joins_on_remote ON joins (remote, host);

  CREATE TABLE IF NOT EXISTS lines (
    id INTEGER PRIMARY KEY, at INTEGER, check_name TEXT, host TEXT, remote TEXT, room TEXT, user TEXT, bare TEXT,
    level TEXT, message TEXT, fields TEXT
  );
  CREATE INDEX IF NOT EXISTS lines_of_user ON lines (bare) WHERE bare IS NOT NULL;
  CREATE INDEX IF NOT EXISTS lines_of_room ON lines (room) WHERE room IS NOT NULL;
  CREATE INDEX IF NOT EXISTS lines_of_remote ON lines (remote);
  CREATE INDEX IF NOT EXISTS lines_of_check ON lines (check_name);

  CREATE TABLE IF NOT EXISTS names (kind TEXT, name TEXT, PRIMARY KEY (kind, name)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS servers (
    host TEXT PRIMARY KEY, at INTEGER, events INTEGER, webhooks INTEGER
  ) WITHOUT ROWID;
`;

type Row = Readonly<Record<string, unknown>>;

/** The console's own database. Nothing in it is needed to run checks: it may be deleted while nothing runs. */
export class ConsoleDatabase {
  readonly #database: DatabaseSync;
  readonly #statements: Statements;
  readonly #onError: (error: unknown) => void;
  #reportedAt = 0;
  #waiting: (() => void)[] = [];
  #timer: NodeJS.Timeout | undefined;
  #isWriting = false;
  #isClosing = false;

  /**
   * @param onError is called if changes cannot be written; they are then missing in the console
   * @throws with what to do if the file is not a database that this can use
   */
  constructor(file: string, onError: (error: unknown) => void) {
    this.#onError = onError;
    try {
      this.#database = openDatabase(file);
      this.#database.exec('PRAGMA cache_size = -8000'); // 8 MB
      const { user_version: version } = this.#database.prepare('PRAGMA user_version').get() as { user_version: number };
      if (version !== SCHEMA_VERSION)
        for (const table of ['joins', 'lines', 'names', 'servers'])
          this.#database.exec(`DROP TABLE IF EXISTS ${table}`);
      this.#database.exec(`${SCHEMA} PRAGMA user_version = ${SCHEMA_VERSION}`);
      this.#statements = new Statements(this.#database);
    } catch (error) {
      throw new Error(`the console cannot use ${file}: delete it, or start with --console off`, { cause: error });
    }
  }

  run(sql: string, ...values: readonly SQLInputValue[]): number {
    return Number(this.#statements.get(sql).run(...values).changes);
  }

  all(sql: string, ...values: readonly SQLInputValue[]): readonly Row[] {
    return this.#statements.get(sql).all(...values);
  }

  count(sql: string, ...values: readonly SQLInputValue[]): number {
    return Number(Object.values(this.#statements.get(sql).get(...values) ?? { none: 0 })[0]);
  }

  /** It is being closed: what can be done at the next start should wait for it. */
  get isClosing(): boolean {
    return this.#isClosing;
  }

  /** Writes a change within moments, together with others. After the end, it is lost. */
  change(write: () => void): void {
    if (!this.#database.isOpen) return;
    this.#waiting.push(write);
    if (this.#waiting.length > MAX_WAITING && !this.#isWriting) this.flush();
    this.#timer ??= setTimeout(() => this.#writeSome(), COLLECT_MS);
  }

  /** Writes all changes that wait. */
  flush(): void {
    while (this.#waiting.length > 0) this.#write();
  }

  close(): void {
    this.#isClosing = true;
    clearTimeout(this.#timer);
    this.flush();
    this.#statements.clear();
    this.#database.close();
  }

  #writeSome(): void {
    this.#write();
    this.#timer = this.#waiting.length === 0 ? undefined : setTimeout(() => this.#writeSome(), 1);
  }

  #write(): void {
    const changes = this.#waiting.splice(0, CHANGES_AT_A_TIME);
    this.#isWriting = true;
    try {
      this.#database.exec('BEGIN');
      for (const write of changes) write();
      this.#database.exec('COMMIT');
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      if (Date.now() - this.#reportedAt < REPORT_AT_MOST_EVERY_MS) return;
      this.#reportedAt = Date.now();
      this.#onError(error);
    } finally {
      this.#isWriting = false;
    }
  }
}
