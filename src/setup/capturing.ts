/** Has tables captured on the source that a sync takes in, and says which of them cannot be, and why. */
import { prepareCaptures } from '../capture/trigger/arming.ts';
import type { TableInfo } from '../core/table.ts';
import type { Session } from '../postgres/session.ts';
import { refusedTable } from './refusal.ts';
import type { Obstacle } from './tables.ts';

/** Captures tables and takes them into the sync on the source; resolves to those that cannot be captured. */
export async function captureAll(
  source: Session,
  sync: string,
  tables: readonly TableInfo[],
): Promise<Obstacle[]> {
  const refused = await prepareCaptures(
    source,
    sync,
    tables.map(({ relid }) => relid),
  );
  return tables.flatMap((table) => {
    const refusal = refused.get(table.relid);
    return refusal === undefined ? [] : [{ table, error: refusedTable(table, refusal) }];
  });
}
