/** What happens in a round, all of which follows from its seed. Seeds that follow each other go round all that there is. */
import { FAILPOINTS, FAILURES, type Failpoint, type Failure } from '../../src/core/failpoints.ts';
import { randomFrom } from '../support/random.ts';
import type { ArmedFailpoint } from './fleet.ts';
import type { Kind } from './kinds.ts';

/** So many failpoints strike in a round, and one fault from outside. */
const FAILPOINTS_A_ROUND = 2;
/** After so many rounds in a row every failpoint was due. */
export const ROUNDS_FOR_ALL = Math.ceil(FAILPOINTS.length / FAILPOINTS_A_ROUND);
/** Has no divisor with the number of kinds in common, so that rounds in a row are of many sorts. */
const STRIDE = 7;

/** What only a large backlog passes. */
export const OF_BACKLOGS: readonly Failpoint[] = ['piece-written', 'piece-kept', 'backlog-gathered'];

/** What passes often enough that a later pass can be chosen. */
const PASSED_OFTEN: readonly Failpoint[] = [
  'after-read',
  'before-publish',
  'after-publish',
  'piece-written',
  'piece-kept',
  'staging-loaded',
  'before-commit',
  'after-commit',
];

export interface Plan {
  readonly seed: number;
  readonly random: () => number;
  readonly kind: Kind;
  /** The fault from outside comes while the tables are copied first, and not when all failpoints have struck. */
  readonly early: boolean;
  readonly failpoints: readonly ArmedFailpoint[];
  /** What one statement changes is more than a batch takes at once: it is staged in pieces, and is when the fault comes. */
  readonly largeBacklog: boolean;
  readonly withRedis: boolean;
  readonly withWorker: boolean;
  /** The target's role may set session_replication_role. */
  readonly replica: boolean;
}

/** `kinds` are those that there can be on this machine. */
export function planOf(seed: number, kinds: readonly Kind[], redisIsThere: boolean): Plan {
  const random = randomFrom(seed);
  const kind = kinds[(seed * STRIDE) % kinds.length] as Kind;
  const withWorker = kind.needs === 'worker';
  const failpoints = Array.from({ length: FAILPOINTS_A_ROUND }, (_, n) => {
    const turn = seed * FAILPOINTS_A_ROUND + n;
    const index = turn % FAILPOINTS.length;
    const lap = Math.floor(turn / FAILPOINTS.length);
    const name = FAILPOINTS[index] as Failpoint;
    const failure = FAILURES[(index + lap) % FAILURES.length] as Failure;
    const pass = PASSED_OFTEN.includes(name) ? 1 + Math.floor(random() * 4) : 1;
    return { name, failure, pass };
  });
  return {
    seed,
    random,
    kind,
    early: !kind.comesLast && random() < 0.4,
    failpoints,
    largeBacklog: failpoints.some(({ name }) => OF_BACKLOGS.includes(name)) || random() < 0.3,
    withWorker,
    withRedis: withWorker || kind.needs === 'redis' || (redisIsThere && random() < 0.4),
    replica: seed % 2 === 0,
  };
}

/** In one line, for the report. */
export function describe(plan: Plan): string {
  const { seed, kind, early, failpoints, largeBacklog, withRedis, replica } = plan;
  const armed = failpoints.map(({ name, failure, pass }) => `${failure} at ${name} (${pass})`);
  const queue = withRedis ? 'Redis' : 'in process';
  const role = replica ? 'replica' : 'no replica';
  return `seed ${seed}, ${queue}, ${role}${largeBacklog ? ', large backlog' : ''}: ${kind.name}${early ? ' early' : ''}; ${armed.join('; ')}`;
}
