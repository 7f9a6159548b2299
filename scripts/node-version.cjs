'use strict';

/**
 * Ends the process with one line if this Node cannot run ping-muc. It is loaded first (node -r), and is JavaScript of any
 * age: an older Node cannot even read the TypeScript that follows.
 */

/** The first minor version of a major version that runs TypeScript as it is, without an option. */
const MINORS = { 22: 18, 23: 6 };

/**
 * @param {string} version for example 22.18.0
 * @returns {boolean} whether this Node runs ping-muc
 */
function isSupported(version) {
  const [major, minor] = version.split('.').map(Number);
  return major >= 24 || minor >= MINORS[major];
}

if (!isSupported(process.versions.node)) {
  process.stderr.write(
    `ping-muc needs Node 22.18 or newer, but ${process.execPath} is Node ${process.versions.node}. ` +
      'In a clone of the repository on Linux on x64, npm ci installs it; elsewhere, install it from https://nodejs.org/\n',
  );
  process.exit(1);
}

module.exports = { isSupported };
