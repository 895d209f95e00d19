/** `ibex worker`: one more process that copies, and stands by. */

import { REDIS_OPTIONS } from '../config/options.ts';
import { IbexError } from '../core/errors.ts';
import type { CommandSpec } from './command.ts';

export const worker: CommandSpec = {
  name: 'worker',
  summary: 'one more process that copies existing rows, and stands by for the daemon',
  description:
    'Takes chunks that the daemon hands in through Redis and copies them over sessions of its own; as many workers as you like share them, on as many machines. Where a daemon died and did not come back within a minute, a worker goes on with its sync. Takes the same settings as the daemon. Keeps trying when a server is away; SIGTERM ends it within 10 seconds.',
  options: [
    ...REDIS_OPTIONS,
    'keyless',
    'jobs',
    'max_source_connections',
    'limit_mbps',
    'busy_sessions',
    'existing',
    'spool_dir',
    'stage_above',
    'lock_timeout_ms',
  ],
  stopCode: 0,
  run: async ({ config, log, signal }) => {
    const { redis } = config;
    if (redis === undefined) {
      throw new IbexError('config', 'a worker gets its work through Redis, which is not given', {
        hint: 'Set --redis or IBEX_REDIS_URL to the Redis that the daemon uses.',
      });
    }
    const { runWorker } = await import('../engine/worker.ts');
    await runWorker({ config, redis, log }, signal);
    return 0;
  },
};
