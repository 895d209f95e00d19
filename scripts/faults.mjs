/**
 * Rounds of faults: `npm run faults -- [--rounds N] [--seed S]`. Prints each round, then rounds, faults by kind,
 * differences and times to recover. Round i has the seed S + i, so `--rounds 1 --seed ..` plays one again.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const root = join(import.meta.dirname, '..');
const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '100' }, seed: { type: 'string', default: '1' } },
});
for (const [name, value] of Object.entries(values)) {
  if (/^[1-9]\d*$/.test(value)) continue;
  console.error(`--${name} takes a whole number from 1 on, not ${value}`);
  process.exit(2);
}

const { status } = spawnSync(
  process.execPath,
  [
    join(root, 'node_modules', 'vitest', 'vitest.mjs'),
    'run',
    join('test', 'faults'),
    '--disable-console-intercept',
  ],
  {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, FAULTS_ROUNDS: values.rounds, FAULTS_SEED: values.seed },
  },
);
process.exit(status ?? 1);
