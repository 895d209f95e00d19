/** `ibex backfill`: copies existing rows and brings them into step, by itself or through the running daemon. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Option } from 'commander';
import { pausedSince } from '../apply/restraint.ts';
import { REDIS_OPTIONS } from '../config/options.ts';
import type { SyncConfig } from '../config/syncs.ts';
import { isKind } from '../core/errors.ts';
import { readDaemon, readStatus, type SyncStatus, type TableStatus } from '../observe/status.ts';
import { surplusText } from '../observe/status-text.ts';
import { isInstalled, migrate } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';
import { restartCopies } from '../setup/membership.ts';
import { wantAgain } from '../setup/relief.ts';
import {
  type CommandSpec,
  type Context,
  type ExitCode,
  onlySync,
  print,
  requireKnown,
  tableFilter,
  withBothSides,
} from './command.ts';
import { showProgress } from './progress.ts';
import { copySchema, type SchemaReport } from './schema.ts';

export const backfill: CommandSpec = {
  name: 'backfill',
  summary: 'copy existing rows, resuming where an earlier copy stopped',
  description:
    'Sets up what is not set up, copies the rows of every table that is not copied yet, or whose changes were given up when they took too much of the disk of the source, and applies what changed meanwhile. With a running daemon it shows the progress of the copy that the daemon makes. Rows that are already on the target are merged by key; those that the source lacks stay, and are counted.',
  options: [
    ...REDIS_OPTIONS,
    'tables',
    'exclude',
    'keyless',
    'limit_mbps',
    'busy_sessions',
    'jobs',
    'max_source_connections',
    'existing',
    'max_delta_bytes',
    'max_delta_age',
    'spool_dir',
    'stage_above',
    'lock_timeout_ms',
    'json',
  ],
  own: [
    new Option(
      '--schema',
      'first create on the target what it lacks of the source, as `ibex schema copy` does',
    ),
    new Option('--restart', 'copy the tables from the start, replacing what the target has of them'),
  ],
  run: async (context) => {
    const sync = onlySync(context.config);
    const schema = context.flags.schema ? await createSchema(context) : null;
    // Loaded meanwhile: most commands that come here need it.
    void loadDaemon().catch(() => undefined);
    const running = await prepare(context);
    const done = new AbortController();
    const shown = showProgress(context, done.signal);
    try {
      if (running || !(await runAlone(context))) await watchUntilCopied(context);
    } finally {
      done.abort();
      await shown;
    }
    const status = await readNow(context);
    const left = status.tables.filter(({ state }) => state !== 'streaming' && state !== 'dropped');
    const rows = status.tables.reduce((sum, table) => sum + table.copied, 0);
    const text =
      left.length === 0
        ? [`${status.tables.length} tables are copied, ${rows} rows`, ...surplusText(status.tables)].join(
            '\n',
          )
        : [...left.map(describe), ...pausedText(status)].join('\n');
    const { paused, copy, tables } = status;
    const made = schema === null ? {} : { schema: schema.document };
    const lines = schema === null ? text : `${schema.text}\n${text}`;
    print(context.config.json, { sync: sync.name, ...made, paused, copy, tables }, lines);
    return (left.length === 0 && schema?.complete !== false ? 0 : 1) as ExitCode;
  },
};

/** What does not take part in that is loaded meanwhile: most of the time is that of pg_dump. */
async function createSchema(context: Context): Promise<SchemaReport> {
  const [schema] = await Promise.all([copySchema(context), loadDaemon()]);
  return schema;
}

function loadDaemon(): Promise<typeof import('../engine/daemon.ts')> {
  return import('../engine/daemon.ts');
}

function pausedText({ sync, paused }: SyncStatus): string[] {
  return paused === null ? [] : [`${sync} is ${pausedSince(paused)}; \`ibex resume\` lets it go on`];
}

function describe(table: TableStatus): string {
  return `${table.table}: ${table.reason ?? table.state}`;
}

/** Notes what is asked for; resolves to whether a daemon runs that sees it. */
function prepare({ config, flags }: Context): Promise<boolean> {
  return withBothSides(onlySync(config), 'backfill', async (source, target, sync) => {
    // Tables whose deltas were given up wait for just this.
    await wantAgain(source, target, sync.name, tableFilter(sync));
    if (flags.restart) await restart(target, sync);
    return isRunning(target, sync);
  });
}

async function isRunning(target: Session, { name }: SyncConfig): Promise<boolean> {
  return (await isInstalled(target, 'target')) && (await readDaemon(target, name)) !== null;
}

/** Through the target's record, where a running daemon sees it as well as the one that is about to be started. */
async function restart(target: Session, sync: SyncConfig): Promise<void> {
  if (!(await isInstalled(target, 'target'))) return;
  await migrate(target, 'target');
  await requireKnown(target, sync);
  await restartCopies(target, sync.name, tableFilter(sync));
}

function readNow({ config }: Context): Promise<SyncStatus> {
  return withBothSides(onlySync(config), 'backfill', (source, target, sync) =>
    readStatus(source, target, sync.name, tableFilter(sync)),
  );
}

/** False when a daemon was only between two lanes, or about to start, when it was looked for: then it has the request. */
async function runAlone(context: Context): Promise<boolean> {
  const { config, log, signal } = context;
  const filter = tableFilter(onlySync(config));
  const { Daemon } = await loadDaemon();
  try {
    await new Daemon({ config, log, until: { kind: 'copied', covers: filter } }).run(signal);
    return true;
  } catch (error) {
    if (!isKind(error, 'taken')) throw error;
    const running = await withBothSides(onlySync(config), 'backfill', (_source, target, sync) =>
      isRunning(target, sync),
    );
    if (running) return false;
    throw error;
  }
}

/** The daemon copies whatever is pending; what is held or refused is not waited for, nor is a paused sync. */
async function watchUntilCopied(context: Context): Promise<void> {
  while (!context.signal.aborted) {
    const { tables, paused } = await readNow(context);
    if (paused !== null) return;
    if (tables.every((table) => table.state === 'streaming' || table.reason !== null)) return;
    await sleep(500, undefined, { signal: context.signal }).catch(() => undefined);
  }
}
