/**
 * Faults of every kind at every seam of the path, under writes whose books can be checked from outside: nothing is lost,
 * nothing comes twice, and nobody who looks at the target ever sees half of a transaction.
 *
 * `npm run faults -- --rounds N --seed S` runs as many rounds as one likes; here are ten. Round `i` has the seed `S + i`,
 * so each can be played again by itself.
 */
import { expect, test } from 'vitest';
import { FAILPOINTS } from '../../src/core/failpoints.ts';
import { OutOfPatience } from '../support/patience.ts';
import { redisForTests, useServers } from '../support/servers.ts';
import { findFaketime, KINDS, type Kind } from './kinds.ts';
import { describe, planOf, ROUNDS_FOR_ALL } from './plan.ts';
import { Report } from './report.ts';
import { runRound } from './round.ts';

const ROUNDS = Number(process.env.FAULTS_ROUNDS ?? 10);
const SEED = Number(process.env.FAULTS_SEED ?? 1);

// A log writer that sleeps: of what nobody flushed much is lost in a crash.
const servers = await useServers({ wal_writer_delay: '10s' });

test('nothing is lost and nothing comes twice, whatever fails', { timeout: ROUNDS * 600_000 }, async () => {
  await using redis = await redisForTests();
  const has = { redis: redis !== undefined, worker: redis !== undefined, faketime: hasFaketime() };
  const isAvailable = ({ needs }: Kind) => needs === undefined || has[needs];
  const kinds = KINDS.filter(isAvailable);
  const report = new Report();
  const waitedInVain: OutOfPatience[] = [];
  for (let seed = SEED; seed < SEED + ROUNDS; seed++) {
    const plan = planOf(seed, kinds, has.redis);
    const began = Date.now();
    const result = await runRound(servers, redis, plan).catch((error: unknown) => {
      if (error instanceof OutOfPatience) waitedInVain.push(error);
      else report.fail(seed, String(error));
      return undefined;
    });
    if (result !== undefined) report.add(seed, plan.kind.name, result);
    const came = result === undefined ? 'FAILED' : result.wrong.length === 0 ? 'equal' : 'WRONG';
    console.log(`${describe(plan)}: ${came}, ${((Date.now() - began) / 1000).toFixed(1)} s`);
  }
  const unavailable = KINDS.filter((kind) => !isAvailable(kind)).map(({ name }) => name);
  console.log(report.lines(unavailable).join('\n'));
  expect(report.wrong).toEqual([]);
  if (waitedInVain[0] !== undefined) throw waitedInVain[0];
  if (ROUNDS >= ROUNDS_FOR_ALL) expect(report.missed(FAILPOINTS)).toEqual([]);
});

function hasFaketime(): boolean {
  if (findFaketime() !== undefined) return true;
  if (process.env.CI && process.platform === 'linux') throw new Error('CI needs the package faketime');
  return false;
}
