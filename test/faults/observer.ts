/**
 * Somebody who looks at the target all along, each time in one snapshot, and knows the books: never half of a transaction
 * of the source, never a version that goes back. Tables that are not in step are not looked at.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { RULES } from './ledger.ts';

const PAUSE_MS = 50;

export class Observer {
  readonly #url: string;
  readonly #versions = new Map<number, number>();
  /** How often it looked, and saw tables in step. */
  looks = 0;
  /** What it saw that cannot have been, in words. */
  readonly wrong = new Set<string>();

  constructor(url: string) {
    this.#url = url;
  }

  async run(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      const client = new pg.Client({ connectionString: this.#url });
      client.on('error', () => undefined);
      try {
        await client.connect();
        while (!stop.aborted) {
          await this.#look(client);
          await sleep(PAUSE_MS);
        }
      } catch {
        // The server is away, or whom it waited for waited for it.
        await sleep(PAUSE_MS);
      }
      await client.end().catch(() => undefined);
    }
  }

  async #look(client: pg.Client): Promise<void> {
    await client.query('begin isolation level repeatable read read only');
    const { rows: there } = await client.query<{ name: string }>(
      `select quote_ident(relname) as name from pg_class
        where relnamespace = 'public'::regnamespace and relkind = 'r' and to_regclass('ibex.target_table') is not null`,
    );
    await client.query('rollback');
    if (there.length === 0) return;
    await client.query('begin isolation level repeatable read read only');
    // Before the snapshot: to one that is older than a TRUNCATE the table would read empty.
    await client.query(`lock table ${there.map(({ name }) => name).join(', ')} in access share mode`);
    const { rows } = await client.query<{ name: string }>(
      `select table_name as name from ibex.target_table where state = 'streaming'`,
    );
    const inStep = new Set(rows.map(({ name }) => name));
    for (const { tables, wrong } of RULES) {
      if (!tables.every((table) => inStep.has(table))) continue;
      for (const row of (await client.query({ text: wrong, rowMode: 'array' })).rows)
        this.wrong.add(String(row[0]));
    }
    if (inStep.has('account')) await this.#lookAtVersions(client);
    await client.query('rollback');
    if (inStep.size > 0) this.looks += 1;
  }

  async #lookAtVersions(client: pg.Client): Promise<void> {
    const { rows } = await client.query<{ id: number; version: number }>('select id, version from account');
    for (const { id, version } of rows) {
      const seen = this.#versions.get(id) ?? 0;
      if (version < seen) this.wrong.add(`account ${id} went back from version ${seen} to ${version}`);
      this.#versions.set(id, version);
    }
  }
}
