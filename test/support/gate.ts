/**
 * Stops the copy of a table in the middle of a chunk, for as long as a test wants: a constraint of the target sleeps, as
 * soon as the row with a certain id arrives, until the test lets go of a lock.
 */
import type pg from 'pg';
import { waitFor } from './servers.ts';

/** A function's body that lets pass whatever its argument `i` is, but not this before the gate is open. */
export const passing = (id: number) => `begin
  while i = ${id} and not pg_try_advisory_xact_lock_shared(${id}) loop perform pg_sleep(0.02); end loop;
  return true; end`;

export class Gate {
  readonly #target: pg.Client;
  readonly #id: number;

  private constructor(target: pg.Client, id: number) {
    this.#target = target;
    this.#id = id;
  }

  /** Shuts it for the row whose `id` is this. */
  static async shut(target: pg.Client, table: string, id: number): Promise<Gate> {
    await target.query(`
      create function public.gate_${id}(i int8) returns bool language plpgsql as '${passing(id)}';
      alter table ${table} add constraint gate_${id} check (public.gate_${id}(id))`);
    return Gate.hold(target, id);
  }

  /** For what has a function of its own that it cannot pass. The client, which must not be in a transaction, holds the lock. */
  static async hold(target: pg.Client, id: number): Promise<Gate> {
    await target.query(`select pg_advisory_lock(${id})`);
    return new Gate(target, id);
  }

  /** Waits until somebody stands before it, alone, who was not `before`; resolves to the number of the server's process. */
  async reached(before?: number): Promise<number> {
    return waitFor(
      async () => {
        const { rows } = await this.#target.query<{ pid: number }>(
          `select pid from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()`,
        );
        const pid = rows.length === 1 ? (rows[0]?.pid ?? 0) : 0;
        return pid === before ? 0 : pid;
      },
      { what: 'the copy to come to the gate' },
    );
  }

  /** Everybody may pass from here on. */
  async open(): Promise<void> {
    await this.#target.query(`select pg_advisory_unlock(${this.#id})`);
  }
}
