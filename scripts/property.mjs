/**
 * The long form of the property tests: `npm run property -- [convergence|undisturbed] [--seeds N] [--seed FIRST]
 * [--shrink SECONDS]`. Prints which seeds were run, and for each that failed the command that replays it.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const root = join(import.meta.dirname, '..');
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seeds: { type: 'string', default: '500' },
    seed: { type: 'string', default: '1' },
    shrink: { type: 'string', default: '60' },
  },
});
for (const [name, value] of Object.entries(values)) {
  if (/^\d+$/.test(value)) continue;
  console.error(`--${name} takes a whole number, not ${value}`);
  process.exit(2);
}

const files = (positionals.length > 0 ? positionals : ['']).map((name) => join('test', 'property', name));
const { status } = spawnSync(
  process.execPath,
  [join(root, 'node_modules', 'vitest', 'vitest.mjs'), 'run', ...files],
  {
    cwd: root,
    stdio: 'inherit',
    env: {
      ...process.env,
      PROPERTY_SEEDS: values.seeds,
      PROPERTY_SEED: values.seed,
      PROPERTY_SHRINK: values.shrink,
    },
  },
);
process.exit(status ?? 1);
