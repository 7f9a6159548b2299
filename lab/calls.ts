import { appendFileSync } from 'node:fs';
import type { CallRecorder } from '../local/calls.ts';

/**
 * Appends calls to a file, one JSON object per line. A test compares them with the permissions that the stack grants.
 * Each distinct call is written once, so the file stays short.
 */
export function callRecorder(file: string): CallRecorder {
  const seen = new Set<string>();
  return (call) => {
    const line = JSON.stringify(call);
    if (seen.has(line)) return;
    seen.add(line);
    appendFileSync(file, `${line}\n`);
  };
}
