/** What the target has in another shape than its objects tell: what a sync has set aside, and indexes of partitions. */
import { isInstalled } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';
import { identityOf } from './objects.ts';

interface Parked {
  readonly kind: string;
  /** Each as the catalogs quote it: `name on schema.table`, `schema.name`, `schema.table`. */
  readonly onTable: string;
  readonly inSchema: string;
  readonly ofTable: string;
  readonly schema: string;
  readonly table: string;
  readonly name: string;
  /** `name on table` in the words of pg_dump, and the name alone, both quoted. */
  readonly dumpedOn: string;
  readonly quoted: string;
}

const READ_PARKED = `
  select replace(kind, '_', ' ') as kind, format('%I on %I.%I', name, schema_name, table_name) as "onTable",
         format('%I.%I', schema_name, name) as "inSchema", format('%I.%I', schema_name, table_name) as "ofTable",
         schema_name as schema, table_name as table, name,
         format('%I ON %I', name, table_name) as "dumpedOn", quote_ident(name) as quoted
    from ibex.parked`;

/** Identities, as either way of reading has them, of what a sync has disabled or dropped until it puts it back. */
export async function readAside(target: Session): Promise<Set<string>> {
  if (!(await isInstalled(target, 'target'))) return new Set();
  const parked = await target.rows<Parked>(READ_PARKED);
  return new Set(
    parked.flatMap((object) => {
      const all = object.kind === 'index' ? indexIdentities(object) : identities(object);
      return all.map(([kind, name]) => identityOf({ kind, name }));
    }),
  );
}

type Identity = readonly [kind: string, name: string];

/** A foreign key, trigger or rule, with its comment. */
function identities({ kind, onTable, schema, table, name, dumpedOn }: Parked): Identity[] {
  const what = kind === 'foreign key' ? 'constraint' : kind;
  return [
    [kind, onTable],
    [kind, `${schema}.${table} ${name}`],
    ['comment', `${what} ${onTable}`],
    ['comment', `${schema}.${what.toUpperCase()} ${dumpedOn}`],
  ];
}

/** An index may serve a constraint, belong to a partitioned index, identify rows or order them. */
function indexIdentities(index: Parked): Identity[] {
  const { inSchema, ofTable, schema, name, quoted } = index;
  const constraint = identities({ ...index, kind: 'foreign key' });
  return [
    ...constraint.map(([kind, text]): Identity => [kind === 'comment' ? kind : 'key', text]),
    ...['index', 'index partition'].flatMap((kind): Identity[] => [
      [kind, inSchema],
      [kind, `${schema}.${name}`],
    ]),
    ...['identity', 'order'].map((role): Identity => ['index role', `${ofTable} ${role}`]),
    ['comment', `index ${inSchema}`],
    ['comment', `${schema}.INDEX ${quoted}`],
  ];
}

/** `index table` for each partition that has an index of its own under a partitioned one. */
export async function readCovered(target: Session): Promise<Set<string>> {
  const rows = await target.rows<{ pair: string }>(
    `select format('%I.%I %I.%I', pn.nspname, p.relname, n.nspname, c.relname) as pair
       from pg_inherits h join pg_index x on x.indexrelid = h.inhrelid
       join pg_class p on p.oid = h.inhparent join pg_namespace pn on pn.oid = p.relnamespace
       join pg_class c on c.oid = x.indrelid join pg_namespace n on n.oid = c.relnamespace`,
  );
  return new Set(rows.map(({ pair }) => pair));
}
