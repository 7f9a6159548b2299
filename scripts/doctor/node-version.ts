import { type Finding, bad, ok } from './finding.ts';

/** The first release that runs TypeScript without a flag. */
const LEAST = [22, 18] as const;

/** @param version as `process.versions.node` has it */
export function nodeVersion(version: string): Finding {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const isNew = major > LEAST[0] || (major === LEAST[0] && minor >= LEAST[1]);
  if (isNew) return ok(`Node: ${version}`);
  return bad(`Node: ${version} is too old. Install Node ${LEAST.join('.')} or newer, or run npm ci, which brings one`);
}
