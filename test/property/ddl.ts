/** The SQL that makes the tables of a random schema, on the source and as they differ on the target. */
import { type Column, type Partitioning, referenceColumns, type Table } from './schema.ts';
import { TYPE_DEFINITIONS } from './types.ts';

export type Side = 'source' | 'target';

/** What every table has beside its key and its random columns. */
const NUMBER = 'num';

export function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

const list = (names: readonly string[]) => names.map(quote).join(', ');

export function createSchema(tables: readonly Table[], side: Side): string {
  const made = tables.map((table) => createTable(tables, table, side));
  const triggers = tables.map(createTrigger);
  const keys = tables.flatMap((table) => foreignKeys(tables, table));
  return [TYPE_DEFINITIONS, AUDIT, ...made, ...triggers, ...keys].join('\n');
}

/** A table without a key that triggers of other tables write. */
const AUDIT = `
  create table audit (what text);
  create function audit() returns trigger language plpgsql as $$
    begin insert into public.audit values (tg_op); return null; end $$;
  create function stamp() returns trigger language plpgsql as $$
    begin new.stamp := coalesce(new.stamp, 0) + 1; return new; end $$;
  create function move_key() returns trigger language plpgsql as $$
    begin if new.k = 11 then new.k := -4; end if; return new; end $$;`;

function createTable(tables: readonly Table[], table: Table, side: Side): string {
  const here = side === 'source' ? table.partitioning : table.targetPartitioning;
  const columns = columnDefinitions(tables, table, side);
  if (table.reordered && side === 'target') columns.reverse();
  if (table.reordered && side === 'source') columns.splice(1, 0, 'dropped int4');
  if (side === 'target' && table.extra > 0) columns.push(`extra text not null default 'kept'`);
  const method = here === 'two levels' ? 'range' : here;
  return [
    `create table ${quote(table.name)} (${[...columns, ...constraints(table)].join(', ')})`,
    here === 'none' ? ';' : ` partition by ${method} (k);`,
    table.reordered && side === 'source' ? `alter table ${quote(table.name)} drop column dropped;` : '',
    ...partitions(table, here),
    ...indexes(table),
  ].join('\n');
}

function columnDefinitions(tables: readonly Table[], table: Table, side: Side): string[] {
  const define = ({ name, type, notNull }: Column) =>
    `${quote(name)} ${type.sql}${notNull ? ' not null' : ''}`;
  const key = table.key.map((column, i) =>
    i === 0 && table.keyKind.startsWith('identity')
      ? `id int4 generated ${table.keyKind === 'identity always' ? 'always' : 'by default'} as identity`
      : define(column),
  );
  const factor = side === 'target' && table.otherExpression ? 3 : 2;
  return [
    ...key,
    ...table.values.map(define),
    `${NUMBER} int4`,
    ...referenceColumns(tables, table).map(define),
    ...(table.unique === null ? [] : ['slot int4']),
    ...(table.exclusion === null ? [] : ['during int4range']),
    ...(table.trigger === 'stamp' ? ['stamp int4'] : []),
    ...(table.generated ? [`gen int4 generated always as (${NUMBER} * ${factor}) stored`] : []),
  ];
}

function constraints(table: Table): string[] {
  const { keyKind, key } = table;
  const names = list(key.map((column) => column.name));
  const primary = keyKind === 'deferrable' ? `primary key (${names}) deferrable` : `primary key (${names})`;
  const indexed = ['none', 'unique index', 'replica identity'].includes(keyKind);
  return [
    ...(indexed ? [] : [primary]),
    ...(table.unique === null ? [] : [`unique (slot) ${timing(table.unique)}`]),
    ...(table.exclusion === null ? [] : [`exclude using gist (during with &&) ${timing(table.exclusion)}`]),
  ];
}

function timing(when: string): string {
  return { deferrable: 'deferrable', deferred: 'deferrable initially deferred' }[when] ?? '';
}

function indexes(table: Table): string[] {
  if (!['unique index', 'replica identity'].includes(table.keyKind)) return [];
  const index = quote(`key of ${table.name}`.slice(0, 40));
  const create = `create unique index ${index} on ${quote(table.name)} (${list(table.key.map(({ name }) => name))});`;
  const identity = `alter table ${quote(table.name)} replica identity using index ${index};`;
  return table.keyKind === 'replica identity' ? [create, identity] : [create];
}

/** Names and bounds of the partitions, the sub-partitioned one before its own. */
export function partitionsOf(
  table: Table,
  scheme: Partitioning,
): { name: string; of: string; bound: string }[] {
  const part = (n: number | string, bound: string, of = table.name) => ({
    name: `${table.name.slice(0, 50)}_${n}`,
    of,
    bound,
  });
  const others = part('default', 'default');
  switch (scheme) {
    case 'none':
      return [];
    case 'list':
      return [part(1, 'for values in (-4, -3, -2, -1, 0)'), part(2, 'for values in (1, 2, 3, 4, 5)'), others];
    case 'range':
      return [part(1, 'for values from (minvalue) to (0)'), part(2, 'for values from (0) to (6)'), others];
    case 'hash':
      return [0, 1, 2].map((n) => part(n, `for values with (modulus 3, remainder ${n})`));
    case 'two levels': {
      const half = part('half', 'for values from (minvalue) to (4) partition by list (k)');
      return [
        half,
        part('low', 'for values in (-4, -3, -2, -1, 0, 1)', half.name),
        part('rest', 'default', half.name),
        others,
      ];
    }
  }
}

function partitions(table: Table, scheme: Partitioning): string[] {
  return partitionsOf(table, scheme).map(
    ({ name, of, bound }) => `create table ${quote(name)} partition of ${quote(of)} ${bound};`,
  );
}

function createTrigger(table: Table): string {
  const on = `on ${quote(table.name)} for each row execute function`;
  switch (table.trigger) {
    case 'none':
      return '';
    case 'stamp':
      return `create trigger stamp before insert or update ${on} stamp();`;
    case 'audit':
      return `create trigger audit after insert or update or delete ${on} audit();`;
    case 'moves the key':
      return `create trigger move_key before insert or update ${on} move_key();`;
  }
}

function foreignKeys(tables: readonly Table[], table: Table): string[] {
  return table.references.map((reference) => {
    const parent = tables[reference.parent] as Table;
    return `alter table ${quote(table.name)} add constraint ${reference.name}
      foreign key (${list(reference.columns)}) references ${quote(parent.name)} (${list(parent.key.map(({ name }) => name))})
      on delete ${reference.onDelete} on update ${reference.onUpdate} ${timing(reference.when)};`;
  });
}

/** The columns whose values must be the same on both sides. */
export function comparedColumns(tables: readonly Table[], table: Table): string[] {
  return [
    ...table.key.map(({ name }) => name),
    ...table.values.map(({ name }) => name),
    NUMBER,
    ...referenceColumns(tables, table).map(({ name }) => name),
    ...(table.unique === null ? [] : ['slot']),
    ...(table.exclusion === null ? [] : ['during']),
    ...(table.trigger === 'stamp' ? ['stamp'] : []),
    ...(table.generated && !table.otherExpression ? ['gen'] : []),
  ];
}
