/**
 * Tests run against real servers, a pair of clusters for each file (`test/support/servers.ts`): hence files in
 * processes of their own, more of them than there are cores, since most of their time is waiting, and patience for a
 * machine that is busy. In CI, which shares its machine, a test that ran out of that patience, and of nothing else, is
 * tried once more, and listed at the end: why is in `test/support/patience.ts`.
 */
import { defineConfig } from 'vitest/config';
import { LongFilesFirst } from './test/support/order.ts';
import { OUT_OF_PATIENCE, SecondTries } from './test/support/patience.ts';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/build.ts'],
    pool: 'forks',
    maxWorkers: 4,
    sequence: { sequencer: LongFilesFirst },
    testTimeout: 300_000,
    hookTimeout: 300_000,
    expect: { poll: { timeout: 90_000 } },
    ...(process.env.CI ? { retry: { count: 1, condition: OUT_OF_PATIENCE } } : {}),
    // The output ends with the summary of the other one.
    reporters: [new SecondTries(), 'default'],
  },
});
