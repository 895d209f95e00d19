/**
 * The composition root: one engine a sync, the queue each of them uses, metrics and HTTP around them. A sync that
 * fails for good does not stop the others; the daemon ends with its error once all are done.
 */
import type { Server } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { RateLimit } from '../backfill/rate-limit.ts';
import type { Config } from '../config/load.ts';
import type { SyncConfig } from '../config/syncs.ts';
import { IbexError } from '../core/errors.ts';
import type { BatchQueue, ChunkQueue } from '../core/ports.ts';
import type { Logger } from '../observe/log.ts';
import { Metrics } from '../observe/metrics.ts';
import {
  type CopyProgress,
  countJobs,
  readEstimates,
  readTableProgress,
  sumOf,
} from '../observe/progress.ts';
import { readStatus, type SyncStatus, type UnknownStatus } from '../observe/status.ts';
import { createInProcessQueue } from '../queue/in-process.ts';
import { createInProcessChunks } from '../queue/in-process-chunks.ts';
import { DirectionKeeper, readLane } from './direction.ts';
import { PAUSES, type Pauses, type RunOutcome, type Until } from './options.ts';
import { sayProgress } from './progress-log.ts';
import { Sessions } from './sessions.ts';

/** Nobody waits for metrics longer than this. */
const REFRESH_MS = 2_000;

export interface DaemonOptions {
  readonly config: Config;
  readonly log: Logger;
  readonly until: Until;
  /** Take in tables that the patterns of a sync name and it does not have yet. Default: true. */
  readonly adopt?: boolean;
  /** Default: `PAUSES`. Tests have less time than servers in trouble are given. */
  readonly pauses?: Pauses;
}

export class Daemon {
  readonly #options: DaemonOptions;
  readonly #metrics = new Metrics();
  readonly #engines: DirectionKeeper[];

  constructor(options: DaemonOptions) {
    this.#options = options;
    const { config, log, until, adopt = true, pauses = PAUSES } = options;
    const { limitMbps, busySessions } = config;
    const rateLimit = limitMbps === undefined ? null : new RateLimit(limitMbps * 1_000_000);
    this.#engines = config.syncs.map(
      (one) =>
        new DirectionKeeper(one, (sync) => ({
          createQueue: () => this.#createQueue(sync),
          createChunkQueue: () => this.#createChunks(sync),
          copying: config.copying,
          spoolDirectory: config.spoolDir,
          lockTimeoutMs: config.lockTimeoutMs,
          stageAbove: config.stageAbove,
          rateLimit,
          busySessions,
          pauses,
          until,
          adopt,
          settleMove: (signal) => settleMove(one, config, log.child({ sync: sync.name }), signal),
          patient: until.kind === 'forever',
          log: log.child({ sync: sync.name }),
          metrics: this.#metrics,
        })),
    );
  }

  /** Runs all syncs until the signal, or until each has come to its end. */
  async run(signal: AbortSignal): Promise<RunOutcome> {
    const server = await this.#listen();
    const done = new AbortController();
    this.#sayProgress(AbortSignal.any([signal, done.signal]));
    try {
      const runs = await Promise.allSettled(this.#engines.map((engine) => engine.run(signal)));
      const failed = runs.find((run) => run.status === 'rejected');
      if (failed !== undefined) throw failed.reason;
      const outcomes = runs.flatMap((run) => (run.status === 'fulfilled' ? [run.value] : []));
      return {
        held: outcomes.flatMap(({ held }) => held),
        paused: outcomes.flatMap(({ paused }) => paused),
      };
    } finally {
      done.abort();
      server?.closeAllConnections();
      server?.close();
    }
  }

  /** A run that only copies is watched by the command that began it. */
  #sayProgress(signal: AbortSignal): void {
    const { config, log, until } = this.#options;
    if (until.kind === 'copied') return;
    for (const [i, sync] of config.syncs.entries()) {
      const isStreaming = () => this.#engines[i]?.streaming ?? false;
      void sayProgress(sync, log.child({ sync: sync.name }), isStreaming, signal);
    }
  }

  async #listen(): Promise<Server | undefined> {
    const { config, log } = this.#options;
    if (config.listen === undefined) return undefined;
    const { serve } = await import('../observe/http.ts');
    const server = await serve({
      ...config.listen,
      token: config.httpToken,
      metrics: this.#metrics,
      log,
      streaming: () => this.#engines.every((engine) => engine.streaming),
      status: () => Promise.all(config.syncs.map(readSyncStatus)),
      refresh: () => this.#readCopies(),
    });
    log.info(`listening on http://${config.listen.host}:${config.listen.port}`);
    return server;
  }

  /** Of syncs whose databases do not answer the last values stay. */
  async #readCopies(): Promise<void> {
    const read = async (sync: SyncConfig) => this.#metrics.showCopy(sync.name, await readCopy(sync));
    const all = Promise.allSettled(this.#options.config.syncs.map(read));
    await Promise.race([all, sleep(REFRESH_MS, undefined, { ref: false })]);
  }

  async #createQueue(sync: SyncConfig): Promise<BatchQueue> {
    const { config, log } = this.#options;
    if (config.redis === undefined) return createInProcessQueue();
    // BullMQ takes a fifth of a second to load, which those without Redis need not wait for.
    const { createRedisQueue } = await import('../queue/bullmq.ts');
    return createRedisQueue({ ...config.redis, sync: sync.name, log });
  }

  async #createChunks(sync: SyncConfig): Promise<ChunkQueue> {
    const { config, log } = this.#options;
    if (config.redis === undefined) return createInProcessChunks();
    const { createRedisChunks } = await import('../queue/redis-chunks.ts');
    return createRedisChunks({ ...config.redis, sync: sync.name, log, handsIn: true });
  }
}

/** Brings a cutover of the sync to its end whose process is gone, and says so. */
async function settleMove(sync: SyncConfig, config: Config, log: Logger, signal: AbortSignal): Promise<void> {
  const { settle } = await import('../cutover/move/procedure.ts');
  const { hooks, timeoutMs } = config;
  const ended = await settle({ sync, hooks, timeoutMs, signal, say: () => undefined });
  if (ended === null) return;
  const { outcome, live, reasons } = ended;
  log.warn(
    [`a cutover or rollback whose process is gone is ${outcome}: the ${live} is live`, ...reasons].join('; '),
  );
}

/** How far the copy of a sync is; the source is asked only while something is left to copy. */
async function readCopy(sync: SyncConfig): Promise<CopyProgress> {
  const sessions = new Sessions(sync);
  try {
    const target = await sessions.open('target', 'status');
    const estimates = async (relids: readonly number[]) =>
      readEstimates(await sessions.open('source', 'status'), relids);
    const tables = await readTableProgress(target, sync.name, estimates);
    return sumOf(tables, await countJobs(target, sync.name));
  } finally {
    await sessions.close();
  }
}

/** The status of one sync, over sessions of its own. A server of it that is away says nothing about the others. */
async function readSyncStatus(sync: SyncConfig): Promise<SyncStatus | UnknownStatus> {
  let sessions = new Sessions(sync);
  try {
    const lane = await readLane(sync);
    sessions = new Sessions(lane);
    const source = await sessions.open('source', 'status');
    const target = await sessions.open('target', 'status');
    return await readStatus(source, target, lane.name, () => true);
  } catch (error) {
    if (!(error instanceof IbexError) || error.kind === 'not_set_up') throw error;
    return { sync: sync.name, verdict: 'NOT READY', why: [`${error.message} (${error.hint})`] };
  } finally {
    await sessions.close();
  }
}
