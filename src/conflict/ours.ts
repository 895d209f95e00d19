/**
 * What this side has noted of its own changes: the delta tables by which the lane of the other direction carries them.
 * Those that the other side had not yet applied when its rows were read are what an incoming row may be in conflict with.
 */
import type { Seen } from '../core/batch.ts';
import { IbexError } from '../core/errors.ts';
import { keyOf, type TablePlan, tableLabel } from '../core/plan.ts';
import { parseSnapshot, type Snapshot } from '../core/position.ts';
import { literal, tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';

/** A table of the target as it is captured there. */
export interface OurTable {
  /** Its oid here, the delta tables that have something in them, and the one that is written now. */
  readonly relid: number;
  readonly generations: readonly number[];
  readonly current: number;
  /** What is noted of a row, as k1 .. kn, in which types. */
  readonly columns: readonly string[];
  readonly types: readonly string[];
  /** Other lanes carry on from here what the batch brings. */
  readonly forwarded: boolean;
}

const READ_OURS = `
  select w.i, c.relid::int8::float8 as relid, c.columns, c.types, c.generation as current,
         exists (select from ibex.source_table st join ibex.source_sync s on s.name = st.sync
                  where st.relid = c.relid and s.echo is distinct from $2) as forwarded,
         coalesce((select json_agg(g.n order by g.n) from ibex.generation g
                    where g.relid = c.relid
                      and pg_relation_size(to_regclass(format('ibex.delta_%s_%s', g.relid, g.n))) > 0), '[]') as generations
    from json_to_recordset($1) w(i int4, name text) join ibex.captured c on c.relid = to_regclass(w.name)
   where $3::text is null or exists (select from ibex.source_table r where r.relid = c.relid and r.sync = $3)`;

/**
 * By the plan's `relid`; `incoming` is the node from which the batch comes, `reader` the one for whom they are noted, if it
 * matters. A new reading sees what was committed while the last statement waited for locks.
 */
export async function readOurs(
  session: Session,
  plans: readonly TablePlan[],
  incoming: string,
  reader: string | null = null,
): Promise<Map<number, OurTable>> {
  const wanted = plans.map((plan, i) => ({ i, name: tableIdent(plan) }));
  const rows = await session.rows<OurTable & { i: number }>(READ_OURS, [
    JSON.stringify(wanted),
    incoming,
    reader,
  ]);
  return new Map(rows.map(({ i, ...ours }) => [(plans[i] as TablePlan).relid, ours]));
}

/** Up to where the other side knew our changes of a table. */
export function knownOf(seen: Seen, { schema, name }: TablePlan): Snapshot | null {
  const apart = seen.apart.find((table) => table.schema === schema && table.name === name);
  return apart === undefined ? seen.position : apart.floor;
}

/** Of which change of ours the other side knew nothing. */
export interface Unknown {
  readonly plan: TablePlan;
  readonly ours: OurTable;
  readonly known: Snapshot | null;
  /** The node from which the batch comes: what its lane wrote here is no change of ours. */
  readonly incoming: string;
}

/** SQL: these columns of all deltas of ours that the other side did not know. Not to be asked without generations. */
export function unknownDeltas({ ours, known, incoming }: Unknown, columns: string): string {
  const since =
    known === null
      ? ''
      : ` and xid >= ${parseSnapshot(known).xmin} and not txid_visible_in_snapshot(xid, ${literal(known)})`;
  return ours.generations
    .map(
      (n) =>
        `select ${columns} from ibex.delta_${ours.relid}_${n} where origin is distinct from ${literal(incoming)}${since}`,
    )
    .join(' union all ');
}

/**
 * The number of the noted column, from 1, for each column of the plan's key.
 * Errors: `schema_mismatch` when the key is another one here than where the batch comes from.
 */
export function placesOfKey(plan: TablePlan, ours: OurTable): number[] {
  const places = keyOf(plan).map((column) => ours.columns.indexOf(column.name) + 1);
  if (!places.includes(0) && places.length === ours.columns.length) return places;
  const label = tableLabel(plan);
  throw new IbexError('schema_mismatch', `${label} has another key on the target than on the source`, {
    table: label,
    hint: 'Where both sides are written the key of a table must be the same on both.',
  });
}
