import { defineConfig } from 'vitest/config';

/** `npm run test:lambda`: these tests need tools that take minutes to build, so they are not part of `npm test`. */
export default defineConfig({
  test: {
    name: 'lambda',
    include: ['test/lambda/**/*.test.ts'],
    globalSetup: ['lab/lambda-tools.ts', 'lab/assembly.ts'],
    testTimeout: 120_000,
    hookTimeout: 90_000,
    reporters: ['default', './test/count-reporter.ts'],
  },
});
