import { styleText } from 'node:util';

/** Fields that say nothing to a person who watches. */
const QUIET = new Set(['level', 'time', 'message', '_aws', 'service', 'requestId']);

interface LogFields extends Record<string, unknown> {
  readonly level?: string;
  readonly time?: string;
  readonly message?: string;
}

/** A log line for a terminal: the time, the message, and the fields that matter. Lines that are not JSON stay as they are. */
export function prettyLine(line: string): string {
  let fields: LogFields;
  try {
    fields = JSON.parse(line) as LogFields;
  } catch {
    return line;
  }
  const { level = 'INFO', time = '', message = '' } = fields;
  const colour = level === 'ERROR' ? 'red' : level === 'WARN' ? 'yellow' : 'bold';
  const rest = Object.entries(fields)
    .filter(([name, value]) => !QUIET.has(name) && value !== undefined && value !== 0)
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  return [styleText('dim', time.slice(11, 19)), styleText(colour, message), styleText('dim', rest.join(' '))]
    .join('  ')
    .trimEnd();
}
