import { styleText } from 'node:util';

/** Fields that are left out on a terminal. */
const OMITTED = new Set(['level', 'time', 'message', '_aws', 'service', 'requestId']);

interface LogFields extends Record<string, unknown> {
  readonly level?: string;
  readonly time?: string;
  readonly message?: string;
}

/**
 * A log line for a terminal: time, message and fields, without those that are empty. Other lines than JSON stay
 * unchanged.
 */
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
    .filter(([name, value]) => !OMITTED.has(name) && value !== undefined && value !== 0)
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  return [styleText('dim', time.slice(11, 19)), styleText(colour, message), styleText('dim', rest.join(' '))]
    .join('  ')
    .trimEnd();
}
