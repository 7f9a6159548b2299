import { ensurePackage } from './debian.ts';

/** What the tests need beside the packages that npm installs. */
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
if (major < 22 || (major === 22 && minor < 19)) {
  process.stderr.write(
    `Node ${process.versions.node} runs this; it needs 22.19 or newer. Run it with npm, which brings its own: npm ci && npm test\n`,
  );
  process.exit(1);
}
ensurePackage('prosody', 'prosody');
ensurePackage('faketime', 'faketime'); // clocks that differ
for (const version of ['5.1', '5.2', '5.3', '5.4']) ensurePackage(`lua${version}`, `lua${version}`); // whatever Prosody runs on
