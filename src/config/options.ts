/**
 * The one schema of options: type, default, description and environment name of each.
 *
 * Flags, environment and ibex.yaml are all checked against it (load.ts, file.ts), and docs/configuration.md
 * is printed from it (docs.ts). How values read is in values.ts.
 */

import * as z from 'zod';
import { IbexError } from '../core/errors.ts';
import {
  ageBudget,
  byteBudget,
  count,
  duration,
  flag,
  listenAddress,
  megabytes,
  milliseconds,
  nodeSource,
  oneOf,
  patterns,
  redisUrl,
  text,
} from './values.ts';

export interface OptionInfo {
  readonly description: string;
  /** What stands after the flag in help texts; none for a switch. */
  readonly argument?: string;
  readonly env: string;
  /** True when the flag may be given several times. */
  readonly repeatable?: true;
}

const optionInfo = z.registry<OptionInfo>();

const hook = (name: string, when: string) =>
  text.optional().register(optionInfo, {
    description: `A command of the shell, or a URL that is posted to, to be run ${when}.`,
    argument: 'COMMAND|URL',
    env: `IBEX_HOOK_${name}`,
  });

/** What a command that uses Redis takes. */
export const REDIS_OPTIONS = [
  'redis',
  'redis_ca',
  'redis_cert',
  'redis_key',
  'redis_verify',
  'redis_encryption_key',
] as const;

/** Every option by its name in ibex.yaml; as a flag `log_level` is `--log-level`. */
export const optionSchema = z.object({
  source: nodeSource.optional().register(optionInfo, {
    description: 'The database to copy from.',
    argument: 'URL',
    env: 'IBEX_SOURCE_URL',
  }),
  target: nodeSource.optional().register(optionInfo, {
    description: 'The database to copy to.',
    argument: 'URL',
    env: 'IBEX_TARGET_URL',
  }),
  redis: redisUrl.optional().register(optionInfo, {
    description:
      'The Redis or Valkey server that carries the queue. Without it the queue is inside the process.',
    argument: 'URL',
    env: 'IBEX_REDIS_URL',
  }),
  redis_ca: text.optional().register(optionInfo, {
    description:
      'The file of the CA certificates that the Redis server of a rediss:// URL is verified by. Without it: the public ' +
      'CAs that Node knows.',
    argument: 'FILE',
    env: 'IBEX_REDIS_CA',
  }),
  redis_cert: text.optional().register(optionInfo, {
    description: 'The file of the certificate that Redis is shown, where it asks for one.',
    argument: 'FILE',
    env: 'IBEX_REDIS_CERT',
  }),
  redis_key: text.optional().register(optionInfo, {
    description: 'The file of the private key that belongs to `redis_cert`.',
    argument: 'FILE',
    env: 'IBEX_REDIS_KEY',
  }),
  redis_verify: flag.prefault(true).register(optionInfo, {
    description:
      'Whether the certificate of the Redis server is verified. Some providers have self-signed ones only; false ' +
      'encrypts all the same, but believes whoever answers.',
    argument: 'true|false',
    env: 'IBEX_REDIS_VERIFY',
  }),
  redis_encryption_key: text.optional().register(optionInfo, {
    description:
      'A file with a key of 32 bytes, as they are or in hex or base64. With it rows are encrypted on their way through ' +
      'Redis (AES-256-GCM). All daemons and workers of a sync need the same one.',
    argument: 'FILE',
    env: 'IBEX_REDIS_ENCRYPTION_KEY',
  }),
  config: text.prefault('ibex.yaml').register(optionInfo, {
    description: 'The file of settings. The default one may be missing; a named one may not.',
    argument: 'FILE',
    env: 'IBEX_CONFIG',
  }),
  sync: text.optional().register(optionInfo, {
    description: 'The sync of ibex.yaml to work on, instead of all of them.',
    argument: 'NAME',
    env: 'IBEX_SYNC',
  }),
  tables: patterns.optional().register(optionInfo, {
    description:
      'The tables to work on. Without it: every ordinary and partitioned table outside the schemas of the ' +
      'system, of extensions and of the provider. With one sync of ibex.yaml it stands in for its `tables`.',
    argument: 'PATTERN',
    env: 'IBEX_TABLES',
    repeatable: true,
  }),
  exclude: patterns.optional().register(optionInfo, {
    description: 'The tables to leave out of `tables`.',
    argument: 'PATTERN',
    env: 'IBEX_EXCLUDE',
    repeatable: true,
  }),
  keyless: oneOf(['carry', 'refuse'])
    .prefault('carry')
    .register(optionInfo, {
      description:
        'What becomes of tables without primary key, replica identity or unique index of NOT NULL columns: carry, ' +
        'by their whole rows, which on the target are found by reading all of the table, or refuse, each by its name.',
      argument: 'WHAT',
      env: 'IBEX_KEYLESS',
    }),
  jobs: count(1, 64)
    .prefault(4)
    .register(optionInfo, {
      description:
        'How many chunks of tables are copied, or ranges compared by `verify`, at once, each over its own session on ' +
        'either side.',
      argument: 'N',
      env: 'IBEX_JOBS',
    }),
  max_source_connections: count(1, 1000)
    .prefault(6)
    .register(optionInfo, {
      description:
        'How many sessions a sync may have on the source before it opens no more for copying, over all its processes. ' +
        'Three are needed beside those that copy. One that copies is always there.',
      argument: 'N',
      env: 'IBEX_MAX_SOURCE_CONNECTIONS',
    }),
  existing: oneOf(['merge', 'refuse', 'replace'])
    .prefault('merge')
    .register(optionInfo, {
      description:
        'What becomes of rows that the target has before a table is copied first: merge, by their keys, which leaves ' +
        'rows there that the source lacks, and counts them; refuse, so that the table waits; or replace.',
      argument: 'WHAT',
      env: 'IBEX_EXISTING',
    }),
  listen: listenAddress.optional().register(optionInfo, {
    description:
      'Where `run` serves dashboard, status and metrics, such as 127.0.0.1:8642; a port alone means ' +
      '127.0.0.1. Without it nothing is served.',
    argument: 'HOST:PORT',
    env: 'IBEX_LISTEN',
  }),
  http_token: text.optional().register(optionInfo, {
    description: 'The token that HTTP requests must carry. Required when `listen` goes beyond this machine.',
    argument: 'TOKEN',
    env: 'IBEX_HTTP_TOKEN',
  }),
  log_level: oneOf(['debug', 'info', 'warn', 'error']).prefault('info').register(optionInfo, {
    description: 'The least important log line to write: debug, info, warn or error.',
    argument: 'LEVEL',
    env: 'IBEX_LOG_LEVEL',
  }),
  log_format: oneOf(['auto', 'json', 'pretty']).prefault('auto').register(optionInfo, {
    description:
      'How log lines look: json, pretty, or auto, which is pretty on a terminal and json elsewhere.',
    argument: 'FORMAT',
    env: 'IBEX_LOG_FORMAT',
  }),
  json: flag.prefault(false).register(optionInfo, {
    description: 'Print the result as one JSON document on stdout.',
    env: 'IBEX_JSON',
  }),
  limit_mbps: megabytes.optional().register(optionInfo, {
    description:
      'How many megabytes (of 1,000,000 bytes) a second the copy of existing rows may take, and `verify` may read of ' +
      'the source, over all jobs of a process. Without it: as many as go.',
    argument: 'X',
    env: 'IBEX_LIMIT_MBPS',
  }),
  busy_sessions: count(0, 10_000)
    .prefault(16)
    .register(optionInfo, {
      description:
        'How many sessions of others may run a statement on the source at once before the copy of existing rows ' +
        'holds back; twice the number of its cores is a good value. It holds back as well while a standby of the ' +
        'source does not keep up. 0: it never does.',
      argument: 'N',
      env: 'IBEX_BUSY_SESSIONS',
    }),
  max_delta_bytes: byteBudget.prefault('auto').register(optionInfo, {
    description:
      "What the noted changes of a sync may take of the source's disk while the target does not take them, such as 20GB. " +
      'Past that the capture of the largest tables ends, so that the application lives, and they need a new ' +
      'backfill. auto: a quarter of the size of the database, and 256 MB at least, as of the start; none: no limit.',
    argument: 'SIZE',
    env: 'IBEX_MAX_DELTA_BYTES',
  }),
  max_delta_age: ageBudget.prefault('none').register(optionInfo, {
    description:
      'How long a noted change may wait for the target, such as 7d. Past that the capture of its table ends, as with ' +
      '`max_delta_bytes`. none: no limit.',
    argument: 'AGE',
    env: 'IBEX_MAX_DELTA_AGE',
  }),
  conflict_retention: ageBudget.prefault('30d').register(optionInfo, {
    description:
      'How long the records of decided conflicts are kept, such as 30d. Those that wait for a person stay. none: for ever.',
    argument: 'AGE',
    env: 'IBEX_CONFLICT_RETENTION',
  }),
  conflict_values: flag.prefault(true).register(optionInfo, {
    description: 'Whether the record of a conflict keeps the two rows; false keeps their key alone.',
    argument: 'true|false',
    env: 'IBEX_CONFLICT_VALUES',
  }),
  spool_dir: text.optional().register(optionInfo, {
    description:
      'The directory for rows that wait for the queue. Without it: the temporary directory of the system.',
    argument: 'DIR',
    env: 'IBEX_SPOOL_DIR',
  }),
  stage_above: count(1_000, 1_000_000_000)
    .prefault(1_000_000)
    .register(optionInfo, {
      description:
        'With more unread deltas than this, of which an updated row has two, a table is first staged on the target, ' +
        'in pieces of about half as many, each committed by itself: what was staged is not sent again after a crash.',
      argument: 'N',
      env: 'IBEX_STAGE_ABOVE',
    }),
  lock_timeout_ms: milliseconds.prefault(100).register(optionInfo, {
    description:
      'How many milliseconds one try to arm a table may wait for its lock. The application waits behind it; ' +
      "keep it well below the source's deadlock_timeout.",
    argument: 'MS',
    env: 'IBEX_LOCK_TIMEOUT_MS',
  }),
  arm_timeout: duration.prefault('30s').register(optionInfo, {
    description: 'How long `setup` keeps trying to arm a table that others have locked.',
    argument: 'DURATION',
    env: 'IBEX_ARM_TIMEOUT',
  }),
  app_url: text.optional().register(optionInfo, {
    description:
      'The URL that the application connects with, for `doctor` to see that it leads to the source, and by what way.',
    argument: 'URL',
    env: 'IBEX_APP_URL',
  }),
  scratch_url: text.optional().register(optionInfo, {
    description:
      'The URL of an empty database in which `cutover --rehearse` and `rollback --rehearse` try the fence, and which they leave empty.',
    argument: 'URL',
    env: 'IBEX_SCRATCH_URL',
  }),
  hook_before_fence: hook(
    'BEFORE_FENCE',
    'before `cutover` and `rollback` keep the application from writing. It has as long as it likes; if it fails, nothing is done',
  ),
  hook_after_fence: hook('AFTER_FENCE', 'once nobody writes to the old side any more'),
  hook_after_drain: hook('AFTER_DRAIN', 'once the new side has everything'),
  hook_after_switch: hook('AFTER_SWITCH', 'once the application can write to the new side'),
  hook_on_abort: hook(
    'ON_ABORT',
    'when a cutover or rollback was given up and the application goes on as before',
  ),
  timeout: duration.prefault('60s').register(optionInfo, {
    description:
      'How long `wait` waits, how long `verify` looks again at rows that keep changing, and how long `cutover` and `rollback` ' +
      'wait for the daemon, or for a hook, while the application waits for them.',
    argument: 'DURATION',
    env: 'IBEX_TIMEOUT',
  }),
});

/** The options that ibex.yaml may set: all but those that belong to one call. */
export const fileOptionSchema = optionSchema
  .omit({ config: true, sync: true, json: true, app_url: true, scratch_url: true, timeout: true })
  .partial();

/** All options, read. Durations are in milliseconds. */
export type Options = z.output<typeof optionSchema>;
export type OptionName = keyof Options;

/** Every option with its description, in the order of the documentation. */
export function listOptions(): { name: OptionName; schema: z.ZodType; info: OptionInfo }[] {
  return (Object.keys(optionSchema.shape) as OptionName[]).map((name) => {
    const schema = optionSchema.shape[name];
    return { name, schema, info: infoOf(name) };
  });
}

/** The flag of an option, such as `--log-level`. */
export function flagOf(name: OptionName): string {
  return `--${name.replaceAll('_', '-')}`;
}

/** The environment variable of an option, such as `IBEX_LOG_LEVEL`. */
export function envOf(name: OptionName): string {
  return infoOf(name).env;
}

function infoOf(name: OptionName): OptionInfo {
  const info = optionInfo.get(optionSchema.shape[name]);
  if (info === undefined) throw new IbexError('internal', `option ${name} has no description`);
  return info;
}
