/**
 * Rounds of nodes that are written at once: `npm run conflicts -- [--seeds N] [--seed FIRST] [--strategy NAME]
 * [--nodes MOST]`. Prints each round, and for each that failed the command that replays it.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const root = join(import.meta.dirname, '..');
const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '300' },
    seed: { type: 'string', default: '1' },
    strategy: { type: 'string' },
    nodes: { type: 'string', default: '4' },
  },
});
for (const name of ['seeds', 'seed', 'nodes']) {
  if (/^[1-9]\d*$/.test(values[name])) continue;
  console.error(`--${name} takes a whole number from 1 on, not ${values[name]}`);
  process.exit(2);
}

const { status } = spawnSync(
  process.execPath,
  [
    join(root, 'node_modules', 'vitest', 'vitest.mjs'),
    'run',
    join('test', 'convergence'),
    '--disable-console-intercept',
  ],
  {
    cwd: root,
    stdio: 'inherit',
    env: {
      ...process.env,
      CONVERGENCE_SEEDS: values.seeds,
      CONVERGENCE_SEED: values.seed,
      CONVERGENCE_NODES: values.nodes,
      ...(values.strategy === undefined ? {} : { CONVERGENCE_STRATEGY: values.strategy }),
    },
  },
);
process.exit(status ?? 1);
