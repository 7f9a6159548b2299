import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** What a release changes in the repository: its version, the changelog, a commit and a tag. */

const COMMAND_TIMEOUT_MS = 60_000;
const VERSION = /^(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})$/;
const UNRELEASED = '## Unreleased\n';
/** Pages that name the archive of a release. */
const PAGES = ['docs/operating.md'];

/** Why a version cannot be released. Its message says what to do. */
export class ReleaseError extends Error {
  override readonly name = 'ReleaseError';
}

/**
 * Gives the repository a new version: package.json, its lock file, pages and changelog, in one commit, with a tag.
 * @param root the repository's folder, with no changes that are not committed
 * @param version such as 1.2.3, newer than that of package.json, or the same if that has no tag yet
 * @param day of the release, as 2026-11-30
 * @returns the name of the tag
 * @throws ReleaseError, with nothing changed
 */
export function tagRelease(root: string, version: string, day: string): string {
  const git = (...words: readonly string[]): string => run(root, 'git', words);
  const tag = `v${version}`;
  if (git('status', '--porcelain') !== '') throw new ReleaseError('there are changes: commit them, or put them away');
  if (git('tag', '--list', tag) !== '') throw new ReleaseError(`${tag} is tagged already: choose a newer version`);
  const { version: before } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  requireNewer(version, before);
  const changelog = join(root, 'CHANGELOG.md');
  writeFileSync(changelog, releaseChangelog(readFileSync(changelog, 'utf8'), version, day));
  if (version !== before) run(root, 'npm', ['version', version, '--no-git-tag-version']);
  for (const page of PAGES.map((name) => join(root, name)))
    writeFileSync(page, readFileSync(page, 'utf8').replaceAll(`ping-muc-${before}`, `ping-muc-${version}`));
  git('commit', '--quiet', '--all', '--message', `Release ${version}`);
  git('tag', '--annotate', tag, '--message', `ping-muc ${version}`);
  return tag;
}

function requireNewer(version: string, before: string): void {
  const [next, last] = [VERSION.exec(version), VERSION.exec(before)];
  if (next === null) throw new ReleaseError(`"${version}" is not a version; for example 1.2.3`);
  const numbers = (match: RegExpExecArray | null): readonly number[] => (match ?? []).slice(1).map(Number);
  const [one, other] = [numbers(next), numbers(last)];
  const difference = one.map((number, index) => number - (other[index] ?? 0)).find((value) => value !== 0) ?? 0;
  if (difference < 0) throw new ReleaseError(`${version} is older than ${before}, the version of package.json`);
}

/**
 * Puts what is unreleased under the heading of a version, and an empty section above it.
 * @throws ReleaseError if nothing is unreleased
 */
export function releaseChangelog(text: string, version: string, day: string): string {
  const [before = '', after] = text.split(UNRELEASED);
  const [changes = ''] = (after ?? '').split(/^## /m);
  if (changes.trim() === '')
    throw new ReleaseError('CHANGELOG.md has nothing under "## Unreleased": say what an operator notices');
  return `${before}${UNRELEASED}\n## ${version} (${day})\n${after ?? ''}`;
}

/** @throws with what the command printed */
function run(cwd: string, command: string, words: readonly string[]): string {
  return execFileSync(command, words, { cwd, encoding: 'utf8', timeout: COMMAND_TIMEOUT_MS, stdio: 'pipe' });
}
