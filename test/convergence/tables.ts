/**
 * The tables of the nodes. Every row says by its `mark` which write made it: no two writes have the same one, so what
 * became of each can be told from the rows and the record alone.
 */
import type { Strategy } from './plan.ts';

export interface Table {
  readonly name: string;
  readonly key: readonly string[];
  /** Columns of other unique keys; null is allowed in them. */
  readonly unique: readonly string[];
}

export const TABLES: readonly Table[] = [
  { name: 'stock', key: ['id'], unique: [] },
  { name: 'person', key: ['id'], unique: ['email', 'phone'] },
  { name: 'place', key: ['shelf', 'n'], unique: [] },
];

export const CREATE = `
  create table stock (id int primary key, mark text not null, version int not null, amount int not null);
  create table person (
    id int primary key, mark text not null, version int not null, email text unique, phone int unique);
  create table place (
    shelf text not null, n int not null, mark text not null, version int not null, note text,
    primary key (shelf, n));`;

/** What a correct function has: the order of its rows does not matter, nor how often it is asked. */
export const CREATE_FUNCTIONS = TABLES.map(
  ({ name }) => `
  create function merge_${name}(a ${name}, b ${name}, meta jsonb) returns ${name}
  language sql immutable as $$
    select case when a is null then b when b is null then a
                when (a.version, a.mark collate "C") > (b.version, b.mark collate "C") then a else b end
  $$;`,
).join('\n');

/** The values of a key by its number. */
export function keyOf(table: Table, number: number): (string | number)[] {
  return table.key.length === 1 ? [number] : [['left', 'right'][number % 2] as string, number >> 1];
}

/** The section `conflicts` of a sync in ibex.yaml. */
export function conflictsOf(strategy: Strategy, nodes: readonly string[]): unknown {
  switch (strategy) {
    case 'priority':
      return { default: { strategy, nodes } };
    case 'column':
      return { default: { strategy, column: 'version' } };
    case 'function': {
      const entry = ({ name }: Table) => [`public.${name}`, { strategy, function: `public.merge_${name}` }];
      return { default: 'newest', tables: Object.fromEntries(TABLES.map(entry)) };
    }
    default:
      return { default: strategy };
  }
}
