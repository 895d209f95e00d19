/** The ways of copying that the scenario `backfill` compares. Each is timed from its start to its end. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Program, type Running, requireSuccess, run, start } from '../children.ts';
import { Ibex } from '../ibex.ts';
import { NativeReplication } from '../native.ts';
import type { Databases } from '../pair.ts';
import { hasProc, peakMemoryMib, readUntilEnd } from '../proc.ts';
import type { Case } from './backfill-tables.ts';

export interface Copied {
  readonly seconds: number;
  /** Most resident memory of the process that copies, in MiB; null for who is no process of its own. */
  readonly peakMib: number | null;
  /** How many of the seconds were over before the copy was begun, where that was a command of its own. */
  readonly setUp?: number;
}

export interface Way {
  readonly who: string;
  /** Without the time that it takes where there is nothing to copy. */
  readonly startUp: boolean;
  copy(databases: Databases, tables: Case): Promise<Copied>;
  /** Takes away what is left of it but the rows. */
  leave?(databases: Databases): Promise<void>;
}

const NATIVE_PATIENCE_MS = 60 * 60_000;

export interface IbexSetting {
  readonly who: string;
  readonly jobs: number;
  /** Processes `ibex worker` beside it, each with one job. */
  readonly workers?: number;
  readonly redisUrl?: string;
}

/** Sessions on the source that as many workers need. */
const ROOM = 20;

export function ibexWay({ who, jobs, workers = 0, redisUrl }: IbexSetting): Way {
  return {
    who,
    startUp: true,
    copy: async (databases, { name }) => {
      const ibex = Ibex.oneWay(databases, redisUrl);
      const room = workers === 0 ? [] : ['--max-source-connections', String(ROOM)];
      const helpers = await startWorkers(ibex, databases, workers, room);
      const startedAt = performance.now();
      try {
        const schema = name === 'clone' ? ['--schema'] : [];
        // What thousands of tables cost before their first row is a figure of its own.
        if (name === 'many') await ibex.run('setup');
        const setUp = name === 'many' ? { setUp: (performance.now() - startedAt) / 1000 } : {};
        const process = await ibex.start('backfill', ...schema, '--jobs', String(jobs), ...room);
        const peak = hasProc ? readUntilEnd(process, peakMemoryMib) : null;
        const ended = requireSuccess('ibex backfill', await process.ended);
        return { seconds: (ended.at - startedAt) / 1000, peakMib: await peak, ...setUp };
      } finally {
        await Promise.all(helpers.map((helper) => helper.stop()));
      }
    },
    leave: (databases) => Ibex.oneWay(databases).run('teardown', '--yes'),
  };
}

/** They are there, connected, and wait for work. */
async function startWorkers(
  ibex: Ibex,
  { target }: Databases,
  count: number,
  options: readonly string[],
): Promise<Running[]> {
  if (count === 0) return [];
  await ibex.run('setup');
  const workers = await Promise.all(
    Array.from({ length: count }, () => ibex.start('worker', '--jobs', '1', ...options)),
  );
  const areThere = async () => {
    const { rows } = await target.superuser.query<{ count: number }>(
      `select count(*)::int4 as count from pg_stat_activity
        where application_name = 'ibex:main:worker' and datname = current_database()`,
    );
    return rows[0]?.count === count;
  };
  while (!(await areThere())) {
    const gone = workers.find(({ running }) => !running);
    if (gone !== undefined) {
      await Promise.all(workers.map((worker) => worker.stop()));
      requireSuccess('ibex worker', { ...(await gone.ended), code: 3 });
    }
    await sleep(50);
  }
  return workers;
}

/** One COPY into the other, in the shell, as the owner of the tables. */
export const pipeWay: Way = {
  who: 'pipe',
  startUp: false,
  copy: (databases, { tables }) => timed(() => pipe(databases, tables)),
};

async function pipe(databases: Databases, tables: readonly string[]): Promise<void> {
  const [first, ...more] = tables;
  if (more.length === 0) {
    return bash(
      databases,
      `psql -qXc "copy ${first} to stdout (format binary)" "$SOURCE" |
       psql -qXc "copy ${first} from stdin (format binary)" "$TARGET"`,
    );
  }
  // Many tables go through one pipe, as pg_dump sends them: a process each would measure the starting of processes.
  const script = tables.map(
    (table) => `\\echo copy ${table} from stdin;\ncopy ${table} to stdout;\n\\echo '\\\\.'\n`,
  );
  await inDirectory(async (directory) => {
    const file = join(directory, 'script.sql');
    writeFileSync(file, script.join(''));
    await bash(databases, `psql -qX -f '${file}' "$SOURCE" | psql -qX -v ON_ERROR_STOP=1 "$TARGET"`);
  });
}

/** The table synchronisation of native logical replication, until the subscription has every table in step. */
export function nativeWay(): Way {
  let native: NativeReplication | undefined;
  return {
    who: 'native',
    startUp: false,
    copy: (databases, { tables }) =>
      timed(async () => {
        native = await NativeReplication.create(databases, tables, NATIVE_PATIENCE_MS);
      }),
    leave: async () => native?.drop(),
  };
}

export const pgDumpWay: Way = {
  who: 'pg_dump | psql',
  startUp: false,
  copy: (databases) =>
    timed(() => bash(databases, 'pg_dump --no-owner --no-acl "$SOURCE" | psql -qX -o /dev/null "$TARGET"')),
};

/** By a superuser, with two processes for tables and two for indexes: schema, rows and keys, or rows alone. */
export function pgcopydbWay(what: 'clone' | 'rows'): Way {
  const command =
    what === 'clone'
      ? ['clone', '--table-jobs', '2', '--index-jobs', '2']
      : ['copy', 'table-data', '--table-jobs', '2'];
  return {
    who: 'pgcopydb',
    startUp: false,
    copy: ({ source, target }) =>
      inDirectory((directory) =>
        timed(() =>
          run({
            file: 'pgcopydb',
            args: [...command, '--dir', join(directory, 'work')],
            env: {
              ...environment(),
              PGCOPYDB_SOURCE_PGURI: source.superuserUrl,
              PGCOPYDB_TARGET_PGURI: target.superuserUrl,
            },
          }),
        ),
      ),
  };
}

async function timed(work: () => Promise<unknown>): Promise<Copied> {
  const startedAt = performance.now();
  await work();
  return { seconds: (performance.now() - startedAt) / 1000, peakMib: null };
}

async function bash({ source, target }: Databases, script: string): Promise<void> {
  const program: Program = {
    file: 'bash',
    args: ['-c', `set -o pipefail; ${script}`],
    env: { ...environment(), SOURCE: source.url, TARGET: target.url },
  };
  requireSuccess('bash', await (await start(program)).ended);
}

/** Ours without what libpq would take for settings. */
function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('PG')));
}

async function inDirectory<T>(work: (directory: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'ibex-bench-'));
  try {
    return await work(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
