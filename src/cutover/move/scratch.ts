/**
 * The database of a rehearsal, which the user gives and nobody else needs: it has to be empty, gets the schema of the live
 * side, and is left as it was found.
 */
import type { SyncConfig } from '../../config/syncs.ts';
import { IbexError } from '../../core/errors.ts';
import { tableLabel } from '../../core/plan.ts';
import type { TableInfo } from '../../core/table.ts';
import { FOREIGN_SCHEMAS, readTables } from '../../postgres/catalog.ts';
import type { Session } from '../../postgres/session.ts';
import { createInOrder } from '../../schema/copier.ts';
import { compareObjects } from '../../schema/objects.ts';
import { readSides } from '../../schema/sides.ts';
import { areSame } from '../../setup/setup.ts';
import type { Move } from './move.ts';
import { tablesOf } from './preparing.ts';

interface Found {
  /** Such as `table public.goods`. */
  readonly what: string;
  readonly drop: string;
  /** Of an application; not what providers put beside it, such as an extension. */
  readonly inside: boolean;
}

/** What a database has beyond an empty one: schemas, what stands in `public`, and what stands in no schema. Extensions' parts are theirs. */
const READ_OBJECTS = `
  select i.type || ' ' || i.identity as what, o.inside,
         format('drop %s if exists %s cascade', case i.type when 'composite type' then 'type'
                  when 'statistics object' then 'statistics' else replace(i.type, '-', ' ') end, i.identity) as drop
    from (select 1 as n, false as inside, 'pg_extension'::regclass as class, oid from pg_extension where extname <> 'plpgsql'
          union all select 1, false, 'pg_publication'::regclass, oid from pg_publication
          union all select 1, false, 'pg_event_trigger'::regclass, oid from pg_event_trigger
          union all select 1, false, 'pg_foreign_server'::regclass, oid from pg_foreign_server
          union all select 2, true, 'pg_namespace'::regclass, oid from pg_namespace
                     where nspname <> 'public' and (nspname !~ $1 or nspname = 'ibex')
          union all select 3, true, d.classid, d.objid from pg_depend d
                     where d.refclassid = 'pg_namespace'::regclass and d.refobjid = to_regnamespace('public')
                       and d.deptype = 'n') o
    cross join lateral pg_identify_object(o.class, o.oid, 0) i
   where not exists (select from pg_depend e where e.classid = o.class and e.objid = o.oid and e.deptype = 'e')
   order by o.n, i.type, i.identity`;

const readObjects = (scratch: Session) => scratch.rows<Found>(READ_OBJECTS, [FOREIGN_SCHEMAS]);

/** Resolves to what is to stay. Errors: `config` unless it is empty, and neither of the sides. */
export async function requireEmpty({ old, fresh }: Move, scratch: Session): Promise<ReadonlySet<string>> {
  for (const side of [old, fresh]) {
    if (await areSame(side, scratch))
      throw new IbexError('config', `the scratch database is ${side.server}, which is one of the sync`, {
        hint: 'Give the URL of another one, which is empty.',
      });
  }
  const found = await readObjects(scratch);
  const first = found.find(({ inside }) => inside);
  if (first === undefined) return new Set(found.map(({ what }) => what));
  throw new IbexError('config', `the scratch database ${scratch.server} is not empty: it has ${first.what}`, {
    hint: 'Give the URL of an empty one. What a rehearsal left there that was stopped goes with the database: drop it, and create it again.',
  });
}

/** Makes there what the live side has; resolves to the tables of the sync. Errors: `refused` if one of them cannot be made. */
export async function copySchema(move: Move, scratch: Session, url: string) {
  const { lane, old, signal } = move;
  const target = { name: 'scratch', given: true, resolveUrl: async () => url };
  const sync: SyncConfig = { ...lane, target };
  const { source, target: there } = await readSides({ sync, source: old, target: scratch });
  const { created, failed } = await createInOrder(scratch, compareObjects(source, there).missing, signal);
  const wanted = await tablesOf(move);
  const tables = await readTables(scratch, wanted);
  requireAll(scratch, wanted, tables, failed[0]?.error);
  const without = failed.length === 0 ? '' : `, without ${failed.length} that cannot be made there`;
  return {
    found: { created: created.length, failed: failed.length, tables },
    text: `${scratch.server} has ${created.length} objects of ${old.server}${without}`,
  };
}

function requireAll(
  scratch: Session,
  wanted: readonly TableInfo[],
  there: readonly TableInfo[],
  cause?: IbexError,
): void {
  const made = new Set(there.map(tableLabel));
  const missing = wanted.map(tableLabel).filter((label) => !made.has(label));
  if (missing.length === 0) return;
  const why = cause === undefined ? '' : `: ${cause.message}`;
  throw new IbexError('refused', `${missing.join(', ')} cannot be made on ${scratch.server}${why}`, {
    hint: 'Give a database on a server that has the same extensions and roles.',
  });
}

/** Drops whatever is not to stay. Errors: `refused`, with what could not be dropped. */
export async function clean(scratch: Session, stays: ReadonlySet<string>): Promise<void> {
  await scratch.run('set client_min_messages = warning');
  const leftovers = async () => (await readObjects(scratch)).filter(({ what }) => !stays.has(what));
  // What goes with an extension or a schema is gone by its turn.
  for (const { drop } of await leftovers()) await scratch.run(drop);
  const [left] = await leftovers();
  if (left === undefined) return;
  throw new IbexError('refused', `${scratch.server} could not be cleaned: ${left.what} is left`, {
    hint: 'Drop that database: nobody needs it.',
  });
}
