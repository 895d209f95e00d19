/** What the target has in another shape than its objects tell: what a sync has set aside, and indexes of partitions. */
import { isInstalled } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';
import { identityOf } from './objects.ts';

interface Parked {
  readonly kind: string;
  /** `name on schema.table` and `schema.name`, quoted. */
  readonly onTable: string;
  readonly inSchema: string;
  readonly schema: string;
  readonly table: string;
  readonly name: string;
}

/** Identities, as either way of reading has them, of what a sync has disabled or dropped until it puts it back. */
export async function readAside(target: Session): Promise<Set<string>> {
  if (!(await isInstalled(target))) return new Set();
  const parked = await target.rows<Parked>(
    `select replace(kind, '_', ' ') as kind, format('%I on %I.%I', name, schema_name, table_name) as "onTable",
            format('%I.%I', schema_name, name) as "inSchema", schema_name as schema, table_name as table, name
       from ibex.parked`,
  );
  return new Set(parked.flatMap(identitiesOf));
}

function identitiesOf({ kind, onTable, inSchema, schema, table, name }: Parked): string[] {
  const dumped = `${schema}.${table} ${name}`;
  if (kind !== 'index') return [onTable, dumped].map((one) => identityOf({ kind, name: one }));
  // It may serve a constraint, or belong to a partitioned one.
  return [
    ...[onTable, dumped].map((one) => identityOf({ kind: 'key', name: one })),
    ...['index', 'index partition'].flatMap((one) => [
      identityOf({ kind: one, name: inSchema }),
      identityOf({ kind: one, name: `${schema}.${name}` }),
    ]),
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
