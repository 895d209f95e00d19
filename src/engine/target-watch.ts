/**
 * Notices that somebody altered tables of the target. There is nothing on the target that would tell, so its catalogs
 * are read again and again, as often as that costs next to nothing.
 */
import { tableLabel } from '../core/plan.ts';
import type { Session } from '../postgres/session.ts';

/** Looking takes at most this part of the time. */
const SHARE = 1 / 50;

/**
 * What plans are made from, for every table; for those that wait also what may have kept a row out: constraints other
 * than foreign keys, which come and go with our own work, unique indexes, and rights.
 */
const READ_SHAPES = `
  select t.relid::text, t.schema_name as schema, t.table_name as name,
         md5(concat_ws(' ', c.oid, c.relkind, c.relispartition,
               (select string_agg(concat_ws(',', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attcollation, a.attgenerated, a.attidentity),
                                  ' ' order by a.attnum)
                  from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped))) as shape,
         case when (t.state = 'held' or t.reason is not null) and x.parked is null then
           md5(concat_ws(' ', c.relacl, n.nspacl,
                 (select string_agg(k.oid::text, ' ' order by k.oid) from pg_constraint k
                   where k.conrelid = c.oid and k.contype <> 'f'),
                 (select string_agg(i.indexrelid::text, ' ' order by i.indexrelid) from pg_index i
                   where i.indrelid = c.oid and i.indisunique),
                 (select string_agg(concat_ws(',', a.attnum, a.attnotnull, a.atthasdef), ' ' order by a.attnum)
                    from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)))
         end as rules
    from ibex.target_table t
    left join (pg_class c join pg_namespace n on n.oid = c.relnamespace)
           on n.nspname = t.schema_name and c.relname = t.table_name
    left join (select distinct p.schema_name, p.table_name, true as parked from ibex.parked p where p.kind = 'index') x
           using (schema_name, table_name)
   where t.sync = $1 and t.state <> 'dropped'`;

interface Shape {
  readonly relid: string;
  readonly schema: string;
  readonly name: string;
  readonly shape: string;
  /** Null while the table does not wait for anything, or its indexes come and go with our own work. */
  readonly rules: string | null;
}

export class TargetWatch {
  readonly #sync: string;
  #known = new Map<string, Shape>();
  #nextAt = 0;

  constructor(sync: string) {
    this.#sync = sync;
  }

  /** The tables that were altered since the last look; none while it is too early to look again. */
  async look(target: Session): Promise<string[]> {
    if (Date.now() < this.#nextAt) return [];
    const known = this.#known;
    const shapes = await this.note(target);
    return shapes.filter((shape) => isAltered(known.get(shape.relid), shape)).map(tableLabel);
  }

  /** Takes what is there now as known: to be called before the plans are made of it. */
  async note(target: Session): Promise<readonly Shape[]> {
    const began = Date.now();
    const shapes = await target.rows<Shape>(READ_SHAPES, [this.#sync]);
    this.#known = new Map(shapes.map((shape) => [shape.relid, shape]));
    this.#nextAt = Date.now() + (Date.now() - began) / SHARE;
    return shapes;
  }
}

function isAltered(was: Shape | undefined, is: Shape): boolean {
  if (was === undefined || tableLabel(was) !== tableLabel(is)) return false;
  return was.shape !== is.shape || (was.rules !== null && is.rules !== null && was.rules !== is.rules);
}
