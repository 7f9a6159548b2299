import { ensurePackage } from './debian.ts';

/** Installs what the tests need in addition to the npm packages. */
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
if (major < 22 || (major === 22 && minor < 19)) {
  process.stderr.write(
    'Run this with npm, which installs its own Node: npm ci && npm test\n' +
      `It needs Node 22.19 or newer, but this is ${process.versions.node}.\n`,
  );
  process.exit(1);
}
ensurePackage('prosody', 'prosody');
ensurePackage('chromium', 'chromium'); // for the console
ensurePackage('faketime', 'faketime'); // for tests with clocks that differ
// every Lua that Prosody supports
for (const version of ['5.1', '5.2', '5.3', '5.4']) ensurePackage(`lua${version}`, `lua${version}`);
