import type { ConsoleDatabase } from './database.ts';
import type { Found, NameKind } from './views.ts';

/** Names that a search returns of each kind. */
const MAX_FOUND = 8;
/** Names that were added lately, and need not be added again. */
const MAX_LATELY = 20_000;
/** Names that one change looks at: some ten milliseconds. */
const AT_A_TIME = 1000;

/** The column of a kind in the tables of joins and of lines. */
export const COLUMNS: Readonly<Record<NameKind, string>> = { user: 'bare', room: 'room', remote: 'remote' };
const KINDS: readonly NameKind[] = ['user', 'room', 'remote'];

export const bareJid = (user: string): string => user.split('/', 1)[0] ?? '';

/** The names of users, rooms and remote hosts that a join or a line has, for search. */
export class Names {
  readonly #database: ConsoleDatabase;
  readonly #lately = new Set<string>();

  constructor(database: ConsoleDatabase) {
    this.#database = database;
  }

  /** To be called within a change of the database. */
  add(kind: NameKind, name: string): void {
    const key = `${kind} ${name}`;
    if (this.#lately.has(key)) return;
    if (this.#lately.size >= MAX_LATELY) this.#lately.clear();
    this.#lately.add(key);
    this.#database.run('INSERT OR IGNORE INTO names VALUES (?, ?)', kind, name);
  }

  /** The names that contain a text, without a resource (`/phone`). Those that begin with it come first. */
  search(text: string): readonly Found[] {
    const lower = bareJid(text.trim().toLowerCase());
    const find = (kind: NameKind, condition: string, ...values: readonly string[]): readonly string[] =>
      this.#database
        .all(`SELECT name FROM names WHERE kind = ? AND ${condition} LIMIT ${MAX_FOUND}`, kind, ...values)
        .map(({ name }) => String(name));
    return KINDS.flatMap((kind) => {
      const first = find(kind, 'name >= ? AND name < ?', lower, `${lower}\u{10FFFF}`);
      const others = first.length < MAX_FOUND ? find(kind, 'instr(name, ?) > 1', lower) : [];
      return [...first, ...others].slice(0, MAX_FOUND).map((name) => ({ kind, name }));
    });
  }

  /** Deletes the names that nothing has any more, in the background. */
  trim(): void {
    this.#trim(KINDS, '');
  }

  /** @param after the last name of the first kind that was looked at */
  #trim([kind, ...others]: readonly NameKind[], after: string): void {
    if (kind === undefined) return;
    const database = this.#database;
    database.change(() => {
      if (database.isClosing) return;
      const sql = `SELECT name FROM names WHERE kind = ? AND name > ? ORDER BY name LIMIT ${AT_A_TIME}`;
      const names = database.all(sql, kind, after).map(({ name }) => String(name));
      for (const name of names) {
        const has = (table: string): string => `EXISTS (SELECT 1 FROM ${table} WHERE ${COLUMNS[kind]} = name)`;
        const deleted = database.run(
          `DELETE FROM names WHERE kind = ? AND name = ? AND NOT ${has('joins')} AND NOT ${has('lines')}`,
          kind,
          name,
        );
        if (deleted > 0) this.#lately.delete(`${kind} ${name}`);
      }
      const last = names.at(-1);
      if (last === undefined) this.#trim(others, '');
      else this.#trim([kind, ...others], last);
    });
  }
}
