import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { until } from '../lab.ts';

/** How long an answer may take: the client may be starting. */
const ANSWER_MS = 30_000;

/**
 * Asks a program what a client shows: it is sent a number and `what`, and answers with a line of JSON with this number
 * as `look`. Its other output is ignored.
 */
export function looker<Look>(program: ChildProcess, client: string): (what?: string) => Promise<Look> {
  if (program.stdout === null) throw new Error(`${client} has no output`);
  const looks = new Map<number, Look>();
  createInterface({ input: program.stdout }).on('line', (line) => {
    if (!line.startsWith('{"look"')) return;
    const look = JSON.parse(line) as Look & { readonly look: number };
    looks.set(look.look, look);
  });
  let asked = 0;
  return async (what = '') => {
    asked += 1;
    const number = asked;
    program.stdin?.write(`${number} ${what}\n`);
    const look = await until(`${client} reports what it shows`, () => looks.get(number), ANSWER_MS);
    looks.delete(number);
    return look;
  };
}
