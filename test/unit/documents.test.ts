import { existsSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { FAULTS } from '../lab/faults.ts';

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

it('docs/reliability.md names a test for each fault, and each of them is there', () => {
  const tables = [...read('docs/reliability.md').matchAll(/^\| fault \|.*\n\|[-| ]+\n((?:\|.*\n)+)/gm)].flatMap(([, rows = '']) => rows.trimEnd().split('\n'));
  const tests = tables.flatMap((row) => (row.split('|').at(-2) ?? '').split(';').map((name) => name.trim().replaceAll('`', '')));
  const isThere = (name: string): boolean => (name.endsWith('.ts') ? existsSync(new URL(`../../${name}`, import.meta.url)) : name in FAULTS);
  expect(tests.length).toBeGreaterThan(20);
  expect(tests.filter((name) => !isThere(name))).toEqual([]);
  expect(Object.keys(FAULTS).filter((fault) => !tests.some((name) => fault.startsWith(name)))).toEqual([]);
});
