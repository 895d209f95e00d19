/** The way back for tables whose deltas were given up for the sake of the source's disk: they are captured and copied anew. */
import { readSyncTables, requestCopy } from '../apply/state.ts';
import { liftGivenUp, readGivenUp } from '../capture/trigger/budget.ts';
import type { TableName } from '../core/plan.ts';
import { isInstalled, migrate } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';

/**
 * Has such tables captured and copied again, those that pass the filter; whoever runs the sync does it. Resolves to them.
 * The target is told first: were the source's mark gone before, a table that counts as in step there would go on with a gap.
 */
export async function wantAgain(
  source: Session,
  target: Session,
  sync: string,
  filter: (table: TableName) => boolean,
): Promise<TableName[]> {
  if (!(await isInstalled(source, 'source')) || !(await isInstalled(target, 'target'))) return [];
  await migrate(source, 'source');
  await migrate(target, 'target');
  const known = new Set((await readSyncTables(target, sync)).map(({ relid }) => relid));
  const tables = (await readGivenUp(source, sync)).filter((table) => known.has(table.relid) && filter(table));
  for (const { relid } of tables) await requestCopy(target, sync, relid, true, null);
  await liftGivenUp(
    source,
    sync,
    tables.map(({ relid }) => relid),
  );
  return tables;
}
