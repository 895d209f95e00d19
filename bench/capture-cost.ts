/**
 * What capture costs: the same work in two databases of one server, one of them armed, without a daemon: nothing but the
 * triggers and what they write differs. They take turns, and who begins changes each time: what the first one warms up, and
 * a machine that becomes slower, is for both of them.
 */
import { Ibex } from './ibex.ts';
import type { Databases, Pair, Templates } from './pair.ts';
import { say } from './scenario.ts';

/** What was measured in each round. */
export interface WithAndWithout<T> {
  readonly plain: readonly T[];
  readonly armed: readonly T[];
}

export async function withAndWithout<T>(
  { pair, templates, repeat }: { pair: Pair; templates: Templates; repeat: number },
  measure: (databases: Databases, round: number) => Promise<T>,
): Promise<WithAndWithout<T>> {
  const sides = [
    { databases: await pair.create('plain', templates), measured: [] as T[] },
    { databases: await pair.create('armed', templates), measured: [] as T[] },
  ] as const;
  const [plain, armed] = sides;
  await Ibex.oneWay(armed.databases).run('setup');
  for (let round = 1; round <= repeat; round++) {
    for (const { databases, measured } of round % 2 === 1 ? sides : sides.toReversed()) {
      say(`round ${round} of ${repeat}: ${databases.name}`);
      measured.push(await measure(databases, round));
    }
  }
  for (const { databases } of sides) await databases.drop();
  return { plain: plain.measured, armed: armed.measured };
}
