import { defineConfig } from 'vitest/config';
import { excludedFiles } from './lab/differences.ts';
import { ROLES } from './lab/servers.ts';
import { SlowFirst } from './test/slow-first.ts';

/** Those that keep the processor busy; the others mostly wait. */
const BUSY = ['faults', 'flap', 'fuzz', 'reentry-scale', 'scale', 'sender-load'].map(
  (name) => `test/e2e/${name}.test.ts`,
);
/** With other servers than Prosody alone (`npm run test:servers`), some tests are left out. */
const OTHERS = excludedFiles(ROLES);
const E2E = {
  globalSetup: ['lab/assembly.ts'],
  setupFiles: ['test/differences.ts'],
  testTimeout: 60_000,
  hookTimeout: 90_000,
};

export default defineConfig({
  test: {
    sequence: { sequencer: SlowFirst },
    reporters: ['default', './test/count-reporter.ts'],
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'] } },
      {
        test: {
          name: 'infra',
          include: ['test/infra/**/*.test.ts'],
          globalSetup: ['lab/assembly.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      // real servers that start, wait and die: each file has its own, and several files run at a time
      {
        test: {
          ...E2E,
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          exclude: [...BUSY, ...OTHERS],
          maxWorkers: 8,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          ...E2E,
          name: 'e2e-busy',
          include: BUSY,
          exclude: [...OTHERS],
          maxWorkers: 2,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
