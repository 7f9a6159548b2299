import { ensurePackage, ensureServer } from './debian.ts';

/** Installs what the tests need in addition to the npm packages. */
ensureServer('prosody');
ensurePackage('chromium', 'chromium'); // for the console
ensurePackage('faketime', 'faketime'); // for tests with clocks that differ
ensurePackage('systemd-analyze', 'systemd'); // for the sandbox of a release's service
// every Lua that Prosody supports
for (const version of ['5.1', '5.2', '5.3', '5.4']) ensurePackage(`lua${version}`, `lua${version}`);
