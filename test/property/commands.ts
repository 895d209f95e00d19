/**
 * Random commands of an application: each names a connection and what it does next. A command is plain numbers,
 * and its statements follow from them and the schema alone, so that a shrunk list means the same as before.
 */
import fc from 'fast-check';
import { randomFrom } from '../support/random.ts';
import type { Table } from './schema.ts';
import { type Dice, type Statement, statementsFor, type Write } from './writes.ts';

export const CONNECTIONS = 4;

const WRITES: readonly (readonly [Write, number])[] = [
  ['insert', 12],
  ['insert many', 5],
  ['insert a lot', 1],
  ['upsert', 5],
  ['update', 10],
  ['update all', 2],
  ['update nothing', 1],
  ['change a key', 7],
  ['shift all keys', 2],
  ['negate all keys', 2],
  ['swap keys', 4],
  ['swap slots', 3],
  ['shift slots', 3],
  ['delete', 7],
  ['delete all', 1],
  ['delete and insert again', 3],
  ['truncate', 2],
  ['merge', 5],
  ['copy', 3],
  ['move by a writable CTE', 3],
  ['refer elsewhere', 4],
];

const CONTROL = [
  ['begin', 14],
  ['commit', 12],
  ['rollback', 2],
  ['savepoint', 5],
  ['rollback to savepoint', 3],
  ['prepare', 3],
  ['commit prepared', 4],
  ['rollback prepared', 1],
] as const;

export type Control = (typeof CONTROL)[number][0];

export interface Command {
  readonly connection: number;
  readonly does: Control | Write;
  readonly table: number;
  readonly dice: number;
}

const weighted = [...WRITES, ...CONTROL].map(([value, weight]) => ({
  weight,
  arbitrary: fc.constant<Control | Write>(value),
}));

export const commands: fc.Arbitrary<Command> = fc.record({
  connection: fc.nat(CONNECTIONS - 1),
  does: fc.oneof(...weighted),
  table: fc.nat(),
  dice: fc.nat(),
});

export function isControl(does: Control | Write): does is Control {
  return CONTROL.some(([name]) => name === does);
}

export function writesOf(command: Command, tables: readonly Table[]): Statement[] {
  return statementsFor(command.does as Write, tables, command.table % tables.length, diceOf(command));
}

export function diceOf(command: Command): Dice {
  const random = randomFrom(command.dice);
  return { roll: (sides) => Math.floor(random() * sides) };
}
