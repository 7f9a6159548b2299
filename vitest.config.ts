import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    reporters: ['default', './test/count-reporter.ts'],
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'] } },
      {
        test: {
          name: 'infra',
          include: ['test/infra/**/*.test.ts'],
          globalSetup: ['test/lab/assembly.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          globalSetup: ['test/lab/assembly.ts'],
          // real servers that start, wait and die: each file has its own, three files at a time, as they mostly wait
          testTimeout: 60_000,
          hookTimeout: 90_000,
          maxWorkers: 3,
        },
      },
    ],
  },
});
