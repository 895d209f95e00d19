/**
 * Tests run against real servers, a pair of clusters for each file (`test/support/servers.ts`): hence files in
 * processes of their own, more of them than there are cores, since most of their time is waiting, and patience for a
 * machine that is busy.
 */
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/build.ts'],
    pool: 'forks',
    maxWorkers: 4,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
