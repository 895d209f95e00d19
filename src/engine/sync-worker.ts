/**
 * What a worker does for one sync: it copies chunks that the daemon hands in through Redis, over sessions of its own, and
 * stands by: where the daemon died and did not come back, it goes on with the sync itself.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { becomeReplica } from '../apply/parking.ts';
import { readRestraint } from '../apply/restraint.ts';
import { requireRecord } from '../apply/state.ts';
import { copyJob } from '../backfill/bundle.ts';
import { CHUNK_PATIENCE_MS, fingerprint } from '../backfill/copier.ts';
import type { RateLimit } from '../backfill/rate-limit.ts';
import type { Config } from '../config/load.ts';
import type { RedisConfig } from '../config/redis.ts';
import type { SyncConfig } from '../config/syncs.ts';
import { IbexError, isKind } from '../core/errors.ts';
import { type TablePlan, tableLabel } from '../core/plan.ts';
import type { ChunkJob, ChunkName, ChunkOutcome } from '../core/ports.ts';
import type { Logger } from '../observe/log.ts';
import type { Session } from '../postgres/session.ts';
import { createRedisChunks, type RedisChunks } from '../queue/redis-chunks.ts';
import { type CopyPair, CopySessions } from './copy-sessions.ts';
import { Daemon } from './daemon.ts';
import { isOrphaned } from './lease.ts';
import { isFinal, pauseMs } from './retrying.ts';
import { readRoster } from './roster.ts';
import { Sessions } from './sessions.ts';

export interface SyncWorkerOptions {
  readonly config: Config;
  readonly sync: SyncConfig;
  readonly redis: RedisConfig;
  readonly rateLimit: RateLimit | null;
  readonly log: Logger;
}

/** The attempt that it begins with: others copy meanwhile, there is no hurry. */
const CALM = 2;
/** How often it is looked whether the sync is paused, or has lost its daemon. */
const LOOK_MS = 1_000;
/** Rest after something failed that concerns this process alone: others take its chunks meanwhile. */
const REST_MS = 10_000;

function again({ chunks }: ChunkJob): ChunkOutcome[] {
  return chunks.map(() => ({ result: 'again', rows: 0, bytes: 0, inTheWay: false }));
}

export class SyncWorker {
  readonly #options: SyncWorkerOptions;
  /** Names the sessions of this process, so that all of them can be ended if it freezes. */
  readonly #part = `copy-${randomBytes(3).toString('hex')}`;
  #plans: Promise<ReadonlyMap<number, TablePlan>> | undefined;
  #heldBack = false;
  #restUntil = 0;
  #said = '';
  #attempt = CALM;
  /** It has worked: what fails from then on is no fault of the configuration. */
  #hasRun = false;

  constructor(options: SyncWorkerOptions) {
    this.#options = options;
  }

  /** Runs until the signal; rejects with what trying again cannot mend. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const sessions = new Sessions(this.#options.sync);
      try {
        await this.#work(sessions, signal);
      } catch (error) {
        if (signal.aborted) return;
        if (isFinal(error, this.#hasRun)) throw error;
        const { message, hint } = error as IbexError;
        this.#say(`${message} (${hint})`);
      } finally {
        sessions.abandon();
      }
      await sleep(pauseMs(this.#attempt++), undefined, { signal }).catch(() => undefined);
    }
  }

  async #work(sessions: Sessions, signal: AbortSignal): Promise<void> {
    const { config, sync, redis, log } = this.#options;
    const { jobs, maxSourceConnections } = config.copying;
    const target = await sessions.open('target', 'worker');
    await requireRecord(target, sync.name);
    const replica = await becomeReplica(target);
    const common = { sync: sync.name, log };
    const limits = { jobs, maxSourceConnections };
    const pairs = new CopySessions({
      ...common,
      ...limits,
      sessions,
      first: null,
      control: null,
      part: this.#part,
      replica,
    });
    const stop = new AbortController();
    const either = AbortSignal.any([signal, stop.signal]);
    const chunks = await createRedisChunks({ ...common, ...redis, handsIn: false });
    log.info(`works for sync ${sync.name}`);
    this.#hasRun = true;
    this.#attempt = CALM;
    this.#said = '';
    try {
      await this.#holdBack(target, chunks);
      chunks.consume((job) => this.#copy(pairs, chunks, job, either), jobs);
      while (!signal.aborted) {
        await this.#holdBack(target, chunks);
        if (await isOrphaned(target, sync.name)) {
          chunks.rest(true);
          await this.#goOn(signal);
        }
        await sleep(LOOK_MS, undefined, { signal }).catch(() => undefined);
      }
    } finally {
      stop.abort();
      pairs.close();
      sessions.abandon();
      await chunks.close();
    }
  }

  /** While the sync is paused, or the source is busy, the chunks are the daemon's. */
  async #holdBack(target: Session, chunks: RedisChunks): Promise<void> {
    const { paused, slowed } = await readRestraint(target, this.#options.sync.name);
    this.#heldBack = paused !== null || slowed !== null;
    chunks.rest(this.#isResting());
  }

  #isResting(): boolean {
    return this.#heldBack || Date.now() < this.#restUntil;
  }

  #rest(chunks: RedisChunks, job: ChunkJob): ChunkOutcome[] {
    this.#restUntil = Date.now() + REST_MS;
    chunks.rest(true);
    return again(job);
  }

  async #copy(
    pairs: CopySessions,
    chunks: RedisChunks,
    job: ChunkJob,
    signal: AbortSignal,
  ): Promise<ChunkOutcome[]> {
    const { sync, rateLimit, log } = this.#options;
    if (this.#isResting()) return again(job);
    try {
      return await pairs.use(async (pair) => {
        const plans: TablePlan[] = [];
        for (const chunk of job.chunks) {
          const plan = await this.#planFor(pair, chunk);
          if (plan === undefined) return this.#rest(chunks, job);
          plans.push(plan);
        }
        const how = { origin: sync.source.name, patienceMs: CHUNK_PATIENCE_MS, rateLimit, signal };
        const outcomes = await copyJob({ ...pair, ...how }, plans, job);
        outcomes.forEach(({ result, rows }, i) => {
          const table = tableLabel(plans[i] as TablePlan);
          log.debug({ table, rows }, `chunk ${job.chunks[i]?.n} of ${table}: ${result}`);
        });
        return outcomes;
      });
    } catch (error) {
      if (signal.aborted) return again(job);
      // What concerns a table is the daemon's to answer. All else may concern this process alone; if not, the daemon
      // comes upon it by itself.
      if (error instanceof IbexError && error.table !== undefined) throw error;
      this.#say(error instanceof IbexError ? `${error.message} (${error.hint})` : String(error));
      return this.#rest(chunks, job);
    }
  }

  /** The plan by which the daemon copies the table; undefined when this process makes another one of it. */
  async #planFor(pair: CopyPair, { relid, plan: print }: ChunkName): Promise<TablePlan | undefined> {
    const known = (await this.#plans)?.get(relid);
    if (known !== undefined && fingerprint(known) === print) return known;
    const reading = this.#readPlans(pair);
    this.#plans = reading;
    reading.catch(() => {
      this.#plans = undefined;
    });
    const plan = (await reading).get(relid);
    if (plan === undefined || fingerprint(plan) === print) return plan;
    this.#say(
      `${tableLabel(plan)} is copied by another plan than here: give the worker the daemon's settings`,
    );
    return undefined;
  }

  async #readPlans({ source, target }: CopyPair): Promise<ReadonlyMap<number, TablePlan>> {
    const roster = await readRoster(source, target, this.#options.sync);
    return new Map(roster.flatMap(({ plan }) => (plan === null ? [] : [[plan.relid, plan]])));
  }

  /** Goes on in the place of a daemon that died, until the signal, or until another one has the sync. */
  async #goOn(signal: AbortSignal): Promise<void> {
    const { config, sync, log } = this.#options;
    log.warn(`the daemon of sync ${sync.name} is gone: this worker goes on in its place`);
    const alone = { ...config, syncs: [sync], listen: undefined };
    try {
      await new Daemon({ config: alone, log, until: { kind: 'forever' }, adopt: false }).run(signal);
    } catch (error) {
      if (!isKind(error, 'taken')) throw error;
      log.info(error.message);
    }
  }

  /** Says what is in the way, once as long as it stays the same. */
  #say(message: string): void {
    if (message !== this.#said) this.#options.log.warn(message);
    this.#said = message;
  }
}
