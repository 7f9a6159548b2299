import { rmSync, writeFileSync } from 'node:fs';
import { afterEach, expect, it, vi } from 'vitest';
import { requireList } from '../../functions/adapters/environment.ts';

afterEach(() => vi.unstubAllEnvs());

it.each([
  ['', []],
  ['example.net', ['example.net']],
  ['example.net,example.org', ['example.net', 'example.org']],
])('a list is separated by commas: %j', (value, list) => {
  vi.stubEnv('A_LIST', value);
  expect(requireList('A_LIST')).toEqual(list);
});

it('a long list is a file beside the code', () => {
  const file = new URL(`../../functions/adapters/list-${process.pid}.json`, import.meta.url);
  writeFileSync(file, '["example.net"]');
  try {
    vi.stubEnv('A_LIST', `@list-${process.pid}.json`);
    expect(requireList('A_LIST')).toEqual(['example.net']);
  } finally {
    rmSync(file);
  }
});

it('a list that is not there stops the function: an empty one would admit every host', () => {
  expect(() => requireList('A_LIST')).toThrow('the environment variable A_LIST is not set');
  vi.stubEnv('A_LIST', '@none.json');
  expect(() => requireList('A_LIST')).toThrow('ENOENT');
});
