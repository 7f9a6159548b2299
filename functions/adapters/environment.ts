import { readFileSync } from 'node:fs';

/** The variable's value. @throws if it is not set: a stack must not run without it. */
export function requireEnv(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`the environment variable ${name} is not set`);
  return value;
}

/**
 * A list, separated by commas, or `@` and the name of a JSON file in the function's bundle: Lambda takes 4 KB for all
 * variables together (Lambda quotas). @throws if it is not set, or the file is not there
 */
export function requireList(name: string): readonly string[] {
  const value = requireEnv(name);
  if (value.startsWith('@'))
    return JSON.parse(readFileSync(new URL(value.slice(1), import.meta.url), 'utf8')) as readonly string[];
  return value.split(',').filter((item) => item !== '');
}
