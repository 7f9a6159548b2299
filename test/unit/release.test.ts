import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { releaseChangelog, tagRelease } from '../../scripts/release/version.ts';

/** `npm run release`, in a repository of its own. */
const DAY = '2026-11-30';
let root: string;

const git = (...words: readonly string[]): string =>
  execFileSync('git', words, { cwd: root, encoding: 'utf8', stdio: 'pipe' }).trim();
const read = (name: string): string => readFileSync(join(root, name), 'utf8');
const write = (name: string, text: string): void => writeFileSync(join(root, name), text);
const commit = (): string => git('commit', '--quiet', '--all', '--message', 'a change');

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'ping-muc-release-test-'));
  mkdirSync(join(root, 'docs'));
  const manifest = { name: 'ping-muc', version: '0.1.0' };
  write('package.json', JSON.stringify(manifest));
  write('package-lock.json', JSON.stringify({ ...manifest, lockfileVersion: 3, packages: { '': manifest } }));
  write('CHANGELOG.md', '# Changelog\n\n## Unreleased\n\n- It works.\n');
  write('docs/operating.md', 'tar xzf ping-muc-0.1.0.tgz && cd ping-muc-0.1.0\n');
  git('init', '--quiet');
  for (const [name, value] of [
    ['user.name', 'ping-muc'],
    ['user.email', 'ping-muc@example.net'],
  ] as const)
    git('config', name, value);
  git('add', '.');
  git('commit', '--quiet', '--message', 'first');
});
afterEach(() => rmSync(root, { recursive: true }));

it('gives all parts the version, and tags the commit', () => {
  expect(tagRelease(root, '0.2.0', DAY)).toBe('v0.2.0');
  for (const name of ['package.json', 'package-lock.json'])
    expect(JSON.parse(read(name))).toMatchObject({ version: '0.2.0' });
  expect(read('docs/operating.md')).toBe('tar xzf ping-muc-0.2.0.tgz && cd ping-muc-0.2.0\n');
  expect(read('CHANGELOG.md')).toBe(`# Changelog\n\n## Unreleased\n\n## 0.2.0 (${DAY})\n\n- It works.\n`);
  expect(git('describe', '--exact-match')).toBe('v0.2.0');
  expect(git('status', '--porcelain')).toBe('');
});

it('can release the first version, which package.json states already', () => {
  expect(tagRelease(root, '0.1.0', DAY)).toBe('v0.1.0');
});

describe('changes nothing, and says why,', () => {
  it.each([
    ['if the version is older', '0.0.9', /older than 0\.1\.0/],
    ['if it is no version', 'next', /"next" is not a version; for example/],
  ])('%s', (_, version, message) => {
    expect(() => tagRelease(root, version, DAY)).toThrow(message);
    expect([git('status', '--porcelain'), git('tag')]).toEqual(['', '']);
  });

  it('if there are changes', () => {
    write('package.json', '{ "version": "0.1.0" }');
    expect(() => tagRelease(root, '0.2.0', DAY)).toThrow(/there are changes/);
    expect(git('tag')).toBe('');
  });

  it('if the version is tagged', () => {
    tagRelease(root, '0.1.0', DAY);
    write('CHANGELOG.md', read('CHANGELOG.md').replace('Unreleased\n', 'Unreleased\n\n- More.\n'));
    commit();
    expect(() => tagRelease(root, '0.1.0', DAY)).toThrow(/v0\.1\.0 is tagged already/);
  });

  it('if an operator would notice nothing', () => {
    expect(() =>
      releaseChangelog('# Changelog\n\n## Unreleased\n\n## 0.1.0 (today)\n\n- Old.\n', '0.2.0', DAY),
    ).toThrow(/nothing under "## Unreleased"/);
  });
});
