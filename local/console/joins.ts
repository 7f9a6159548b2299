import { type DynamoDBClient, paginateScan } from '@aws-sdk/client-dynamodb';
import type { ConsoleDatabase } from './database.ts';
import { COLUMNS, type Names, bareJid } from './names.ts';
import { type IndexedJoin, type JoinChange, readJoin } from './table-writes.ts';
import type { JoinView, NameKind } from './views.ts';

/** Rows of the table that are read at a time. Other requests are served between them. */
const ROWS_AT_A_TIME = 500;
/** Joins in the index: some 300 MB of disk. More are not found by search. */
const MAX_JOINS = 1_000_000;
const COUNT_EVERY = 1000;
/** Joins that a page shows. */
const MAX_SHOWN_JOINS = 200;

/** The joins of the table, indexed for search. It is filled in the background, and follows the table's writes. */
export class JoinIndex {
  readonly #database: ConsoleDatabase;
  readonly #names: Names;
  /** Joins that have ended while the table is being read: a page that was read before must not bring them back. */
  #ended: Set<string> | undefined = new Set();
  #inserted = 0;
  #size = 0;

  constructor(database: ConsoleDatabase, names: Names) {
    this.#database = database;
    this.#names = names;
    database.run('DELETE FROM joins'); // the table may have changed while nothing ran
  }

  /** The table is being read, so joins are still missing. */
  get isFilling(): boolean {
    return this.#ended !== undefined;
  }

  /** Reads the whole table. @throws what the SDK throws */
  async fill(client: DynamoDBClient, table: string, signal: AbortSignal): Promise<void> {
    const pages = paginateScan({ client }, { TableName: table, Limit: ROWS_AT_A_TIME });
    for await (const { Items = [] } of pages) {
      if (signal.aborted) return;
      for (const item of Items) {
        const join = readJoin(item);
        if (join !== undefined) this.#database.change(() => this.#insert(join, true));
      }
    }
    this.#database.change(() => {
      this.#ended = undefined;
    });
  }

  /** Follows a write of the table. */
  apply(change: JoinChange): void {
    this.#database.change(() => this.#write(change));
  }

  count(): number {
    return this.#database.count('SELECT count(*) FROM joins');
  }

  countOf(kind: NameKind, name: string): number {
    return this.#database.count(`SELECT count(*) FROM joins WHERE ${COLUMNS[kind]} = ?`, name);
  }

  /** Joins of a local host on a remote host. */
  countOn(host: string, remote: string): number {
    return this.#database.count('SELECT count(*) FROM joins WHERE remote = ? AND host = ?', remote, host);
  }

  /** Joins of each local host. */
  countByHost(): ReadonlyMap<string, number> {
    const rows = this.#database.all('SELECT host, count(*) AS count FROM joins GROUP BY host');
    return new Map(rows.map(({ host, count }) => [String(host), Number(count)]));
  }

  /** The first joins of a user (a bare JID), in a room or on a remote host, with their hosts. */
  of(kind: NameKind, name: string): readonly (JoinView & { readonly host: string; readonly remote: string })[] {
    const sql = `SELECT * FROM joins WHERE ${COLUMNS[kind]} = ? LIMIT ${MAX_SHOWN_JOINS}`;
    return this.#database.all(sql, name).map((row) => ({
      user: String(row['user']),
      room: String(row['room']),
      host: String(row['host']),
      remote: String(row['remote']),
      nick: String(row['nick']),
      since: Number(row['at']) / 1000,
      isUndecided: row['undecided'] === 1,
    }));
  }

  #write(change: JoinChange): void {
    if (change.kind === 'joined') {
      this.#ended?.delete(`${change.join.room}#${change.join.user}`);
      return this.#insert(change.join, false);
    }
    const { room, user } = change.key;
    if (change.kind === 'ended') {
      this.#ended?.add(`${room}#${user}`);
      this.#database.run('DELETE FROM joins WHERE room = ? AND user = ?', room, user);
    } else
      this.#database.run(
        'UPDATE joins SET undecided = ? WHERE room = ? AND user = ?',
        Number(change.isUndecided),
        room,
        user,
      );
  }

  #insert(join: IndexedJoin, isFromScan: boolean): void {
    const { room, user, remote, host, nick, at, isUndecided } = join;
    if (isFromScan && this.#ended?.has(`${room}#${user}`) === true) return;
    if (this.#isFull()) return;
    const bare = bareJid(user);
    this.#database.run(
      `INSERT INTO joins VALUES (?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT DO UPDATE SET nick = excluded.nick, at = excluded.at WHERE excluded.at >= joins.at`,
      ...[room, user, bare, remote, host, nick, at, Number(isUndecided)],
    );
    this.#names.add('user', bare);
    this.#names.add('room', room);
    this.#names.add('remote', remote);
  }

  #isFull(): boolean {
    if (this.#inserted % COUNT_EVERY === 0) this.#size = this.count();
    this.#inserted += 1;
    return this.#size >= MAX_JOINS;
  }
}
