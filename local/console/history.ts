import type { ConsoleDatabase } from './database.ts';
import { COLUMNS, type Names, bareJid } from './names.ts';
import { namedAnswers, outcome } from './outcomes.ts';
import type { Counts, HistoryView, NameKind } from './views.ts';

/** Characters of a line's other fields. */
const MAX_FIELDS = 4000;
/** Lines that a page shows. */
const MAX_SHOWN_LINES = 200;
/** Servers that are listed. Each has signed a webhook. */
const MAX_SERVERS = 1000;
const MAX_DETAIL = 500;

/** Lines without a part in a story. */
const OMITTED = new Set(['_aws', 'time', 'level', 'message', 'requestId', 'checkId', 'service']);

type Fields = Readonly<Record<string, unknown>>;

const text = (value: unknown): string | null => (typeof value === 'string' ? value : null);

export interface ReportingServer {
  readonly host: string;
  readonly at: number;
  readonly events: number;
  readonly webhooks: number;
}

/** What checks wrote about themselves and about joins, and what servers sent: from the functions' log lines. */
export class History {
  readonly #database: ConsoleDatabase;
  readonly #names: Names;
  #refused: { readonly at: number; readonly detail: string } | undefined;

  constructor(database: ConsoleDatabase, names: Names) {
    this.#database = database;
    this.#names = names;
  }

  /** Takes a log line. Lines about other things are ignored. */
  take(line: string): void {
    if (!line.includes('"checkId"') && !line.includes('"message":"webhook ')) return;
    let fields: Fields;
    try {
      fields = JSON.parse(line) as Fields;
    } catch {
      return; // cut, or printed by something else than our logger
    }
    const at = Date.parse(String(fields['time']));
    if (Number.isNaN(at)) return;
    if (text(fields['checkId']) !== null) this.#database.change(() => this.#insert(at, fields));
    else if (fields['message'] === 'webhook stored') this.#database.change(() => this.#countWebhook(at, fields));
    else if (fields['message'] === 'webhook refused')
      this.#refused = { at, detail: String(fields['detail']).slice(0, MAX_DETAIL) };
  }

  /** The newest lines about a user (a bare JID), a room, a remote host or a check, and whether there are more. */
  of(kind: NameKind | 'check', name: string): { readonly lines: readonly HistoryView[]; readonly isCut: boolean } {
    const sql = `SELECT * FROM lines WHERE ${kind === 'check' ? 'check_name' : COLUMNS[kind]} = ? ORDER BY id DESC LIMIT ${MAX_SHOWN_LINES + 1}`;
    const rows = this.#database.all(sql, name);
    return { lines: rows.slice(0, MAX_SHOWN_LINES).map(historyView), isCut: rows.length > MAX_SHOWN_LINES };
  }

  servers(): readonly ReportingServer[] {
    return this.#database.all(`SELECT * FROM servers ORDER BY host LIMIT ${MAX_SERVERS}`).map((row) => ({
      host: String(row['host']),
      at: Number(row['at']),
      events: Number(row['events']),
      webhooks: Number(row['webhooks']),
    }));
  }

  /** The last webhook that was refused since the start. */
  refused(): { readonly at: number; readonly detail: string } | undefined {
    return this.#refused;
  }

  #insert(at: number, fields: Fields): void {
    const [user, room, remote] = ['user', 'room', 'remote'].map((name) => text(fields[name]));
    const rest = Object.entries(fields).filter(
      ([name, value]) => !OMITTED.has(name) && !['host', 'remote', 'room', 'user'].includes(name) && value !== 0,
    );
    const bare = user == null ? null : bareJid(user);
    const kept = JSON.stringify(Object.fromEntries(rest));
    this.#database.run(
      'INSERT INTO lines VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)',
      ...[at, text(fields['checkId']), text(fields['host']), remote ?? null, room ?? null, user ?? null, bare],
      ...[text(fields['level']), text(fields['message']), kept.length > MAX_FIELDS ? '{}' : kept],
    );
    if (bare !== null) this.#names.add('user', bare);
    if (room != null) this.#names.add('room', room);
    if (remote != null) this.#names.add('remote', remote);
  }

  #countWebhook(at: number, { host, events }: Fields): void {
    if (typeof host !== 'string') return;
    this.#database.run(
      `INSERT INTO servers VALUES (?, ?, ?, 1)
       ON CONFLICT DO UPDATE SET at = max(at, excluded.at), events = excluded.events, webhooks = webhooks + 1`,
      host,
      at,
      Number(events) || 0,
    );
  }
}

function historyView(row: Fields): HistoryView {
  const fields = JSON.parse(String(row['fields'])) as Fields;
  const message = String(row['message']);
  const [room, user] = [text(row['room']), text(row['user'])];
  const answers = Array.isArray(fields['answers']) ? fields['answers'].map(String) : [];
  const error = [fields['error'], fields['detail'], fields['because']].filter((part) => typeof part === 'string');
  return {
    at: Number(row['at']),
    check: String(row['check_name']),
    remote: String(row['remote']),
    isError: row['level'] === 'ERROR' || row['level'] === 'WARN',
    what: outcome(message, answers),
    answers: answers.length > 0 ? namedAnswers(message, answers) : error,
    ...(room === null ? {} : { room }),
    ...(user === null ? {} : { user }),
    ...(typeof fields['totals'] === 'object' && fields['totals'] !== null
      ? { totals: fields['totals'] as Counts }
      : {}),
  };
}
