/** `ibex run`: the daemon. */
import { Option } from 'commander';
import { pausedSince } from '../apply/restraint.ts';
import { REDIS_OPTIONS } from '../config/options.ts';
import type { CommandSpec } from './command.ts';

export const run: CommandSpec = {
  name: 'run',
  summary: 'the daemon: set up, copy what is missing, stream',
  description:
    'Sets up what is not set up, copies the existing rows, and carries every change from then on. Keeps trying when a server is away. SIGTERM ends it within 10 seconds; started again, it goes on where it stopped.',
  options: [
    ...REDIS_OPTIONS,
    'tables',
    'exclude',
    'keyless',
    'jobs',
    'max_source_connections',
    'existing',
    'listen',
    'http_token',
    'limit_mbps',
    'busy_sessions',
    'max_delta_bytes',
    'max_delta_age',
    'spool_dir',
    'stage_above',
    'lock_timeout_ms',
  ],
  own: [new Option('--until-caught-up', 'exit 0 once everything committed before the call is on the target')],
  stopCode: 0,
  run: async ({ config, log, signal, flags }) => {
    const { Daemon } = await import('../engine/daemon.ts');
    const daemon = new Daemon({
      config,
      log,
      until: flags.untilCaughtUp ? { kind: 'caught-up' } : { kind: 'forever' },
    });
    const { held, paused } = await daemon.run(signal);
    for (const { table, reason } of held) log.error({ table }, `${table} is held: ${reason}`);
    for (const { sync, since } of paused) log.error({ sync }, `sync ${sync} is ${pausedSince(since)}`);
    return held.length + paused.length === 0 ? 0 : 1;
  },
};
