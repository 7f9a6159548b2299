import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildRelease } from './release/build.ts';
import { ReleaseError, tagRelease } from './release/version.ts';

/** Tags a release and makes its archive: `npm run release -- 1.2.3`. It pushes nothing. */
const ROOT = fileURLToPath(new URL('..', import.meta.url));

const [version, ...others] = process.argv.slice(2);
if (version === undefined || others.length > 0) {
  process.stderr.write('Usage: npm run release -- <version>, for example 1.2.3\n');
  process.exit(1);
}
try {
  const tag = tagRelease(ROOT, version, new Date().toISOString().slice(0, 10));
  const archive = relative('', await buildRelease(fileURLToPath(new URL('../dist', import.meta.url))));
  process.stdout.write(
    `Publish it: git push --follow-tags, and attach ${archive} and ${archive}.sha256 to the release ${tag}.\n` +
      `To take it back before that: git tag --delete ${tag} && git reset --hard HEAD~1\n`,
  );
} catch (error) {
  if (!(error instanceof ReleaseError)) throw error;
  process.stderr.write(`Nothing is released: ${error.message}\n`);
  process.exitCode = 1;
}
