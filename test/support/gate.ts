/**
 * Stops the copy of a table in the middle of a chunk, for as long as a test wants: a constraint of the target waits for a
 * lock that the test holds, as soon as the row with a certain id arrives.
 */
import type pg from 'pg';
import { waitFor } from './servers.ts';

/** Shared by those who come through. */
export const LOCK = 4711;

export class Gate {
  readonly #target: pg.Client;

  private constructor(target: pg.Client) {
    this.#target = target;
  }

  /** Shuts it for the row whose `id` is this. The client, which must not be inside a transaction, holds the lock. */
  static async shut(target: pg.Client, table: string, id: number): Promise<Gate> {
    await target.query(`
      create or replace function public.gate(i int8) returns bool language plpgsql as
        'begin if i = ${id} then perform pg_advisory_xact_lock_shared(${LOCK}); end if; return true; end';
      alter table ${table} add constraint gate check (public.gate(id))`);
    return Gate.hold(target);
  }

  /** For what takes the lock by itself. */
  static async hold(target: pg.Client): Promise<Gate> {
    await target.query(`select pg_advisory_lock(${LOCK})`);
    return new Gate(target);
  }

  /** Waits until somebody stands before it, of those who do not yet; resolves to the number of the server's process. */
  async reached(before?: number): Promise<number> {
    return waitFor(
      async () => {
        const { rows } = await this.#target.query<{ pid: number }>(
          `select pid from pg_locks where locktype = 'advisory' and objid = ${LOCK} and not granted
              and database = (select oid from pg_database where datname = current_database())`,
        );
        const pid = rows.length === 1 ? (rows[0]?.pid ?? 0) : 0;
        return pid === before ? 0 : pid;
      },
      { what: 'the copy to come to the gate' },
    );
  }

  /** Everybody may pass from here on. */
  async open(): Promise<void> {
    await this.#target.query(`select pg_advisory_unlock(${LOCK})`);
  }
}
