import type { ConsoleDatabase } from './database.ts';
import type { Names } from './names.ts';

/** How long the lines of checks are kept, and how many: some 500 MB of disk. The oldest go first. */
const KEPT_MS = 30 * 86_400_000;
const MAX_LINES = 1_000_000;
/** Lines that one change deletes: some ten milliseconds. */
const AT_A_TIME = 1000;

/** Deletes lines that are too old or too many, and then the names that nothing has any more: in the background. */
export function trim(database: ConsoleDatabase, names: Names, nowMs: number, maxLines = MAX_LINES): void {
  database.change(() => {
    if (database.isClosing) return;
    const [first] = database.all('SELECT id, at FROM lines ORDER BY id LIMIT 1');
    const oldest = Number(first?.['id'] ?? 0);
    const excess = database.count('SELECT max(id) FROM lines') - oldest + 1 - maxLines;
    const isOld = first !== undefined && Number(first['at']) < nowMs - KEPT_MS;
    if (first === undefined || (!isOld && excess <= 0)) return names.trim();
    const end = oldest + (isOld ? AT_A_TIME : Math.min(AT_A_TIME, excess));
    const before = isOld ? nowMs - KEPT_MS : Number.MAX_SAFE_INTEGER;
    database.run('DELETE FROM lines WHERE id < ? AND at < ?', end, before);
    trim(database, names, nowMs, maxLines);
  });
}
