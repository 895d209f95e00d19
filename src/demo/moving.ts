/**
 * The move itself: the load begins, `ibex run` begins, everything is copied, the load goes on for as long as it
 * was asked to, and once the last transaction has committed, `ibex wait` says when the target has it all.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { SyncStatus } from '../observe/status.ts';
import type { Belongings, Program } from './belongings.ts';
import { Ibex } from './ibex.ts';
import { Load } from './load/load.ts';
import { LongTransaction } from './load/long-transaction.ts';
import { LagProbe } from './probe.ts';
import { copyingText, type Progress, streamingText } from './progress.ts';
import type { DemoResult } from './result.ts';
import { connect, type Places } from './servers.ts';
import type { Pgbench } from './shop.ts';

const LOOK_MS = 300;
/** Long enough for a slow machine; what takes longer will not come. */
const COPY_MS = 300_000;
const PROBE_MS = 60_000;
const QUIET_MS = 30_000;

export interface MovingOptions {
  readonly places: Places;
  readonly belongings: Belongings;
  readonly progress: Progress;
  readonly pgbench: Pgbench | undefined;
}

export type Moved = Pick<DemoResult, 'copied' | 'lag' | 'load' | 'inStepSeconds'> & {
  /** Still running. */
  readonly ibex: Ibex;
  /** As of the end. */
  readonly status: SyncStatus;
};

export class Moving {
  readonly #options: MovingOptions;
  readonly #began = performance.now();

  constructor(options: MovingOptions) {
    this.#options = options;
  }

  async run(seconds: number): Promise<Moved> {
    const { places, belongings, pgbench } = this.#options;
    const load = new Load(places.source);
    const long = new LongTransaction(places.source);
    const probe = new LagProbe(places.source, places.target);
    const bench = await pgbench?.run();
    if (bench !== undefined) belongings.add(() => bench.end('SIGKILL', 0));
    const ibex = await Ibex.start(places, belongings);
    // Whatever fails in the background fails the demo at once, with its own words.
    const mishaps = [load.ended, long.ended, probe.ended, ibex.mishap()].map(onlyFailure);
    if (pgbench && bench) mishaps.push(pgbench.mishap(bench));
    return Promise.race([...mishaps, this.#run(seconds, { load, long, probe, bench, ibex })]);
  }

  async #run(seconds: number, { load, long, probe, bench, ibex }: Players): Promise<Moved> {
    const copied = await this.#watchCopy(ibex, load, long);
    await within(PROBE_MS, probe.beginCounting(), ibex, 'a row that was committed on the source');
    await this.#watchStream(ibex, load, seconds);

    this.#options.progress.show('the load ends; the long transaction commits last');
    const lag = await within(PROBE_MS, probe.stop(), ibex, 'a row that was committed on the source');
    await load.stop();
    await bench?.end('SIGTERM', 5_000);
    await long.stop();
    const lastCommit = performance.now();
    const loadSeconds = (lastCommit - this.#began) / 1000;
    await this.#untilQuiet(ibex);

    this.#options.progress.show('ibex wait');
    await ibex.waitForTarget(this.#options.belongings);
    const inStepSeconds = (performance.now() - lastCommit) / 1000;
    const status = await ibex.statusWhenReady();
    const pgbench = bench === undefined ? null : await this.#countPgbench();
    return {
      ibex,
      status,
      copied,
      lag,
      inStepSeconds,
      load: {
        seconds: loadSeconds,
        transactions: load.transactions + (pgbench ?? 0),
        pgbench,
        connections: load.connections,
        deadlocks: load.retried,
        longTransactionSeconds: long.seconds,
      },
    };
  }

  async #watchCopy(ibex: Ibex, load: Load, long: LongTransaction): Promise<DemoResult['copied']> {
    const began = performance.now();
    while (performance.now() - began < COPY_MS) {
      const status = await ibex.status();
      const tables = status?.tables ?? [];
      if (status !== undefined && tables.length > 0) {
        this.#options.progress.show(copyingText(status, this.#rate(load)));
        if (tables.every(isArmed)) long.begin();
        if (tables.every(({ state }) => state === 'streaming')) {
          const rows = tables.reduce((sum, table) => sum + table.copied, 0);
          return { rows, seconds: (performance.now() - began) / 1000 };
        }
      }
      await sleep(LOOK_MS);
    }
    throw await ibex.failure(`not everything was copied after ${COPY_MS / 1000} s`);
  }

  async #watchStream(ibex: Ibex, load: Load, seconds: number): Promise<void> {
    const end = performance.now() + seconds * 1000;
    for (let left = end - performance.now(); left > 0; left = end - performance.now()) {
      const [status, batches] = await Promise.all([ibex.status(), ibex.metric('ibex_batches_applied_total')]);
      if (status !== undefined) {
        const live = { secondsLeft: left / 1000, batches, transactionsPerSecond: this.#rate(load) };
        this.#options.progress.show(streamingText(status, live));
      }
      await sleep(Math.min(LOOK_MS, Math.max(0, end - performance.now())));
    }
  }

  #rate(load: Load): number {
    return load.transactions / ((performance.now() - this.#began) / 1000);
  }

  /** A connection that was cut off may have a COMMIT under way; nothing may come after the wait. */
  async #untilQuiet(ibex: Ibex): Promise<void> {
    const client = await connect(this.#options.places.source, 'demo:quiet');
    const writers = `SELECT FROM pg_stat_activity WHERE application_name ~ '^(shop:|pgbench)' AND datname = current_database()`;
    try {
      const quiet = async () => {
        while ((await client.query(writers)).rowCount !== 0) await sleep(20);
      };
      await within(QUIET_MS, quiet(), ibex, 'the end of the load');
    } finally {
      await client.end();
    }
  }

  async #countPgbench(): Promise<number> {
    const client = await connect(this.#options.places.source, 'demo:count');
    const { rows } = await client.query<{ n: string }>('SELECT count(*) AS n FROM public.pgbench_history');
    await client.end();
    return Number(rows[0]?.n);
  }
}

interface Players {
  readonly load: Load;
  readonly long: LongTransaction;
  readonly probe: LagProbe;
  readonly bench: Program | undefined;
  readonly ibex: Ibex;
}

/** A table that is copied or being copied is armed. */
function isArmed({ state }: SyncStatus['tables'][number]): boolean {
  return state !== 'pending';
}

/** Rejects with the promise, and never resolves. */
async function onlyFailure(promise: Promise<unknown>): Promise<never> {
  await promise;
  return new Promise(() => undefined);
}

async function within<T>(ms: number, promise: Promise<T>, ibex: Ibex, what: string): Promise<T> {
  const timer = new AbortController();
  const late = sleep(ms, undefined, { signal: timer.signal }).then(async () => {
    throw await ibex.failure(`waited ${ms / 1000} s in vain for ${what}`);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    timer.abort();
    late.catch(() => undefined);
  }
}
