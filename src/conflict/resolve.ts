/**
 * A person decides a conflict. What they decide is written, or noted, as an ordinary change of the node where the row
 * stands from now on, so it reaches the others the way everything does, and meets what they wrote meanwhile as any
 * change would.
 */
import { type CapturedKey, findCapturedKey } from '../capture/trigger/captured-key.ts';
import { noteKeys } from '../capture/trigger/registry.ts';
import { IbexError } from '../core/errors.ts';
import type { Session } from '../postgres/session.ts';
import {
  type Conflict,
  type ConflictSide,
  counterpartOf,
  nodesOf,
  type RowTexts,
  tableOf,
  waits,
} from './recorded.ts';
import { checkedRow, deleteRow, deleteUnchanged, recordedRow, writeRow } from './rows.ts';

/** The row of the first or the second node of the sync, or a given one; `row` null: there is to be none. */
export type Decision =
  | { readonly to: 'source' | 'target' }
  | { readonly to: 'row'; readonly row: RowTexts | null };

/** Sessions of both nodes of a conflict. */
export interface Parties {
  /** Of the node that decided, or waits to. */
  readonly local: Session;
  readonly incoming: Session;
  /** The sync goes one way, with a guard: the other node keeps no record, and never hears of what is decided here. */
  readonly guard: boolean;
}

/**
 * Errors: `config` when the record says that a person has decided already, keeps no values to put back, or does not fit
 * the given row; `not_set_up` when the table is not captured any more on the node where the row is to stand.
 */
export async function resolveConflict(
  conflict: Conflict,
  decision: Decision,
  parties: Parties,
): Promise<void> {
  if (conflict.state === 'closed')
    throw new IbexError('config', `conflict ${conflict.id} is decided already: ${conflict.reason}`, {
      hint: 'Nothing to do; `ibex conflicts list` shows the others.',
    });
  const chosen = decision.to === 'row' ? conflict.local : sideOf(conflict, decision.to);
  const how = decision.to === 'row' ? 'a row given by a person' : `the row of ${chosen.node}`;
  const standsHere = chosen === conflict.local;
  const standing = standsHere ? parties.local : parties.incoming;
  const yielding = standsHere ? parties.incoming : parties.local;
  const key = await requireKey(standing, conflict);
  const row = decision.to === 'row' ? checkedRow(conflict, key.columns, decision.row) : undefined;
  // What yields is let go first: the change that comes then must not find it held.
  await yielding.transaction('', async () => {
    if (parties.guard && !standsHere) await expectIncoming(yielding, conflict, how);
    else if (!parties.guard) await release(yielding, conflict, chosen, how);
    if (row === undefined) await makeRoom(yielding, conflict, chosen);
  });
  await standing.transaction('', async () => {
    if (!parties.guard || standsHere) await release(standing, conflict, chosen, how);
    if (row !== undefined) await put(standing, conflict, key, row);
    else if (waits(conflict)) await noteKeys(standing, key.relid, [conflict.key]);
    else await put(standing, conflict, key, recordedRow(conflict, chosen));
  });
}

function sideOf(conflict: Conflict, to: 'source' | 'target'): ConflictSide {
  const { first, second } = nodesOf(conflict);
  return to === 'source' ? first : second;
}

async function requireKey(session: Session, conflict: Conflict): Promise<CapturedKey> {
  const key = await findCapturedKey(session, { schema: conflict.schema, name: conflict.table });
  if (key !== null) return key;
  throw new IbexError('not_set_up', `${session.server}: table ${tableOf(conflict)} is not captured there`);
}

/**
 * On one node: keys that were left out are taken again, and what stopped is told how to go on. `chosen` is the side whose
 * row stands.
 */
async function release(
  session: Session,
  conflict: Conflict,
  chosen: ConflictSide,
  how: string,
): Promise<void> {
  const lanes = [conflict.sync, counterpartOf(conflict.sync)];
  const { schema, table, key } = conflict;
  const place = [lanes, schema, table, key];
  await session.run(
    `insert into ibex.held_key (sync, schema_name, table_name, key, conflict, decision)
     select c.sync, c.schema_name, c.table_name, c.key, c.id,
            case when c.local_node = $5 then 'local' else 'incoming' end
       from (select distinct on (sync) * from ibex.conflict
              where sync = any ($1) and schema_name = $2 and table_name = $3 and key = $4 and state = 'aborted'
              order by sync, id desc) c
         on conflict (sync, schema_name, table_name, key) do update set decision = excluded.decision`,
    [...place, chosen.node],
  );
  await session.run(
    `delete from ibex.held_key
      where sync = any ($1) and schema_name = $2 and table_name = $3 and key = $4 and decision is null`,
    place,
  );
  await session.run(
    `update ibex.conflict
        set state = case when state in ('held', 'aborted') then 'closed' else state end, reason = $5
      where sync = any ($1) and schema_name = $2 and table_name = $3 and key = $4
        and (state in ('held', 'aborted') or (id = $6 and local_node = $7))`,
    [...place, `decided by a person: ${how}`, conflict.number, conflict.local.node],
  );
}

/** On the target of a guard: what comes next of the key stands, whatever is noted of it here. */
async function expectIncoming(session: Session, conflict: Conflict, how: string): Promise<void> {
  const { sync, schema, table, key, number } = conflict;
  await session.run(
    `insert into ibex.held_key (sync, schema_name, table_name, key, conflict, decision)
     values ($1, $2, $3, $4, $5, 'incoming')
         on conflict (sync, schema_name, table_name, key) do update set decision = excluded.decision`,
    [sync, schema, table, key, number],
  );
  await session.run(
    `update ibex.conflict set state = case when state in ('held', 'aborted') then 'closed' else state end, reason = $5
      where sync = $1 and schema_name = $2 and table_name = $3 and key = $4
        and (state in ('held', 'aborted') or id = $6)`,
    [sync, schema, table, key, `decided by a person: ${how}`, number],
  );
}

/**
 * Where the two rows have different keys and one unique value, the one that yields has to go. Was it changed since, the two
 * meet again, or no more.
 */
async function makeRoom(session: Session, conflict: Conflict, chosen: ConflictSide): Promise<void> {
  if (conflict.type !== 'update_exists' && conflict.type !== 'multiple_unique_conflicts') return;
  const { columns } = await requireKey(session, conflict);
  const table = { schema: conflict.schema, name: conflict.table };
  const yields = chosen === conflict.local ? conflict.incoming : conflict.local;
  const row = recordedRow(conflict, yields);
  if (row !== null) await deleteUnchanged(session, table, columns, row);
}

/** Writes the row as an application would, and has it carried also where that changes nothing here. */
async function put(
  session: Session,
  conflict: Conflict,
  key: CapturedKey,
  row: RowTexts | null,
): Promise<void> {
  const table = { schema: conflict.schema, name: conflict.table };
  if (row === null) await deleteRow(session, table, key.columns, conflict.key);
  else await writeRow(session, table, key.columns, row);
  await noteKeys(session, key.relid, [conflict.key]);
}
