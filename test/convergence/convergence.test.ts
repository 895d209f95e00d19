/**
 * Two to four nodes that are written at once, under every strategy, while daemons are killed and directions delayed: once
 * the writing has stopped and nothing is on its way all nodes are equal, and what was lost is in the record.
 *
 * `npm run conflicts -- --seeds N --seed S` runs as many seeds as one likes; here are ten. Each can be played again by
 * itself; what the machine does meanwhile is not in the seed, so one that failed may need a few tries. One that was waited
 * for in vain is played again at once, by itself.
 */
import { expect, test } from 'vitest';
import { OutOfPatience } from '../support/patience.ts';
import { type Servers, useServers } from '../support/servers.ts';
import { Daemon } from './daemon.ts';
import { describe, type Plan, planOf, STRATEGIES } from './plan.ts';
import { Round, type RoundResult } from './round.ts';

const SEEDS = Number(process.env.CONVERGENCE_SEEDS ?? 10);
const FIRST = Number(process.env.CONVERGENCE_SEED ?? 1);
/** Rounds that one daemon carries for: to start it is the dearest part of a round, and they wait most of their time. */
const TOGETHER = 5;

const servers = await useServers();

test('all nodes end equal, and what was lost is in the record', { timeout: SEEDS * 480_000 }, async () => {
  const seeds = Array.from({ length: SEEDS }, (_, i) => FIRST + i);
  const failed: string[] = [];
  const inVain: number[] = [];
  const played = new Map<string, number>();
  while (seeds.length > 0) {
    await playGroup(servers, seeds.splice(0, TOGETHER).map(planOf), (plan, result) => {
      played.set(plan.strategy, (played.get(plan.strategy) ?? 0) + 1);
      const wrong = tell(plan, result);
      if (result instanceof OutOfPatience) inVain.push(plan.seed);
      else if (wrong !== undefined) failed.push(wrong);
    });
  }
  for (const seed of inVain) {
    await playGroup(servers, [planOf(seed)], (plan, result) => {
      const wrong = tell(plan, result);
      if (wrong !== undefined) failed.push(`${wrong} (the second time)`);
    });
  }
  const counts = STRATEGIES.map((strategy) => `${strategy} ${played.get(strategy) ?? 0}`);
  console.log(
    `convergence: seeds ${FIRST} to ${FIRST + SEEDS - 1}, ${failed.length} failed; ${counts.join(', ')}`,
  );
  expect(failed).toEqual([]);
});

async function playGroup(
  servers: Servers,
  plans: readonly Plan[],
  done: (plan: Plan, result: RoundResult | Error) => void,
): Promise<void> {
  const rounds = await Promise.all(plans.map((plan) => Round.make(servers, plan)));
  const daemon = await Daemon.run(rounds.map(({ world }) => world.part));
  try {
    const play = async (round: Round) =>
      done(round.plan, await round.play(daemon).catch((error: Error) => error));
    await Promise.all(rounds.map(play));
  } finally {
    await daemon.end();
    await Promise.all(rounds.map(({ world }) => world.end()));
  }
}

/** Prints how a round ended. Returns what was wrong with it, in a line. */
function tell(plan: Plan, result: RoundResult | Error): string | undefined {
  if (!(result instanceof Error) && result.wrong.length === 0) {
    const { writes, conflicts, times } = result;
    const seconds = Object.entries(times).map(([what, ms]) => `${what} ${(ms / 1000).toFixed(1)} s`);
    console.log(`${describe(plan)}: equal, ${writes} writes, ${conflicts} conflicts; ${seconds.join(', ')}`);
    return undefined;
  }
  const wrong = result instanceof Error ? [result.stack ?? result.message] : result.wrong;
  const replay = `npm run conflicts -- --seeds 1 --seed ${plan.seed}`;
  console.log(`${describe(plan)}: WRONG`);
  console.error(`seed ${plan.seed} failed; replay it with: ${replay}\n${wrong.join('\n')}`);
  return `seed ${plan.seed} (${replay}): ${wrong[0]?.split('\n')[0]}`;
}
