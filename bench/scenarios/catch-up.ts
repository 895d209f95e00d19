/**
 * How long a target that fell behind takes to have everything: Ibex against native logical replication, on the
 * same servers, in turns. What is measured, and why so, is in the README beside this directory.
 */
import { performance } from 'node:perf_hooks';
import { requireSuccess } from '../children.ts';
import { findDifferences } from '../equality.ts';
import { Ibex } from '../ibex.ts';
import { setMark, whenMarked } from '../mark.ts';
import { NativeReplication } from '../native.ts';
import { type Databases, Pair, settle, type Templates } from '../pair.ts';
import { findPgbench, makePgbenchTemplates, PGBENCH_TABLES, runTransactions } from '../pgbench.ts';
import { cpuSeconds, hasProc, readUntilEnd, serverCpuSeconds } from '../proc.ts';
import { startRedisOrThrow } from '../redis.ts';
import { type Outcome, type Scenario, say } from '../scenario.ts';
import { range, type Summary, summarise, table } from '../statistics.ts';

const SCALE = 10;
const NATIVE_PATIENCE_MS = 30 * 60_000;

const options = {
  transactions: { kind: 'number', default: 55_000, help: 'TPC-B transactions to fall behind' },
  repeat: { kind: 'number', default: 3, help: 'runs of each' },
  redis: { kind: 'flag', help: 'Ibex through a private Redis as well' },
} as const;

/** Times in seconds from the start. The process of native replication is the server: it has no exit. */
interface Times {
  readonly equal: number;
  readonly exit: number | null;
  /** CPU seconds until then, of daemon and servers; 0 where nobody tells. */
  readonly cpu: Cpu;
}

interface Cpu {
  readonly daemon: number;
  readonly source: number;
  readonly target: number;
}

interface Run {
  readonly who: string;
  readonly round: number;
  /** With nothing but one changed row to catch up with. */
  readonly startUp: Times;
  readonly backlog: Times;
  /** `backlog.equal` less `startUp.equal`. */
  readonly engine: number;
  readonly differences: readonly string[];
}

/** Catches up once with what is there, up to the mark. */
type CatchUp = (mark: string) => Promise<Omit<Times, 'cpu'> & { readonly daemonCpu: number }>;

export const catchUp: Scenario<typeof options> = {
  name: 'catch-up',
  summary: 'time to catch up with a backlog of pgbench transactions, beside native logical replication',
  options,
  run: async ({ transactions, repeat, redis }) => {
    findPgbench();
    await using queue = redis ? await startRedisOrThrow() : undefined;
    await using pair = await Pair.start();
    say(`filling pgbench tables of scale ${SCALE}`);
    const templates = await makePgbenchTemplates(pair, SCALE);
    const runs: Run[] = [];
    for (let round = 1; round <= repeat; round++) {
      const once = (who: string, body: (databases: Databases, measure: Measure) => Promise<Run>) =>
        inFreshDatabases(pair, templates, async (databases) => {
          say(`round ${round} of ${repeat}: ${who}`);
          const measure = (catchUp: CatchUp) =>
            fallBehind({ pair, databases }, { who, round, transactions }, catchUp);
          runs.push(await body(databases, measure));
        });
      await once('ibex', (databases, measure) => runIbex(databases, measure));
      await once('native', runNative);
      if (queue !== undefined)
        await once('ibex, redis', (databases, measure) => runIbex(databases, measure, queue.url));
    }
    return report(await pair.describe(), transactions, runs);
  },
};

type Measure = (catchUp: CatchUp) => Promise<Run>;

async function inFreshDatabases(
  pair: Pair,
  templates: Templates,
  body: (databases: Databases) => Promise<void>,
): Promise<void> {
  const databases = await pair.create('catch_up', templates);
  try {
    await body(databases);
  } finally {
    await databases.drop();
  }
}

/** In step already, and stopped: measures an empty catch-up, makes the backlog, measures the real one, compares. */
async function fallBehind(
  { pair, databases }: { pair: Pair; databases: Databases },
  { who, round, transactions }: { who: string; round: number; transactions: number },
  catchUp: CatchUp,
): Promise<Run> {
  await settle(databases);
  await setMark(databases, 'start-up');
  const startUp = await withCpu(pair, () => catchUp('start-up'));
  say(`  ${transactions} transactions`);
  await runTransactions(databases.source.login, transactions, round);
  await setMark(databases, 'backlog');
  const backlog = await withCpu(pair, () => catchUp('backlog'));
  const differences = await findDifferences(databases, PGBENCH_TABLES);
  say(
    differences.length > 0
      ? `  NOT EQUAL: ${differences.join('; ')}`
      : `  equal after ${backlog.equal.toFixed(3)} s (start-up ${startUp.equal.toFixed(3)} s)`,
  );
  return { who, round, startUp, backlog, engine: backlog.equal - startUp.equal, differences };
}

async function withCpu(pair: Pair, catchUp: () => ReturnType<CatchUp>): Promise<Times> {
  const read = (server: Pair['source']) => (hasProc ? serverCpuSeconds(server) : 0);
  const before = { source: read(pair.source), target: read(pair.target) };
  const { equal, exit, daemonCpu } = await catchUp();
  const source = read(pair.source) - before.source;
  const target = read(pair.target) - before.target;
  return { equal, exit, cpu: { daemon: daemonCpu, source, target } };
}

async function runIbex(databases: Databases, measure: Measure, redisUrl?: string): Promise<Run> {
  const ibex = new Ibex(databases, redisUrl);
  await ibex.run('backfill');
  return measure(async (mark) => {
    const process = await ibex.start('run', '--until-caught-up');
    const cpu = readUntilEnd(process, cpuSeconds);
    const seen = await whenMarked(databases, mark, () => process.running);
    const ended = requireSuccess('ibex run --until-caught-up', await process.ended);
    if (seen === undefined)
      throw new Error('ibex run --until-caught-up ended before the target had everything');
    const since = (time: number) => (time - process.startedAt) / 1000;
    return { equal: since(seen), exit: since(ended.at), daemonCpu: await cpu };
  });
}

async function runNative(databases: Databases, measure: Measure): Promise<Run> {
  const native = await NativeReplication.create(databases, PGBENCH_TABLES);
  try {
    await native.disable();
    return await measure(async (mark) => {
      const startedAt = performance.now();
      await native.enable();
      const deadline = Date.now() + NATIVE_PATIENCE_MS;
      const seen = await whenMarked(databases, mark, () => Date.now() < deadline);
      if (seen === undefined) throw new Error('native logical replication did not catch up');
      await native.disable();
      return { equal: (seen - startedAt) / 1000, exit: null, daemonCpu: 0 };
    });
  } finally {
    await native.drop();
  }
}

interface Figures {
  readonly who: string;
  readonly startUp: Summary;
  readonly equal: Summary;
  readonly exit: Summary | null;
  readonly engine: Summary;
  /** All CPU seconds less those of the start-up. */
  readonly cpu: Summary;
}

function report(servers: object, transactions: number, runs: readonly Run[]): Outcome {
  const equal = runs.filter((run) => run.differences.length === 0);
  const names = [...new Set(equal.map((run) => run.who))];
  const figures = names.map((who) => figuresOf(who, equal));
  const native = figures.find((one) => one.who === 'native');
  const ratios = figures
    .filter((one) => one !== native)
    .map((one) => ({ who: one.who, ...ratiosTo(native, one) }));
  return {
    servers,
    figures: { scale: SCALE, transactions, unit: 's', figures, ratios, runs },
    screen: [
      `${transactions} TPC-B transactions behind, scale ${SCALE}; seconds, median (min-max)`,
      '',
      ...table([
        ['', 'start-up alone', 'start to equal', 'start to exit', 'engine', 'engine CPU'],
        ...figures.map(rowOf),
      ]),
      '',
      ...table([
        ['native / ..', 'start to equal', 'start to exit', 'engine', 'engine CPU'],
        ...ratios.map(({ who, equal, exit, engine, cpu }) => [
          who,
          times(equal),
          times(exit),
          times(engine),
          times(cpu),
        ]),
      ]),
      '',
      equal.length === runs.length
        ? `all ${runs.length} runs ended with equal tables on both sides`
        : `${runs.length - equal.length} of ${runs.length} runs ended DIFFERENT and have no figure`,
    ],
    ok: equal.length === runs.length,
  };
}

function figuresOf(who: string, runs: readonly Run[]): Figures {
  const own = runs.filter((run) => run.who === who);
  const exits = own.flatMap(({ backlog }) => (backlog.exit === null ? [] : [backlog.exit]));
  return {
    who,
    startUp: summarise(own.map((run) => run.startUp.equal)),
    equal: summarise(own.map((run) => run.backlog.equal)),
    exit: exits.length === 0 ? null : summarise(exits),
    engine: summarise(own.map((run) => run.engine)),
    cpu: summarise(own.map((run) => sum(run.backlog.cpu) - sum(run.startUp.cpu))),
  };
}

function sum({ daemon, source, target }: Cpu): number {
  return daemon + source + target;
}

/** How many times as fast as native. Its exit is when it is equal: it does not end. */
function ratiosTo(native: Figures | undefined, { equal, exit, engine, cpu }: Figures) {
  const ratio = (theirs: Summary | undefined, ours: Summary | null) =>
    theirs === undefined || ours === null ? null : theirs.median / ours.median;
  return {
    equal: ratio(native?.equal, equal),
    exit: ratio(native?.equal, exit),
    engine: ratio(native?.engine, engine),
    cpu: ratio(native?.cpu, cpu),
  };
}

function rowOf({ who, startUp, equal, exit, engine, cpu }: Figures): string[] {
  return [
    who,
    range(startUp, 3),
    range(equal, 3),
    exit === null ? '-' : range(exit, 3),
    range(engine, 3),
    range(cpu, 2),
  ];
}

function times(ratio: number | null): string {
  return ratio === null ? '-' : `${ratio.toFixed(2)}x`;
}
