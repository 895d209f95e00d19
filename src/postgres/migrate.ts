/**
 * Brings the schema `ibex` of one side to this version: numbered tables once each, functions whenever their
 * text changed. The files are plain SQL below `triggers/` and can be run with psql as they are.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { IbexError } from '../core/errors.ts';
import { ROOT } from '../core/root.ts';
import type { Session } from './session.ts';

export type Side = 'source' | 'target';

interface SqlFile {
  readonly name: string;
  readonly text: string;
  readonly checksum: string;
}

const TRIGGERS = fileURLToPath(new URL('triggers/', ROOT));

function sqlFiles(side: Side, kind: 'tables' | 'functions'): SqlFile[] {
  const directory = `${TRIGGERS}${side}/${kind}/`;
  if (!existsSync(directory)) return [];
  return readdirSync(directory)
    .filter((name) => name.endsWith('.sql'))
    .sort()
    .map((file) => {
      const text = readFileSync(directory + file, 'utf8');
      const checksum = createHash('sha256').update(text).digest('hex');
      return { name: `${side}/${kind}/${file}`, text, checksum };
    });
}

const CREATE_LEDGER = `
  create table if not exists ibex.migration (
    name text primary key, checksum text not null, applied_at timestamptz not null default clock_timestamp())`;

/**
 * Creates or updates the schema in one transaction. Repeatable, safe against a second caller.
 * Errors: `privilege` when the role may not create a schema; `unsupported` when the schema was made by a later
 * version, whose tables this one does not know.
 */
export async function migrate(session: Session, side: Side): Promise<void> {
  await session.transaction('', async () => {
    // Others wait for this transaction's lock, however long: it must not outlive a client that the network took.
    await session.run(`set local idle_in_transaction_session_timeout = '10s'`);
    await migrateHere(session, side);
  });
}

/** Makes all functions of a side anew, whatever the ledger says of them: who removes a sync may find some gone. */
export async function restoreFunctions(session: Session, side: Side): Promise<void> {
  await session.transaction('', async () => {
    await session.run(`set local check_function_bodies = off`);
    await apply(session, sqlFiles(side, 'functions'));
  });
}

/** The same as part of the transaction that the session is in. */
export async function migrateHere(session: Session, side: Side): Promise<void> {
  await session.run(`select pg_advisory_xact_lock(hashtext('ibex'), hashtext('migrate'))`);
  await createSchema(session);
  await session.run(CREATE_LEDGER);
  await session.run(`set local check_function_bodies = off`);
  const ledger = await session.rows<{ name: string; checksum: string }>(
    'select name, checksum from ibex.migration',
  );
  const applied = new Map(ledger.map((row) => [row.name, row.checksum]));
  refuseLaterVersion(session, side, new Set(applied.keys()));
  await apply(session, [
    ...sqlFiles(side, 'tables').filter(({ name }) => !applied.has(name)),
    ...sqlFiles(side, 'functions').filter(({ name, checksum }) => applied.get(name) !== checksum),
  ]);
}

/**
 * Errors: `unsupported` when the schema of this side was made by a later version, whose tables mean what this one
 * does not know. Nothing is the matter where there is no schema.
 */
export async function requireKnownVersion(session: Session, side: Side): Promise<void> {
  if (!(await hasLedger(session))) return;
  const ledger = await session.rows<{ name: string }>('select name from ibex.migration');
  refuseLaterVersion(session, side, new Set(ledger.map(({ name }) => name)));
}

/** True when there is a schema `ibex` with a ledger in it. */
export async function hasLedger(session: Session): Promise<boolean> {
  const { known } = await session.row<{ known: boolean }>(
    `select to_regclass('ibex.migration') is not null as known`,
  );
  return known;
}

/** The last table that each side's schema begins with. A database may be the source of some syncs and the target of others. */
const FIRST_TABLE: Record<Side, string> = { source: 'ibex.source_table', target: 'ibex.parked' };

/** True when the tables of that side are there. */
export async function isInstalled(session: Session, side: Side): Promise<boolean> {
  const { installed } = await session.row<{ installed: boolean }>(
    'select to_regclass($1) is not null as installed',
    [FIRST_TABLE[side]],
  );
  return installed;
}

/** Whether there is a schema `ibex` that holds something, and none of it is what ours begins with. */
export async function isForeign(session: Session): Promise<boolean> {
  const { foreign } = await session.row<{ foreign: boolean }>(
    `select count(*) > 0 and count(*) filter (where c.relname in ('migration', 'source_table', 'parked')) = 0 as foreign
       from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'ibex'`,
  );
  return foreign;
}

async function createSchema(session: Session): Promise<void> {
  const { present } = await session.row<{ present: boolean }>(
    // Not by to_regnamespace: what it knows from before may have been waited past, for the lock of another one's migration.
    `select exists (select from pg_namespace where nspname = 'ibex') as present`,
  );
  if (present && (await isForeign(session))) {
    throw new IbexError('unsupported', `${session.server}: the schema ibex is somebody else's`, {
      hint: 'Ibex keeps what it notes in a schema of that name: rename the one that is there.',
    });
  }
  if (present) return;
  try {
    await session.run('create schema ibex');
  } catch (error) {
    if (!(error instanceof IbexError) || error.kind !== 'privilege') throw error;
    const { role, database } = await session.row<{ role: string; database: string }>(
      'select current_user as role, current_database() as database',
    );
    throw new IbexError('privilege', `${session.server}: role ${role} may not create the schema ibex`, {
      hint: `As the owner of the database: grant create on database "${database}" to "${role}";`,
      cause: error,
    });
  }
}

function refuseLaterVersion(session: Session, side: Side, applied: ReadonlySet<string>): void {
  const known = new Set(sqlFiles(side, 'tables').map((file) => file.name));
  const unknown = [...applied].find((name) => name.startsWith(`${side}/tables/`) && !known.has(name));
  if (unknown === undefined) return;
  throw new IbexError(
    'unsupported',
    `${session.server}: the schema ibex was made by a later version (${unknown})`,
    {
      hint: 'Run that version of ibex, or a later one.',
    },
  );
}

/** In their order, all in one go: a first setup has dozens on either side. */
async function apply(session: Session, files: readonly SqlFile[]): Promise<void> {
  if (files.length === 0) return;
  await session.run(files.map(({ text }) => text).join('\n'));
  await session.run(
    `insert into ibex.migration (name, checksum) select * from unnest($1::text[], $2::text[])
     on conflict (name) do update set checksum = excluded.checksum, applied_at = clock_timestamp()`,
    [files.map(({ name }) => name), files.map(({ checksum }) => checksum)],
  );
}
