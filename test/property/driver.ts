/**
 * Several connections of an application, driven by one hand: statements are issued in the order of their commands,
 * and one that waits for a lock of another connection is left waiting while the driver goes on. So what happens
 * follows from the commands, as far as what runs beside them allows.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { type Command, type Control, diceOf, isControl, writesOf } from './commands.ts';
import type { Table } from './schema.ts';
import type { Statement } from './writes.ts';

/** What a correct application may be told by its server: constraints, deadlocks, serialisation, values out of range. */
const REFUSED = /^(23|40|22003|21000|27000|0A000|428C9|55000|2BP01|42P10|55P03|55006)/;

interface Connection {
  readonly number: number;
  readonly client: pg.Client;
  readonly pid: number;
  inTransaction: boolean;
  savepoints: number;
  locksOut: boolean;
  /** Set while a command is under way. */
  busy: Promise<void> | null;
}

interface Prepared {
  readonly name: string;
  readonly locksOut: boolean;
}

export class Driver {
  readonly #tables: readonly Table[];
  readonly #admin: pg.Client;
  readonly #connections: Connection[] = [];
  readonly #name: string;
  #prepared: Prepared[] = [];
  #count = 0;
  #violation: Error | undefined;
  /** Every statement with what became of it. */
  readonly transcript: string[] = [];

  constructor(tables: readonly Table[], admin: pg.Client, name: string) {
    this.#tables = tables;
    this.#admin = admin;
    this.#name = name;
  }

  async connect(url: string, connections: number): Promise<void> {
    for (let number = 0; number < connections; number++) {
      const client = new pg.Client({ connectionString: url });
      client.on('error', () => undefined);
      await client.connect();
      const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
      const pid = rows[0]?.pid as number;
      const none = { inTransaction: false, savepoints: 0, locksOut: false, busy: null };
      this.#connections.push({ number, client, pid, ...none });
    }
  }

  /** Leaves nothing behind, also of a run that failed half-way: what is prepared outlives its connection. */
  async close(): Promise<void> {
    await Promise.all(this.#connections.map(({ client }) => client.end().catch(() => undefined)));
    for (const { name } of this.#prepared)
      await this.#admin.query(`rollback prepared '${name}'`).catch(() => undefined);
  }

  /** Does one command, unless its connection still waits; returns once nothing moves any more. */
  async do(command: Command): Promise<void> {
    const connection = this.#connections[command.connection] as Connection;
    if (connection.busy !== null) return;
    const { does } = command;
    const work = isControl(does)
      ? () => this.#control(connection, does, command)
      : () => this.#write(connection, writesOf(command, this.#tables));
    await this.#start(connection, work);
  }

  /** Ends what is open: all of it, or only what keeps readers out. */
  async finish(all: boolean): Promise<void> {
    for (;;) {
      const ends = (one: { readonly locksOut: boolean }) => all || one.locksOut;
      for (const prepared of this.#prepared.filter(ends)) {
        const idle = this.#idle();
        if (idle === undefined) await this.#endPreparedElsewhere(prepared);
        else await this.#start(idle, (connection) => this.#endPrepared(connection, prepared, 'commit'));
      }
      const open = this.#connections.find((one) => one.busy === null && one.inTransaction && ends(one));
      if (open !== undefined) {
        await this.#start(open, (connection) => this.#control(connection, 'commit'));
      } else if (this.#connections.every((one) => one.busy === null)) {
        return;
      } else {
        // Somebody waits for a transaction that was to stay open.
        const holder = this.#connections.find((one) => one.busy === null && one.inTransaction);
        if (holder !== undefined) await this.#start(holder, (one) => this.#control(one, 'commit'));
        else if (this.#prepared[0] !== undefined) await this.#endPreparedElsewhere(this.#prepared[0]);
        else await this.#settle();
      }
    }
  }

  /** For the rare case that every connection waits for a prepared transaction. */
  async #endPreparedElsewhere(prepared: Prepared): Promise<void> {
    this.#prepared = this.#prepared.filter((one) => one !== prepared);
    await this.#admin.query(`commit prepared '${prepared.name}'`);
    this.transcript.push(`superuser> commit prepared '${prepared.name}'`);
    await this.#settle();
  }

  #idle(): Connection | undefined {
    const idle = this.#connections.find((one) => one.busy === null && !one.inTransaction);
    return idle ?? this.#connections.find((one) => one.busy === null);
  }

  async #start(connection: Connection, work: (connection: Connection) => Promise<void>): Promise<void> {
    connection.busy = work(connection)
      .catch((error) => {
        this.#violation ??= error;
      })
      .finally(() => {
        connection.busy = null;
      });
    await this.#settle();
    if (this.#violation !== undefined) throw this.#violation;
  }

  /** Returns once every connection is idle, or waits for a lock that another of them holds. */
  async #settle(): Promise<void> {
    const deadline = Date.now() + 60_000;
    for (let pause = 2; ; pause = Math.min(40, pause * 2)) {
      const busy = this.#connections.flatMap(({ busy }) => busy ?? []);
      if (busy.length === 0) return;
      const moved = await Promise.race([Promise.all(busy).then(() => true), sleep(pause, false)]);
      if (!moved && pause >= 8 && (await this.#allWait())) return;
      if (Date.now() > deadline) throw new Error('a statement of the application does not end');
    }
  }

  /** Whether all that is under way waits for one of ours in the end, be it behind a reader that does so itself. */
  async #allWait(): Promise<boolean> {
    const busy = this.#connections.filter((one) => one.busy !== null).map((one) => one.pid);
    const idle = [0, ...this.#connections.filter((one) => one.busy === null).map(({ pid }) => pid)];
    const { rows } = await this.#admin.query<{ waits: boolean }>(
      `with recursive chain as (
         select pid as first, pid from unnest($1::int4[]) pid
         union
         select c.first, b.pid from chain c cross join lateral unnest(pg_blocking_pids(c.pid)) b(pid)
       )
       select bool_and(waits) as waits
         from (select bool_or(pid = any ($2::int4[])) as waits from chain group by first) f`,
      [busy, idle],
    );
    return rows[0]?.waits === true;
  }

  async #control(connection: Connection, does: Control, command?: Command): Promise<void> {
    const { inTransaction, savepoints } = connection;
    switch (does) {
      case 'begin': {
        if (inTransaction) return;
        const level = ['read committed', 'read committed', 'repeatable read', 'serializable'];
        const chosen = command === undefined ? 0 : diceOf(command).roll(level.length);
        if (await this.#send(connection, { sql: `begin isolation level ${level[chosen]}` }))
          Object.assign(connection, { inTransaction: true, savepoints: 0, locksOut: false });
        return;
      }
      case 'commit':
      case 'rollback':
        if (inTransaction && (await this.#send(connection, { sql: does }))) left(connection);
        return;
      case 'savepoint':
        if (inTransaction && (await this.#send(connection, { sql: `savepoint s${savepoints + 1}` })))
          connection.savepoints++;
        return;
      case 'rollback to savepoint':
        if (savepoints > 0) await this.#send(connection, { sql: `rollback to savepoint s${savepoints}` });
        return;
      case 'prepare':
        return this.#prepare(connection);
      case 'commit prepared':
      case 'rollback prepared': {
        const [prepared] = this.#prepared;
        const end = does === 'commit prepared' ? 'commit' : 'rollback';
        if (!inTransaction && prepared !== undefined) await this.#endPrepared(connection, prepared, end);
      }
    }
  }

  async #prepare(connection: Connection): Promise<void> {
    if (!connection.inTransaction || this.#prepared.length >= 3) return;
    const name = `${this.#name}_${++this.#count}`;
    const { locksOut } = connection;
    if (!(await this.#send(connection, { sql: `prepare transaction '${name}'` }))) return;
    left(connection);
    this.#prepared.push({ name, locksOut });
  }

  async #endPrepared(connection: Connection, prepared: Prepared, end: 'commit' | 'rollback'): Promise<void> {
    if (connection.inTransaction) {
      await this.#send(connection, { sql: 'commit' });
      left(connection);
      // That may have taken until somebody else had ended it.
      if (!this.#prepared.includes(prepared)) return;
    }
    this.#prepared = this.#prepared.filter((one) => one !== prepared);
    await this.#send(connection, { sql: `${end} prepared '${prepared.name}'` });
  }

  async #write(connection: Connection, statements: readonly Statement[]): Promise<void> {
    for (const statement of statements) {
      if (statement.locksOut && connection.inTransaction) connection.locksOut = true;
      if (!(await this.#send(connection, statement))) return;
    }
  }

  /** False when the server refused; the transaction then is back at its last savepoint, or over. */
  async #send(connection: Connection, statement: Statement): Promise<boolean> {
    const line = this.transcript.push(`${connection.number}> ${statement.sql}`) - 1;
    try {
      await execute(connection.client, statement);
      return true;
    } catch (error) {
      const { code = '', message } = error as pg.DatabaseError;
      this.transcript[line] += `;  -- ${code} ${message}`;
      if (!REFUSED.test(code)) {
        throw new Error(`the application was told: ${code} ${message}`, { cause: error });
      }
      await this.#recover(connection);
      return false;
    }
  }

  async #recover(connection: Connection): Promise<void> {
    if (!connection.inTransaction) return;
    const { savepoints, client } = connection;
    const back = savepoints > 0 ? `rollback to savepoint s${savepoints}` : 'rollback';
    // After a COMMIT that was refused there is no transaction any more.
    const done = await client.query(back).then(
      () => true,
      () => false,
    );
    this.transcript.push(`${connection.number}> ${back}`);
    if (!done) await client.query('rollback').catch(() => undefined);
    if (!done || savepoints === 0) left(connection);
  }
}

function left(connection: Connection): void {
  Object.assign(connection, { inTransaction: false, savepoints: 0, locksOut: false });
}

async function execute(client: pg.Client, { sql, rows }: Statement): Promise<void> {
  if (rows === undefined) {
    await client.query(sql);
    return;
  }
  const stream = client.query(copyFrom(sql));
  await new Promise<void>((resolve, reject) => {
    stream.on('finish', resolve).on('error', reject);
    stream.end(rows);
  });
}
