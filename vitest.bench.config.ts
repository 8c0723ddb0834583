import { defineConfig } from 'vitest/config';

// Benchmarks: one file at a time, ratios within one run, nothing asserted about time.
export default defineConfig({
  test: {
    include: ['test/bench/**/*.bench.ts'],
    pool: 'forks',
    execArgv: ['--expose-gc'],
    fileParallelism: false,
    globalSetup: ['test/global-setup.ts'],
    testTimeout: 1_800_000,
    hookTimeout: 300_000,
    reporters: ['default'],
    silent: false,
    disableConsoleIntercept: true,
  },
});
