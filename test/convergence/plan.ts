/** What a seed draws: strategy, nodes and how they hang together, and what happens to them. The same every time. */
import { randomFrom } from '../support/random.ts';

export const STRATEGIES = [
  'newest',
  'source',
  'hold',
  'oldest',
  'column',
  'target',
  'abort',
  'priority',
  'function',
] as const;

export type Strategy = (typeof STRATEGIES)[number];

/** A daemon is killed, a direction is kept waiting, or paused by command. */
export type Blow = 'kill' | 'delay' | 'pause';

export interface Act {
  /** Transactions of each writer. */
  readonly transactions: number;
  readonly blows: readonly Blow[];
  /** The queues are waited for at its end, and the nodes compared. */
  readonly drained: boolean;
}

export interface Plan {
  readonly seed: number;
  readonly strategy: Strategy;
  /** Names of the nodes, in no order that any strategy could profit from. */
  readonly nodes: readonly string[];
  /** What `between` says of each two-way sync: indexes into `nodes`, which make a tree. */
  readonly pairs: readonly (readonly [first: number, second: number])[];
  readonly shape: 'pair' | 'star' | 'chain';
  /** Few keys make many conflicts. */
  readonly keys: number;
  /** Rows stand on the first node alone at the beginning, instead of on all. */
  readonly startsEmpty: boolean;
  readonly acts: readonly Act[];
  readonly random: () => number;
}

/** The most nodes that a seed may draw, from 2 to 4. */
export const MOST_NODES = Number(process.env.CONVERGENCE_NODES ?? 4);
/** `CONVERGENCE_STRATEGY` has all seeds use that one. */
const ONLY = process.env.CONVERGENCE_STRATEGY as Strategy | undefined;

/** Strategies take turns, so that every range of nine seeds has them all; the rest is drawn. */
export function planOf(seed: number): Plan {
  const random = randomFrom(seed);
  const roll = (below: number) => Math.floor(random() * below);
  const strategy = ONLY ?? (STRATEGIES[seed % STRATEGIES.length] as Strategy);
  const drawn = 2 + roll(MOST_NODES - 1);
  // Where there are more, that one is refused.
  const count = strategy === 'oldest' ? 2 : drawn;
  const shape = count === 2 ? 'pair' : random() < 0.5 ? 'star' : 'chain';
  const names = shuffle(['delta', 'alpha', 'gamma', 'beta'], random).slice(0, count);
  const draw = () =>
    Array.from({ length: count - 1 }, (_, i): [number, number] => {
      const near = shape === 'chain' ? i : 0;
      return random() < 0.5 ? [near, i + 1] : [i + 1, near];
    });
  let pairs = draw();
  while (isRefused(strategy, pairs)) pairs = draw();
  return {
    seed,
    strategy,
    nodes: names,
    pairs,
    shape,
    keys: 3 + roll(12),
    startsEmpty: random() < 0.3,
    acts: Array.from({ length: 2 + roll(2) }, () => ({
      transactions: 4 + roll(12),
      blows: Array.from({ length: roll(3) }, () => (['kill', 'delay', 'pause'] as const)[roll(3)] as Blow),
      drained: random() < 0.3,
    })),
    random,
  };
}

/** A node may yield to one neighbour only. */
function isRefused(strategy: Strategy, pairs: readonly (readonly [number, number])[]): boolean {
  if (strategy !== 'source' && strategy !== 'target') return false;
  const yielding = pairs.map(([first, second]) => (strategy === 'source' ? second : first));
  return new Set(yielding).size < yielding.length;
}

export function describe({ seed, strategy, nodes, shape, pairs, acts }: Plan): string {
  const drawn = pairs.map((pair) => pair.map((node) => nodes[node]).join('-')).join(' ');
  const blows = acts.map((act) => act.blows.join('+') || 'calm').join(', ');
  return `seed ${seed}: ${strategy}, ${nodes.length} nodes, ${shape} ${drawn}, ${blows}`;
}

function shuffle<T>(from: readonly T[], random: () => number): T[] {
  return from
    .map((item) => ({ item, at: random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ item }) => item);
}
