/**
 * The peer: PostgreSQL's own logical replication, as its manual sets it up, by a superuser. Its defaults are left
 * alone; among them is `synchronous_commit = off` for the worker that applies, which is in its favour.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import type { Databases, Login } from './pair.ts';

const PATIENCE_MS = 120_000;

export class NativeReplication {
  readonly #source: pg.Client;
  readonly #target: pg.Client;
  readonly #name: string;

  private constructor(databases: Databases) {
    this.#source = databases.source.superuser;
    this.#target = databases.target.superuser;
    this.#name = databases.name;
  }

  /** Publishes the tables, subscribes, and waits until they are copied and in step. */
  static async create(
    databases: Databases,
    tables: readonly string[],
    patienceMs = PATIENCE_MS,
  ): Promise<NativeReplication> {
    const native = new NativeReplication(databases);
    try {
      await native.#begin(connectionString(databases.source.superuserLogin), tables, patienceMs);
    } catch (error) {
      // No database that a subscription is left in can be dropped.
      await native.drop().catch(() => undefined);
      throw error;
    }
    return native;
  }

  async #begin(source: string, tables: readonly string[], patienceMs: number): Promise<void> {
    const name = this.#name;
    await this.#source.query(`create publication ${name} for table ${tables.join(', ')}`);
    await this.#target.query(
      `create subscription ${name} connection ${pg.escapeLiteral(source)}
       publication ${name} with (copy_data = true)`,
    );
    await this.#until(
      `select count(*) > 0 and bool_and(r.srsubstate = 'r') as ok
         from pg_subscription_rel r join pg_subscription s on s.oid = r.srsubid where s.subname = $1`,
      patienceMs,
    );
  }

  /** Stops applying; the slot on the source keeps what is to come. */
  async disable(): Promise<void> {
    await this.#target.query(`alter subscription ${this.#name} disable`);
    await this.#until('select count(pid) = 0 as ok from pg_stat_subscription where subname = $1');
  }

  /** Goes on applying. */
  async enable(): Promise<void> {
    await this.#target.query(`alter subscription ${this.#name} enable`);
  }

  /** Removes the subscription with its slot, and the publication. */
  async drop(): Promise<void> {
    await this.#target.query(`drop subscription if exists ${this.#name}`);
    await this.#source.query(`drop publication if exists ${this.#name}`);
  }

  async #until(question: string, patienceMs = PATIENCE_MS): Promise<void> {
    const deadline = Date.now() + patienceMs;
    for (;;) {
      const { rows } = await this.#target.query<{ ok: boolean }>(question, [this.#name]);
      if (rows[0]?.ok) return;
      if (Date.now() > deadline)
        throw new Error(`native logical replication did not get as far as: ${question}`);
      await sleep(50);
    }
  }
}

/** As libpq reads it: what is empty is left out, what is not may hold spaces. */
function connectionString({ host, port, user, password, database }: Login): string {
  return Object.entries({ host, port, user, password, dbname: database })
    .filter(([, value]) => value !== '')
    .map(([name, value]) => `${name}='${String(value).replace(/[\\']/g, '\\$&')}'`)
    .join(' ');
}
