/** What random statements of an application are made of: tables, columns and partitions that are there, values that fit. */
import type { Column, Relation } from './catalog.ts';
import type { Dice } from './writes.ts';

export interface Scene {
  readonly relations: readonly Relation[];
  /** The table with which the transaction is busy: what a schema change leaves behind meets the writes after it. */
  readonly favourite: number;
  readonly dice: Dice;
}

export interface Step {
  readonly sql: string;
  /** Changes the schema: the target needs it too. */
  readonly ddl: boolean;
  /** PostgreSQL refuses it inside a transaction. */
  readonly alone?: boolean;
}

export function pick<T>({ dice }: Scene, from: readonly T[]): T {
  return from[dice.roll(from.length)] as T;
}

function pickTable(scene: Scene, from: readonly Relation[]): Relation {
  const favourite = scene.dice.roll(3) > 0 ? from.find(({ oid }) => oid === scene.favourite) : undefined;
  return favourite ?? pick(scene, from);
}

/** A name that is probably free. */
export function fresh({ dice }: Scene, prefix: string): string {
  return `${prefix}${dice.roll(1_000_000)}`;
}

export function alone(step: Step | null): Step | null {
  return step === null ? null : { ...step, alone: true };
}

export function onTable(scene: Scene, ddl: boolean, sql: (table: Relation) => string): Step | null {
  if (scene.relations.length === 0) return null;
  const table = pickTable(scene, scene.relations);
  return { sql: sql(table), ddl };
}

export function onColumn(scene: Scene, sql: (table: Relation, column: Column) => string): Step | null {
  const tables = scene.relations.filter((table) => table.columns.length > 0);
  if (tables.length === 0) return null;
  const table = pickTable(scene, tables);
  // Mostly not the key's: without it there is little left to see.
  const others = table.columns.filter((column) => !column.key);
  const column = pick(scene, others.length > 0 && scene.dice.roll(2) > 0 ? others : table.columns);
  return { sql: sql(table, column), ddl: true };
}

export function onPartition(scene: Scene, sql: (partition: Relation) => string): Step | null {
  const partitions = scene.relations.filter((table) => table.partitionOf !== null);
  if (partitions.length === 0) return null;
  const partition = pick(scene, partitions);
  return { sql: sql(partition), ddl: true };
}

export function literal({ dice }: Scene, { type }: { readonly type: string }): string {
  if (/^(int|bigint|smallint|integer|numeric|double)/.test(type)) return String(dice.roll(14) - 3);
  if (/^(text|character varying)/.test(type)) return `'${['', 'a', 'b', '7', 'zz'][dice.roll(5)]}'`;
  if (type === 'boolean') return dice.roll(2) === 0 ? 'true' : 'false';
  if (type.startsWith('timestamp')) return `'2026-01-0${1 + dice.roll(9)} 00:00:00+00'`;
  if (type === 'jsonb') return `'{"a": ${dice.roll(5)}}'`;
  return 'null';
}

export function writable(table: Relation): Column[] {
  return table.columns.filter((column) => !column.generated && column.identity !== 'a');
}
