/**
 * The story of a move, as often as one likes: `npm run story -- [--runs N] [--long]`. Prints for each move how long nobody
 * could write, and at the end the median. With --long the application writes for five minutes on the new side before it
 * goes back, and not for five seconds.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const root = join(import.meta.dirname, '..');
const { values } = parseArgs({
  options: { runs: { type: 'string', default: '10' }, long: { type: 'boolean', default: false } },
});
if (!/^[1-9]\d*$/.test(values.runs)) {
  console.error(`--runs takes a whole number from 1 on, not ${values.runs}`);
  process.exit(2);
}

const { status } = spawnSync(
  process.execPath,
  [
    join(root, 'node_modules', 'vitest', 'vitest.mjs'),
    'run',
    join('test', 'story', 'story.test.ts'),
    '--disable-console-intercept',
  ],
  {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, STORY_RUNS: values.runs, STORY: values.long ? 'long' : '' },
  },
);
process.exit(status ?? 1);
