/** One connection of an application on one node: random transactions over few keys, each write noted with what it replaced. */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import type { Ledger, Write } from './ledger.ts';
import { keyOf, TABLES, type Table } from './tables.ts';

/** What an application may be told by its server: a unique value that is taken, a deadlock with another of its own. */
const REFUSED = /^(23505|40P01)$/;

export interface WriterOptions {
  readonly client: pg.Client;
  readonly node: string;
  /** Unique among the writers of a round. */
  readonly name: string;
  readonly keys: number;
  readonly random: () => number;
  readonly ledger: Ledger;
}

type Row = { readonly mark: string; readonly version: number };

export class Writer {
  readonly #options: WriterOptions;
  #count = 0;
  /** Transactions that were committed. */
  committed = 0;

  constructor(options: WriterOptions) {
    this.#options = options;
  }

  async write(transactions: number): Promise<void> {
    for (let n = 0; n < transactions; n++) {
      await this.#transaction();
      await sleep(this.#roll(60));
    }
  }

  async end(): Promise<void> {
    await this.#options.client.end();
  }

  async #transaction(): Promise<void> {
    const { client, ledger } = this.#options;
    const writes: Write[] = [];
    const length = 1 + this.#roll(3);
    try {
      await client.query('begin');
      for (let n = 0; n < length; n++) {
        writes.push(...(await this.#statement()));
        if (this.#roll(8) === 0) await sleep(this.#roll(150));
      }
      const keep = this.#roll(10) > 0;
      await client.query(keep ? 'commit' : 'rollback');
      if (!keep) return;
      ledger.add(writes);
      this.committed += 1;
    } catch (error) {
      if (!REFUSED.test((error as pg.DatabaseError).code ?? '')) throw error;
      await client.query('rollback');
    }
  }

  async #statement(): Promise<Write[]> {
    const table = TABLES[this.#roll(TABLES.length)] as Table;
    if (this.#roll(50) === 0) return this.#truncate(table);
    const key = keyOf(table, this.#roll(this.#options.keys));
    const row = await this.#lock(table, key);
    if (row === undefined) return this.#insert(table, key);
    const dice = this.#roll(10);
    if (dice < 2) return this.#delete(table, key, row);
    if (dice < 3) return this.#changeKey(table, key, row);
    return this.#update(table, key, row);
  }

  async #lock(table: Table, key: readonly unknown[]): Promise<Row | undefined> {
    const { rows } = await this.#options.client.query<Row>(
      `select mark, version from ${table.name} where ${whereKey(table)} for update`,
      [...key],
    );
    return rows[0];
  }

  async #insert(table: Table, key: readonly unknown[]): Promise<Write[]> {
    const mark = this.#mark();
    const values: Record<string, unknown> = { mark, version: this.#roll(5), ...this.#values(table) };
    table.key.forEach((column, i) => {
      values[column] = key[i];
    });
    const columns = Object.keys(values);
    const places = columns.map((_, i) => `$${i + 1}`);
    // Somebody else may have inserted it since we looked.
    const { rowCount } = await this.#options.client.query(
      `insert into ${table.name} (${columns.join(', ')}) values (${places.join(', ')}) on conflict do nothing`,
      Object.values(values),
    );
    return rowCount === 0 ? [] : [this.#wrote(table, key, { mark, replaced: null })];
  }

  async #update(table: Table, key: readonly unknown[], { mark: replaced, version }: Row): Promise<Write[]> {
    const mark = this.#mark();
    const values = { mark, version: this.#after(version), ...this.#values(table) };
    await this.#set(table, key, values);
    return [this.#wrote(table, key, { mark, replaced })];
  }

  async #delete(table: Table, key: readonly unknown[], { mark: replaced }: Row): Promise<Write[]> {
    await this.#options.client.query(`delete from ${table.name} where ${whereKey(table)}`, [...key]);
    return [this.#wrote(table, key, { mark: this.#mark(), replaced, deletes: true })];
  }

  /** The deletion of every row that is there. */
  async #truncate(table: Table): Promise<Write[]> {
    const { client } = this.#options;
    await client.query(`lock table ${table.name} in access exclusive mode`);
    const { rows } = await client.query<Record<string, unknown> & Row>(
      `select ${table.key.join(', ')}, mark from ${table.name}`,
    );
    await client.query(`truncate ${table.name}`);
    return rows.map(({ mark: replaced, ...row }) => {
      const key = table.key.map((column) => row[column]);
      return this.#wrote(table, key, { mark: this.#mark(), replaced, deletes: true });
    });
  }

  /** To the keys of the rows it is a row less and a new one. */
  async #changeKey(
    table: Table,
    key: readonly unknown[],
    { mark: replaced, version }: Row,
  ): Promise<Write[]> {
    const next = keyOf(table, this.#roll(this.#options.keys));
    if (String(next) === String(key)) return [];
    const mark = this.#mark();
    const values: Record<string, unknown> = { mark, version: this.#after(version) };
    table.key.forEach((column, i) => {
      values[column] = next[i];
    });
    await this.#set(table, key, values);
    return [
      this.#wrote(table, key, { mark: this.#mark(), replaced, deletes: true }),
      this.#wrote(table, next, { mark, replaced: null }),
    ];
  }

  async #set(table: Table, key: readonly unknown[], values: Record<string, unknown>): Promise<void> {
    const assignments = Object.keys(values).map((column, i) => `${column} = $${table.key.length + i + 1}`);
    await this.#options.client.query(
      `update ${table.name} set ${assignments.join(', ')} where ${whereKey(table)}`,
      [...key, ...Object.values(values)],
    );
  }

  #values(table: Table): Record<string, unknown> {
    if (table.name === 'stock') return { amount: this.#roll(100) };
    if (table.name === 'place') return { note: this.#roll(2) === 0 ? null : 'x'.repeat(this.#roll(40)) };
    const taken = this.#options.keys * 2;
    return {
      ...(this.#roll(2) === 0 ? { email: this.#roll(4) === 0 ? null : `e${this.#roll(taken)}` } : {}),
      ...(this.#roll(3) === 0 ? { phone: this.#roll(taken) } : {}),
    };
  }

  /** Not always a greater one: what decides by it must be right for a row that first wins and then no more. */
  #after(version: number): number {
    return this.#roll(3) === 0 ? this.#roll(version + 1) : version + 1;
  }

  #wrote(
    table: Table,
    key: readonly unknown[],
    write: { readonly mark: string; readonly replaced: string | null; readonly deletes?: boolean },
  ): Write {
    const { node, ledger } = this.#options;
    return { table: table.name, key: key.join(','), node, deletes: false, turn: ledger.turn(), ...write };
  }

  #mark(): string {
    this.#count += 1;
    return `${this.#options.name}.${this.#count}`;
  }

  #roll(below: number): number {
    return Math.floor(this.#options.random() * below);
  }
}

function whereKey({ key }: Table): string {
  return key.map((column, i) => `${column} = $${i + 1}`).join(' and ');
}
