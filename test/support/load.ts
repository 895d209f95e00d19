/**
 * A bank in the manner of pgbench, and clients that use it the way an application does: short transactions over several
 * tables, rows that come and go. Counts what went wrong from the application's view.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { randomFrom } from './random.ts';

export const BANK = `
  create table branch (id int primary key, balance bigint not null default 0);
  create table teller (id int primary key, branch int not null references branch, balance bigint not null default 0);
  create table account (id int primary key, branch int not null references branch, balance bigint not null default 0,
                        note text);
  create table history (id bigint generated always as identity primary key, teller int not null references teller,
                        account int not null references account on delete cascade, delta int not null,
                        at timestamptz not null default now());`;

export const BANK_ROWS = `
  insert into branch select i from generate_series(1, 5) i;
  insert into teller select i, 1 + i % 5 from generate_series(1, 50) i;
  insert into account select i, 1 + i % 5, 0, repeat('n', 40) from generate_series(1, 3000) i;`;

export interface Load {
  /** Transactions committed so far. */
  readonly done: number;
  /** What the application was told, instead of being served. */
  readonly errors: readonly string[];
  /** Ends it; resolves once every client is through with its transaction. */
  stop(): Promise<void>;
}

/** `pauseMs` is between two transactions of a client: what else runs on the machine is to get on. */
export async function startLoad(
  url: string,
  options: { clients?: number; seed?: number; pauseMs?: number } = {},
): Promise<Load> {
  const { clients = 4, seed = 1, pauseMs = 10 } = options;
  const load = { done: 0, errors: [] as string[] };
  let stopping = false;
  const connections = Array.from({ length: clients }, () => new pg.Client({ connectionString: url }));
  await Promise.all(connections.map((client) => client.connect()));
  const running = connections.map(async (client, index) => {
    const random = randomFrom(seed + index);
    client.on('error', (error) => load.errors.push(error.message));
    while (!stopping) {
      try {
        await transact(client, (below) => 1 + Math.floor(random() * below));
        load.done++;
      } catch (error) {
        load.errors.push((error as Error).message);
        await client.query('rollback').catch(() => undefined);
      }
      if (pauseMs > 0) await sleep(pauseMs);
    }
    await client.end().catch(() => undefined);
  });
  return Object.assign(load, {
    stop: async () => {
      stopping = true;
      await Promise.all(running);
    },
  });
}

/** Locks rows in the same order everywhere, so that the clients do not deadlock among themselves. */
async function transact(client: pg.Client, pick: (below: number) => number): Promise<void> {
  const [account, teller, branch, delta] = [pick(2900), pick(50), pick(5), pick(1000)];
  // Accounts above 2900 come and go; those that the other transactions name do not.
  if (delta % 10 === 0) {
    const id = 2900 + pick(100);
    await client.query(
      `begin; delete from account where id = ${id};
       insert into account values (${id}, ${branch}, ${delta}) on conflict do nothing; commit`,
    );
    return;
  }
  await client.query(
    `begin;
     update account set balance = balance + ${delta} where id = ${account};
     update teller set balance = balance + ${delta} where id = ${teller};
     update branch set balance = balance + ${delta} where id = ${branch};
     insert into history (teller, account, delta) values (${teller}, ${account}, ${delta});
     commit`,
  );
}
