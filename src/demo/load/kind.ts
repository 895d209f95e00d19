/** What a transaction of the load is, and what its kinds share. */
import type { ClientBase } from 'pg';

/** What the connections of the load know of each other. */
export interface Memory {
  /** Ids of orders placed lately. */
  readonly orders: string[];
  /** A number never given out before. */
  readonly next: () => number;
}

export interface Kind {
  readonly name: string;
  /** How often, compared with the others. */
  readonly weight: number;
  readonly run: (client: ClientBase, memory: Memory) => Promise<unknown>;
}

/** Customers and products from 1 to here are left to the long transaction, whose locks nobody waits for then. */
export const RESERVED = 50;
const CUSTOMERS = 20_000;
const PRODUCTS = 5_000;

export function between(from: number, to: number): number {
  return from + Math.floor(Math.random() * (to - from + 1));
}

export function productCode(n: number): string {
  return `P${String(n).padStart(5, '0')}`;
}

export const anyCustomer = () => between(RESERVED + 1, CUSTOMERS);
export const anyProduct = () => productCode(between(RESERVED + 1, PRODUCTS));
export const anyWarehouse = () => between(1, 3);

/** Several statements as one transaction. */
export async function transaction(
  client: ClientBase,
  ...statements: [sql: string, values?: unknown[]][]
): Promise<void> {
  await client.query('BEGIN');
  for (const [sql, values] of statements) await client.query(sql, values);
  await client.query('COMMIT');
}
