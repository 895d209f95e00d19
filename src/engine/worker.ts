/** A worker process: helps with all syncs it is configured for. One that cannot be helped does not keep the others. */
import { RateLimit } from '../backfill/rate-limit.ts';
import type { Config } from '../config/load.ts';
import type { RedisConfig } from '../config/redis.ts';
import type { Logger } from '../observe/log.ts';
import { SyncWorker } from './sync-worker.ts';

export interface WorkerOptions {
  readonly config: Config;
  /** The Redis that the daemon uses. */
  readonly redis: RedisConfig;
  readonly log: Logger;
}

/** Runs until the signal. Rejects with what trying again cannot mend, once no sync is left to help with. */
export async function runWorker({ config, redis, log }: WorkerOptions, signal: AbortSignal): Promise<void> {
  const { limitMbps } = config;
  const rateLimit = limitMbps === undefined ? null : new RateLimit(limitMbps * 1_000_000);
  const workers = config.syncs.map(
    (sync) => new SyncWorker({ config, sync, redis, rateLimit, log: log.child({ sync: sync.name }) }),
  );
  const runs = await Promise.allSettled(workers.map((worker) => worker.run(signal)));
  const failed = runs.find((run) => run.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}
