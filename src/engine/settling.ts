/**
 * Before a lane starts: a table that cannot be planned any more is held where the lane stands, and one that was copied
 * under another choice of what to carry is copied again.
 */
import { holdTable, readChoices, requestCopy, setReason } from '../apply/state.ts';
import { tableLabel } from '../core/plan.ts';
import type { Snapshot } from '../core/position.ts';
import type { Session } from '../postgres/session.ts';
import type { IncarnationOptions } from './options.ts';
import type { Roster, RosterTable } from './roster.ts';

export async function settleTables(
  { sync, log }: IncarnationOptions,
  roster: Roster,
  source: Session,
  target: Session,
  start: Snapshot,
): Promise<void> {
  const choices = await readChoices(target, sync.name);
  let again = false;
  for (const table of roster.tables) {
    const label = tableLabel(table);
    if (table.plan === null) {
      await noteObstacle(target, sync.name, table, start);
    } else if (table.state !== 'pending' && table.plan.choice !== choices.get(table.relid)) {
      log.warn(
        { table: label },
        `${label} was copied with another choice of what to carry: it is copied again`,
      );
      await requestCopy(target, sync.name, table.relid, true, null);
    } else continue;
    again = true;
  }
  if (again) await roster.refresh(source, target);
}

/** Without a plan the lane passes a table by: what it misses from here on is read once it can be planned again. */
async function noteObstacle(
  target: Session,
  sync: string,
  table: RosterTable,
  start: Snapshot,
): Promise<void> {
  const { state, armed, obstacle } = table;
  if (obstacle === null || state === 'held') return;
  if (state === 'pending' || state === 'copying') {
    await setReason(target, sync, table.relid, obstacle.message);
  } else if (armed) {
    await holdTable(target, sync, tableLabel(table), table.floor ?? start, obstacle.message);
  }
}
