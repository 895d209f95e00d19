/** The statements of one random write to a table of a random schema. */
import { partitionsOf, quote } from './ddl.ts';
import { type Column, referenceColumns, type Table } from './schema.ts';
import { INTEGER } from './types.ts';

export type Write =
  | 'insert'
  | 'insert many'
  | 'insert a lot'
  | 'upsert'
  | 'update'
  | 'update all'
  | 'update nothing'
  | 'change a key'
  | 'shift all keys'
  | 'negate all keys'
  | 'swap keys'
  | 'swap slots'
  | 'shift slots'
  | 'delete'
  | 'delete all'
  | 'delete and insert again'
  | 'truncate'
  | 'merge'
  | 'copy'
  | 'move by a writable CTE'
  | 'refer elsewhere';

export interface Dice {
  /** A whole number below `sides`. */
  roll(sides: number): number;
}

export interface Statement {
  readonly sql: string;
  /** What a COPY FROM STDIN is sent. */
  readonly rows?: string;
  /** Keeps readers out until its transaction ends. */
  readonly locksOut?: boolean;
}

interface Scene {
  readonly tables: readonly Table[];
  readonly table: Table;
  readonly dice: Dice;
}

export function statementsFor(
  write: Write,
  tables: readonly Table[],
  index: number,
  dice: Dice,
): Statement[] {
  const scene = { tables, table: tables[index] as Table, dice };
  return MAKERS[write](scene).map((made) => (typeof made === 'string' ? { sql: made } : made));
}

const MAKERS: Record<Write, (scene: Scene) => (string | Statement)[]> = {
  insert: (scene) => [insert(scene, 1)],
  'insert many': (scene) => [insert(scene, 2 + scene.dice.roll(6))],
  'insert a lot': insertALot,
  upsert,
  update: (scene) => [`update ${from(scene)} set ${change(scene)} where ${some(scene)}`],
  'update all': (scene) => [`update ${from(scene)} set ${change(scene)}`],
  'update nothing': (scene) => [`update ${from(scene)} set num = num where false`],
  'change a key': changeKey,
  'shift all keys': (scene) => arithmetic(scene, '+ 1'),
  'negate all keys': (scene) => arithmetic(scene, '* -1'),
  'swap keys': swapKeys,
  'swap slots': (scene) => swapSlots(scene),
  'shift slots': (scene) =>
    scene.table.unique === null ? [] : [`update ${root(scene)} set slot = slot + 1`],
  delete: (scene) => [`delete from ${from(scene)} where ${some(scene)}`],
  'delete all': (scene) => [`delete from ${from(scene)}`],
  'delete and insert again': (scene) => [`delete from ${root(scene)} where ${some(scene)}`, insert(scene, 2)],
  truncate,
  merge,
  copy,
  'move by a writable CTE': moveByCte,
  'refer elsewhere': referElsewhere,
};

/** The table, or, of a partitioned one, at times a partition. */
function from({ table, dice }: Scene): string {
  const parts = partitionsOf(table, table.partitioning);
  const part = dice.roll(4) === 0 ? parts[dice.roll(parts.length)] : undefined;
  return quote(part?.name ?? table.name);
}

function root({ table }: Scene): string {
  return quote(table.name);
}

function value({ dice }: Scene, column: Column): string {
  if (!column.notNull && dice.roll(5) === 0) return 'null';
  return column.type.pool[dice.roll(column.type.pool.length)] as string;
}

/** The value as its own type, for places where PostgreSQL takes an untyped literal for text. */
function typed(scene: Scene, column: Column): string {
  return `${value(scene, column)}::${column.type.sql.replace(/ collate .*/, '')}`;
}

/** Columns that a write may set, the generated key excepted. */
function writable({ tables, table }: Scene): Column[] {
  const key = table.keyKind.startsWith('identity') ? table.key.slice(1) : table.key;
  return [...key, ...plainColumns(table), ...referenceColumns(tables, table)];
}

function plainColumns(table: Table): Column[] {
  return [
    ...table.values,
    { name: 'num', type: INTEGER, notNull: false },
    ...(table.unique === null ? [] : [{ name: 'slot', type: INTEGER, notNull: false }]),
    ...(table.exclusion === null ? [] : [{ name: 'during', type: RANGE, notNull: false }]),
  ];
}

const RANGE = {
  sql: 'int4range',
  pool: Array.from({ length: 12 }, (_, i) => `'[${i},${i + 1})'`),
  keys: true,
};

/** References are null or those of a row that is there: others would mostly be refused. */
function rowOf(scene: Scene, first?: string): { columns: string; values: string; joins: string } {
  const { tables, table, dice } = scene;
  const plain = writable({ ...scene, table: { ...table, references: [] } });
  const values = plain.map((column, i) => (i === 0 && first !== undefined ? first : typed(scene, column)));
  const joins = table.references.map((reference, i) => parentRow(tables, reference.parent, `p${i}`, dice));
  const referring = table.references.flatMap((reference, i) =>
    (tables[reference.parent] as Table).key.map((column, part) => ({
      name: reference.columns[part] as string,
      value: `p${i}.${quote(column.name)}`,
    })),
  );
  return {
    columns: [...plain, ...referring].map(({ name }) => quote(name)).join(', '),
    values: [...values, ...referring.map((one) => one.value)].join(', '),
    joins: joins.join(' '),
  };
}

function parentRow(tables: readonly Table[], parent: number, alias: string, dice: Dice): string {
  const table = tables[parent] as Table;
  const order = table.key.map(({ name }) => quote(name)).join(', ');
  const none = dice.roll(4) === 0 ? 'where false' : '';
  return `left join (select * from ${quote(table.name)} ${none} order by ${order} limit 1 offset ${dice.roll(6)}) ${alias} on true`;
}

function insert(scene: Scene, rows: number): string {
  const made = Array.from({ length: rows }, () => rowOf(scene));
  const selects = made.map(({ values, joins }) => `(select ${values} from (select 1) one ${joins})`);
  return `insert into ${root(scene)} (${made[0]?.columns}) ${selects.join(' union all ')}`;
}

/** Enough rows for several chunks of a backfill and a batch of some size. */
function insertALot(scene: Scene): string[] {
  const { key, keyKind, unique, exclusion } = scene.table;
  const own = keyKind.startsWith('identity');
  if (key[0]?.type.shifts !== true || unique !== null || exclusion !== null) return [];
  const { columns, values, joins } = rowOf(scene, own ? undefined : `i + ${100 + scene.dice.roll(500)}`);
  return [
    `insert into ${root(scene)} (${columns}) select ${values} from generate_series(1, 300) i ${joins} on conflict do nothing`,
  ];
}

function upsert(scene: Scene): string[] {
  const { table, dice } = scene;
  if (table.keyKind === 'none' || table.keyKind === 'deferrable' || dice.roll(3) === 0)
    return [`${insert(scene, 2)} on conflict do nothing`];
  const key = table.key.map(({ name }) => quote(name)).join(', ');
  const action = dice.roll(4) === 0 ? 'nothing' : `update set ${change(scene)}`;
  return [`${insert(scene, 1)} on conflict (${key}) do ${action}`];
}

/** New values for one or two columns that are not of the key. */
function change(scene: Scene): string {
  const columns = plainColumns(scene.table);
  const chosen = new Set([0, 1].map(() => columns[scene.dice.roll(columns.length)] as Column));
  return [...chosen].map((column) => `${quote(column.name)} = ${typed(scene, column)}`).join(', ');
}

/** A condition that picks few rows. */
function some(scene: Scene): string {
  const { table, dice } = scene;
  const [key] = table.key;
  if (key === undefined || dice.roll(4) === 0) return `num = ${value(scene, NUM)}`;
  if (table.keyKind.startsWith('identity')) return `id % 7 = ${dice.roll(7)}`;
  return `${quote(key.name)} = ${typed(scene, key)}`;
}

const NUM: Column = { name: 'num', type: INTEGER, notNull: true };

function changeKey(scene: Scene): string[] {
  const { table, dice } = scene;
  const [key] = table.key;
  if (key === undefined) return [];
  const column = (dice.roll(2) === 0 && table.key[1]) || key;
  const identity = column.name === 'id';
  if (identity && table.keyKind === 'identity always') return [];
  const set = identity
    ? `id = id + ${1000 * (1 + dice.roll(9))}`
    : `${quote(column.name)} = ${typed(scene, column)}`;
  return [`update ${from(scene)} set ${set} where ${some(scene)}`];
}

function arithmetic(scene: Scene, by: string): string[] {
  const [key] = scene.table.key;
  if (key?.type.shifts !== true || scene.table.keyKind === 'identity always') return [];
  const name = quote(key.name);
  // Without a deferrable key the whole column moves in two steps that never meet.
  if (scene.table.keyKind === 'deferrable') return [`update ${root(scene)} set ${name} = ${name} ${by}`];
  return [
    `update ${root(scene)} set ${name} = ${name} + 5000`,
    `update ${root(scene)} set ${name} = (${name} - 5000) ${by}`,
  ];
}

/** Two rows exchange their keys, by way of a third value. */
function swapKeys(scene: Scene): string[] {
  const { table, dice } = scene;
  const [key] = table.key;
  if (key === undefined || table.keyKind.startsWith('identity')) return [];
  const at = dice.roll(key.type.pool.length);
  const [a, b] = [at, at + 1].map((i) => key.type.pool[i % key.type.pool.length] as string);
  const other = key.type.shifts === true ? '777' : (key.type.pool.at(-1) as string);
  const type = key.type.sql.replace(/ collate .*/, '');
  const move = (was: string | undefined, is: string | undefined) =>
    `update ${root(scene)} set ${quote(key.name)} = ${is}::${type} where ${quote(key.name)} = ${was}::${type}`;
  return [move(a, other), move(b, a), move(other, b)];
}

function swapSlots(scene: Scene): string[] {
  const { table, dice } = scene;
  if (table.unique === null) return [];
  const [a, b] = [dice.roll(6), dice.roll(6)];
  const swap = `case slot when ${a} then ${b} else ${a} end`;
  if (table.unique !== 'immediate')
    return [`update ${root(scene)} set slot = ${swap} where slot in (${a}, ${b})`];
  return [
    `update ${root(scene)} set slot = slot + 1000 where slot in (${a}, ${b})`,
    `update ${root(scene)} set slot = case slot when ${a + 1000} then ${b} else ${a} end where slot >= 1000`,
  ];
}

function truncate(scene: Scene): Statement[] {
  const { tables, dice } = scene;
  const other = quote((tables[dice.roll(tables.length)] as Table).name);
  const forms = [
    `truncate ${from(scene)}`,
    `truncate ${root(scene)} cascade`,
    `truncate ${root(scene)} restart identity`,
    `truncate ${root(scene)}, ${other} cascade`,
  ];
  const then = dice.roll(2) === 0 ? [{ sql: insert(scene, 3) }] : [];
  return [{ sql: forms[dice.roll(forms.length)] as string, locksOut: true }, ...then];
}

function merge(scene: Scene): string[] {
  const { table, dice } = scene;
  const [key] = table.key;
  const matched = [
    `update set ${change(scene)}`,
    'delete',
    ...(key !== undefined && key.name !== 'id'
      ? [`update set ${quote(key.name)} = ${typed(scene, key)}`]
      : []),
  ];
  const on = key === undefined || key.name === 'id' ? 't.num' : `t.${quote(key.name)}`;
  const column = on === 't.num' ? NUM : (key as Column);
  const names = plainColumns(table).concat(key === undefined || key.name === 'id' ? [] : table.key);
  const missing = `insert (${names.map(({ name }) => quote(name)).join(', ')}) values (${names
    .map((one) => (one.name === key?.name ? 'v.k' : typed(scene, one)))
    .join(', ')})`;
  const values = [0, 1, 2].map(() => `(${typed(scene, column)})`).join(', ');
  return [
    `merge into ${root(scene)} t using (select distinct k from (values ${values}) w(k)) v on ${on} = v.k
      when matched then ${matched[dice.roll(matched.length)]}
      when not matched then ${dice.roll(2) === 0 ? 'do nothing' : missing}`,
  ];
}

function copy(scene: Scene): Statement[] {
  const { table } = scene;
  const names = [
    ...(table.keyKind.startsWith('identity') ? table.key.slice(1) : table.key),
    ...plainColumns(table),
  ];
  const row = () => names.map((column) => copied(value(scene, column))).join('\t');
  const rows = Array.from({ length: 1 + scene.dice.roll(4) }, () => `${row()}\n`).join('');
  return [
    { sql: `copy ${root(scene)} (${names.map(({ name }) => quote(name)).join(', ')}) from stdin`, rows },
  ];
}

/** A literal of the pools in the text form of COPY. */
function copied(literal: string): string {
  if (literal === 'null') return '\\N';
  return literal.replace(/^B?'(.*)'$/s, '$1').replaceAll('\\', '\\\\');
}

/** Deletes rows and inserts them again, changed, in one statement. */
function moveByCte(scene: Scene): string[] {
  const { table } = scene;
  const columns = writable(scene).map(({ name }) => quote(name));
  const values = columns.map((name) => (name === 'num' || name === '"num"' ? 'num + 1' : name));
  const returning = table.keyKind.startsWith('identity') ? '*' : columns.join(', ');
  return [
    `with gone as (delete from ${root(scene)} where ${some(scene)} returning ${returning})
     insert into ${root(scene)} (${columns.join(', ')}) select ${values.join(', ')} from gone on conflict do nothing`,
  ];
}

/** Rows get another parent, or none. */
function referElsewhere(scene: Scene): string[] {
  const { tables, table, dice } = scene;
  const reference = table.references[dice.roll(table.references.length)];
  if (reference === undefined) return [];
  const parent = tables[reference.parent] as Table;
  const set = parent.key.map(
    ({ name }, part) => `${quote(reference.columns[part] as string)} = p.${quote(name)}`,
  );
  return [
    `update ${root(scene)} t set ${set.join(', ')} from (select 1) one ${parentRow(tables, reference.parent, 'p', dice)} where ${some(
      { ...scene, table },
    ).replace(/^/, 't.')}`,
  ];
}
