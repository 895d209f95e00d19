/**
 * Sets the indexes of a table aside that is to be copied and has no rows yet, with the constraints that they serve and
 * the foreign keys that need them: rows are written in a fraction of the time then, and an index that is built over all
 * of them at once is smaller, too.
 *
 * Before one is dropped for good it is dropped and put back in a transaction that is undone: what does not come back
 * exactly as it was, for whatever reason, stays in place.
 */
import { isDeepStrictEqual } from 'node:util';
import { type TablePlan, tableLabel } from '../core/plan.ts';
import { serverError } from '../postgres/errors.ts';
import { tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { readForeignKeys } from './foreign-keys.ts';
import { readIndexes, type TableIndex } from './indexes.ts';
import { parkForeignKey, type ToPark, writeDown } from './parking.ts';
import { lockSyncTables, requireEpoch } from './state.ts';
import { fromTable } from './statements.ts';
import { treeOf } from './target-table.ts';

/** From so many bytes on it pays. */
const WORTH_BYTES = 8 * 1024 * 1024;

export interface ParkingLane {
  readonly sync: string;
  readonly epoch: number;
}

/**
 * Sets aside what can be of a table's indexes, if it has no rows yet; `bytes` are to come of it, or of its largest
 * partition. Whatever stands against it leaves an index where it is; chunks are copied under it as well.
 */
export async function parkIndexes(
  session: Session,
  lane: ParkingLane,
  plan: TablePlan,
  bytes: number,
): Promise<void> {
  if (bytes < WORTH_BYTES || (await isOfOthers(session, lane, plan))) return;
  const tops = new Set((await readIndexes(session, plan)).map(({ top }) => top));
  for (const top of tops) {
    try {
      if (!(await session.transaction('', () => parkOne(session, lane, plan, top)))) return;
    } catch (error) {
      if (!isAboutTheIndex(session, error)) throw error;
    }
  }
}

/** Whoever else reads the table's changes, or writes it, finds its rows by its key: its indexes are not ours to take away. */
async function isOfOthers(session: Session, { sync }: ParkingLane, plan: TablePlan): Promise<boolean> {
  const members = `(select m.oid from to_regclass($1) r cross join lateral ${treeOf('r')} m)`;
  const { others, captures } = await session.row<{ others: boolean; captures: boolean }>(
    `select exists (select from ibex.target_table t
                     where t.sync <> $2 and (t.schema_name, t.table_name) = ($3, $4) and t.state <> 'dropped')
         or exists (select from pg_publication_tables p
                     where (p.schemaname, p.tablename) in (
                             select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
                              where c.oid in ${members})) as others,
            to_regclass('ibex.captured') is not null as captures`,
    [tableIdent(plan), sync, plan.schema, plan.name],
  );
  if (others || !captures) return others;
  const { captured } = await session.row<{ captured: boolean }>(
    `select exists (select from ibex.captured k where k.relid in ${members}) as captured`,
    [tableIdent(plan)],
  );
  return captured;
}

/** An index with those of the partitions that hang on it. False when there are rows: then none may be dropped. */
async function parkOne(
  session: Session,
  { sync, epoch }: ParkingLane,
  plan: TablePlan,
  top: string,
): Promise<boolean> {
  await session.run(`set local lock_timeout = '5s'`);
  await requireEpoch(session, sync, epoch);
  const [table] = await lockSyncTables(session, sync, [plan.relid]);
  if (table?.state !== 'pending') return false;
  await session.run(`lock table ${fromTable(plan)} in access exclusive mode`);
  const { empty } = await session.row<{ empty: boolean }>(
    `select not exists (select from ${fromTable(plan)}) as empty`,
  );
  if (!empty) return false;
  const family = await readFamily(session, plan, top);
  if (family.some(({ stays }) => stays)) return true;
  await parkReferences(session, sync, plan, family);
  await proveRestorable(session, plan, family, top);
  for (const index of family) await writeDown(session, sync, toPark(index));
  await drop(session, family);
  return true;
}

async function readFamily(session: Session, plan: TablePlan, top: string): Promise<TableIndex[]> {
  return (await readIndexes(session, plan)).filter((index) => index.top === top);
}

async function parkReferences(
  session: Session,
  sync: string,
  plan: TablePlan,
  family: readonly TableIndex[],
): Promise<void> {
  const needing = new Set(
    family.flatMap(({ referencedBy }) =>
      referencedBy.map((key) => `${tableLabel(key.relation)} ${key.name}`),
    ),
  );
  if (needing.size === 0) return;
  for (const key of await readForeignKeys(session, sync, [plan])) {
    if (needing.has(`${tableLabel(key.relation)} ${key.name}`)) await parkForeignKey(session, sync, key);
  }
}

/** The one at the top takes all others along. */
async function drop(session: Session, family: readonly TableIndex[]): Promise<void> {
  await session.run((family.at(-1) as TableIndex).drop);
}

/** Errors: whatever the server says, or that something else came back. */
async function proveRestorable(
  session: Session,
  plan: TablePlan,
  family: readonly TableIndex[],
  top: string,
): Promise<void> {
  await session.run('savepoint proof');
  await drop(session, family);
  for (const { restore, remark } of family) {
    await session.run(restore);
    if (remark !== null) await session.run(remark);
  }
  const back = await readFamily(session, plan, top);
  await session.run('rollback to savepoint proof');
  const same = ({ name, relation, description, remark }: TableIndex) => [name, relation, description, remark];
  if (!isDeepStrictEqual(back.map(same), family.map(same))) throw new ComesBackAnother();
}

class ComesBackAnother extends Error {}

/** Not of the connection, nor a fault of our own: the server refuses something, or somebody has the table locked. */
function isAboutTheIndex(session: Session, error: unknown): boolean {
  return error instanceof ComesBackAnother || (session.broken === null && serverError(error) !== undefined);
}

function toPark(index: TableIndex): ToPark {
  const { table, relation, name, restore, remark, depth, build, needs, key } = index;
  return {
    ...table,
    relation,
    kind: 'index',
    object: name,
    referenced: null,
    restore,
    remark,
    turn: -1 - depth,
    build,
    needs,
    key,
  };
}
