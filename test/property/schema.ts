/**
 * Random schemas: what the tables of one seed look like on the source, and how the target's differ from them. Plain
 * data that fast-check draws and shrinks; `ddl.ts` turns it into SQL.
 */
import fc from 'fast-check';
import { type ColumnType, INTEGER, KEY_TYPES, TYPES } from './types.ts';

const KEY_KINDS = [
  'primary',
  'composite',
  'none',
  'unique index',
  'replica identity',
  'deferrable',
  'identity always',
  'identity default',
] as const;
export const PARTITIONINGS = ['none', 'list', 'range', 'hash', 'two levels'] as const;
export const ACTIONS = ['no action', 'restrict', 'cascade', 'set null', 'set default'] as const;
const WHEN = ['immediate', 'deferrable', 'deferred'] as const;

export type Partitioning = (typeof PARTITIONINGS)[number];

/** How columns, keys and constraints of one table were drawn. */
interface Draw {
  readonly keyKind: (typeof KEY_KINDS)[number];
  readonly keyTypes: readonly [ColumnType, ColumnType];
  readonly values: readonly { readonly type: ColumnType; readonly notNull: boolean }[];
  readonly unique: (typeof WHEN)[number] | null;
  readonly exclusion: (typeof WHEN)[number] | null;
  readonly generated: boolean;
  readonly partitioning: Partitioning;
  readonly targetPartitioning: Partitioning;
  readonly references: readonly Reference[];
  readonly trigger: 'none' | 'stamp' | 'audit' | 'moves the key';
  readonly reordered: boolean;
  readonly extra: number;
  readonly otherExpression: boolean;
}

interface Reference {
  readonly parent: number;
  readonly onDelete: (typeof ACTIONS)[number];
  readonly onUpdate: (typeof ACTIONS)[number];
  readonly when: (typeof WHEN)[number];
}

export interface Column {
  readonly name: string;
  readonly type: ColumnType;
  readonly notNull: boolean;
}

export interface ForeignKey extends Reference {
  readonly name: string;
  readonly columns: readonly string[];
}

export interface Table extends Omit<Draw, 'values' | 'references'> {
  readonly name: string;
  /** Columns of the key, first in the table; empty without a key. */
  readonly key: readonly Column[];
  readonly values: readonly Column[];
  readonly references: readonly ForeignKey[];
}

const NAMES = ['plain', 'Two Words', 'select', 'ünï.cödé', 'a"b', 'x'.repeat(63)];
const COLUMN_NAMES = ['v', 'Value', 'op', 'xid', 'order', 'it"s', 'k1', 'n', 's', 'present'];

const draw: fc.Arbitrary<Draw> = fc.record({
  keyKind: fc.constantFrom(...KEY_KINDS),
  keyTypes: fc.tuple(
    fc.oneof(fc.constant(INTEGER), fc.constantFrom(...KEY_TYPES)),
    fc.constantFrom(...KEY_TYPES),
  ),
  values: fc.array(fc.record({ type: fc.constantFrom(...TYPES), notNull: fc.boolean() }), {
    minLength: 1,
    maxLength: 5,
  }),
  unique: fc.option(fc.constantFrom(...WHEN), { freq: 2 }),
  exclusion: fc.option(fc.constantFrom(...WHEN), { freq: 1 }),
  generated: fc.boolean(),
  partitioning: fc.oneof(
    { weight: 3, arbitrary: fc.constant('none' as const) },
    fc.constantFrom(...PARTITIONINGS),
  ),
  targetPartitioning: fc.constantFrom(...PARTITIONINGS),
  references: fc.array(
    fc.record({
      parent: fc.nat(),
      onDelete: fc.constantFrom(...ACTIONS),
      onUpdate: fc.constantFrom(...ACTIONS),
      when: fc.constantFrom(...WHEN),
    }),
    { maxLength: 2 },
  ),
  trigger: fc.constantFrom('none', 'none', 'stamp', 'audit', 'moves the key'),
  reordered: fc.boolean(),
  extra: fc.nat(1),
  otherExpression: fc.boolean(),
});

export const schemas: fc.Arbitrary<readonly Table[]> = fc
  .array(draw, { minLength: 2, maxLength: 6, size: 'max' })
  .map((draws) => resolveReferences(draws.map(makeTable), draws));

function makeTable(drawn: Draw, index: number): Table {
  const partitioned = drawn.partitioning !== 'none';
  // A partitioned table is carried by a key that holds its partition's columns, and has its identity elsewhere.
  const keyKind =
    partitioned && !['primary', 'composite', 'deferrable'].includes(drawn.keyKind)
      ? 'composite'
      : drawn.keyKind;
  const identity = keyKind.startsWith('identity');
  const first = partitioned || identity ? INTEGER : drawn.keyTypes[0];
  const key = [
    { name: identity ? 'id' : 'k', type: first, notNull: true },
    ...(keyKind === 'composite' ? [{ name: 'Key 2', type: drawn.keyTypes[1], notNull: true }] : []),
  ];
  const { trigger } = drawn;
  return {
    ...drawn,
    keyKind,
    name: NAMES[index] as string,
    key: keyKind === 'none' ? [] : key,
    values: drawn.values.map((column, i) => ({ ...column, name: COLUMN_NAMES[(index + i) % 10] as string })),
    // Constraints beside the key would have to hold the partition's columns.
    unique: partitioned ? null : drawn.unique,
    exclusion: partitioned ? null : drawn.exclusion,
    targetPartitioning:
      partitioned || (!identity && first === INTEGER && isPrimary(keyKind) && plain(drawn))
        ? drawn.targetPartitioning
        : 'none',
    trigger:
      trigger === 'moves the key' && (first !== INTEGER || identity || keyKind === 'none')
        ? 'stamp'
        : trigger,
    references: [],
  };
}

function isPrimary(kind: string): boolean {
  return kind === 'primary' || kind === 'composite';
}

/** Without constraints that a partitioned table cannot have. */
function plain(drawn: Draw): boolean {
  return drawn.unique === null && drawn.exclusion === null;
}

/** Foreign keys go to tables whose key can be referred to: to others, to themselves, and round in cycles. */
function resolveReferences(tables: readonly Table[], draws: readonly Draw[]): Table[] {
  const parents = tables.filter((table) => table.key.length > 0 && table.keyKind !== 'deferrable');
  return tables.map((table, index) => {
    if (parents.length === 0) return table;
    const references = (draws[index] as Draw).references.map((reference, i) => {
      const parent = parents[reference.parent % parents.length] as Table;
      const columns = parent.key.map((_, part) => `ref_${i}_${part}`);
      return { ...reference, parent: tables.indexOf(parent), name: `fk_${index}_${i}`, columns };
    });
    return { ...table, references };
  });
}

/** Columns that hold references, with the types of what they refer to. */
export function referenceColumns(tables: readonly Table[], table: Table): Column[] {
  return table.references.flatMap((reference) =>
    (tables[reference.parent] as Table).key.map((column, part) => ({
      name: reference.columns[part] as string,
      type: column.type,
      notNull: false,
    })),
  );
}
