/**
 * An application whose books can be checked from outside: whatever it writes, it writes so that every one of its
 * transactions leaves the books right, and nothing less than whole transactions does.
 *
 * - `account`: what is transferred leaves one and reaches another, so the sum stays; `version` counts its transfers, so it
 *   only grows. Each transfer also writes a row of `transfer`, in the same transaction.
 * - `lefts`, `rights`: the same keys with the same numbers in both, also when keys change and rows go.
 * - `item`: keys change and swap places; the tags stay the same.
 * - `side`: emptied and filled anew, ten rows of one generation at a time.
 * - `bulk`: many rows that one statement changes.
 * - `marker`: what is written there shows how far the target is.
 * - `late`: comes to the sync while it runs; the sum of its values stays.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

export const ACCOUNTS = 40;
export const ITEMS = 60;
export const SIDE_ROWS = 10;
const BULK_ROWS = 10_000;
const LATE_ROWS = 5_000;
const BALANCE = 1_000;

export const TABLES = ['account', 'transfer', 'lefts', 'rights', 'item', 'side', 'bulk', 'marker'] as const;

export const SCHEMA = `
  create table account (id int primary key, balance int not null, version int not null);
  create table transfer (id bigint generated always as identity primary key,
                         payer int not null references account, payee int not null references account, amount int not null);
  create table lefts (id int primary key, n int not null);
  create table rights (n int not null, id int primary key);
  create table item (id int primary key, tag text not null);
  create table side (id int primary key, generation int not null);
  create table bulk (id int primary key, v int not null);
  create table marker (id int primary key);`;

export const FILL = `
  insert into account select i, ${BALANCE}, 0 from generate_series(1, ${ACCOUNTS}) i;
  insert into item select i, 'tag ' || i from generate_series(1, ${ITEMS}) i;
  insert into side select i, 0 from generate_series(1, ${SIDE_ROWS}) i;
  insert into bulk select i, 0 from generate_series(1, ${BULK_ROWS}) i;`;

export const LATE_SCHEMA = 'create table late (id int primary key, v int not null, pad text)';
export const FILL_LATE = `insert into late select i, 100, repeat('x', 100) from generate_series(1, ${LATE_ROWS}) i`;

/** What every snapshot of the books has to say, by the tables that it takes; each a query for what is wrong with them. */
export const RULES: readonly { readonly tables: readonly string[]; readonly wrong: string }[] = [
  {
    tables: ['account'],
    wrong: `select 'the balances sum to ' || sum(balance) from account having sum(balance) <> ${ACCOUNTS * BALANCE}`,
  },
  {
    tables: ['account', 'transfer'],
    wrong: `select format('account %s has %s after %s transfers, not %s after %s', id, a.balance, a.version,
                          ${BALANCE} + coalesce(t.sum, 0), coalesce(t.count, 0))
              from account a left join (
                select id, sum(amount), count(*)
                  from (select payer as id, -amount as amount from transfer union all select payee, amount from transfer) booked
                 group by id) t using (id)
             where (a.balance, a.version) <> (${BALANCE} + coalesce(t.sum, 0), coalesce(t.count, 0))`,
  },
  {
    tables: ['lefts', 'rights'],
    wrong: `select format('%s has %s on the left, %s on the right', id, l.n, r.n)
              from lefts l full join rights r using (id) where l.n is distinct from r.n`,
  },
  {
    tables: ['item'],
    wrong: `select format('%s items with %s tags', count(*), count(distinct tag)) from item
            having (count(*), count(distinct tag)) <> (${ITEMS}, ${ITEMS})`,
  },
  {
    tables: ['side'],
    wrong: `select format('%s rows of %s generations aside', count(*), count(distinct generation)) from side
            having (count(*), count(distinct generation)) <> (${SIDE_ROWS}, 1)`,
  },
  {
    tables: ['late'],
    wrong: `select format('%s late rows of %s', count(*), sum(v)) from late
            having (count(*), sum(v)) <> (${LATE_ROWS}, ${LATE_ROWS * 100})`,
  },
];

/** The statements of one transaction. */
type Deed = readonly string[];

/** Lets only one transaction at a time do this kind of deed, so that all of it happens or nothing. */
const alone = (kind: number) => `select pg_advisory_xact_lock(${kind})`;
const [PAIRS, KEYS] = [1, 2];

function transfer(from: number, to: number, amount: number): Deed {
  if (from === to) return [];
  // In the order of their keys, lest two transfers wait for each other.
  const booked = [
    [from, -amount],
    [to, amount],
  ].sort(([a = 0], [b = 0]) => a - b);
  return [
    ...booked.map(
      ([id, sum]) => `update account set balance = balance + ${sum}, version = version + 1 where id = ${id}`,
    ),
    `insert into transfer (payer, payee, amount) values (${from}, ${to}, ${amount})`,
  ];
}

function swap(a: number, b: number): Deed {
  if (a === b) return [];
  const move = (from: number, to: number) => `update item set id = ${to} where id = ${from}`;
  return [alone(KEYS), move(a, -1), move(b, a), move(-1, b)];
}

function pair(id: number, statement: (table: string) => string): Deed {
  return [alone(PAIRS), ...(id % 2 ? ['lefts', 'rights'] : ['rights', 'lefts']).map(statement)];
}

function deedOf(random: () => number, late: boolean, hasty: boolean): Deed {
  const some = (below: number) => 1 + Math.floor(random() * below);
  const [id, n] = [some(30), some(1_000_000)];
  const deeds: (() => Deed)[] = [
    () =>
      pair(
        id,
        (table) =>
          `insert into ${table} (id, n) values (${id}, ${n}) on conflict (id) do update set n = ${n}`,
      ),
    () => pair(id, (table) => `delete from ${table} where id = ${id}`),
    () =>
      pair(id, (table) => {
        const other = `select from ${table} where id = -${id}`;
        return `update ${table} set id = -id, n = ${n} where id = ${id} and not exists (${other})`;
      }),
    () => pair(id, (table) => `delete from ${table} where id = -${id}`),
    () => swap(some(ITEMS), some(ITEMS)),
    () => [`update bulk set v = v + 1 where id between ${n % BULK_ROWS} and ${n % BULK_ROWS} + 50`],
    () =>
      late
        ? [`update late set v = v + case id when ${id} then 7 else -7 end where id in (${id}, ${id} + 30)`]
        : [],
  ];
  const dice = random();
  if (dice < 0.5) return transfer(some(ACCOUNTS), some(ACCOUNTS), some(20));
  // The commit of a TRUNCATE always waits for the log.
  if (dice < 0.52 && !hasty)
    return ['truncate side', `insert into side select i, ${n} from generate_series(1, ${SIDE_ROWS}) i`];
  return (deeds[Math.floor(random() * deeds.length)] as () => Deed)();
}

/** What writes to the books; goes on after its server was gone, as an application does. */
export class Writer {
  readonly #url: string;
  readonly #random: () => number;
  /** There is a table `late`. */
  late = false;
  /** No commit waits for the server's log. */
  hasty = false;
  #lasting = false;
  #client: pg.Client | undefined;

  constructor(url: string, random: () => number) {
    this.#url = url;
    this.#random = random;
  }

  async run(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      await this.#write().catch(() => this.#leave());
      await sleep(this.#random() * 20);
    }
    await this.#leave();
  }

  /** For a while its commits wait for the server's log, and then, or when told to, they do not: a crash takes those back. */
  async #write(): Promise<void> {
    const client = await this.#connected();
    const deed = deedOf(this.#random, this.late, this.hasty);
    if (this.#random() < 0.05) this.#lasting = !this.#lasting;
    await client.query(
      `begin; set local synchronous_commit = ${this.#lasting && !this.hasty ? 'on' : 'off'}`,
    );
    for (const statement of deed) await client.query(statement);
    await client.query(this.#random() < 0.1 ? 'rollback' : 'commit');
  }

  async #connected(): Promise<pg.Client> {
    if (this.#client !== undefined) return this.#client;
    const client = new pg.Client({ connectionString: this.#url });
    client.on('error', () => undefined);
    await client.connect();
    this.#client = client;
    return client;
  }

  async #leave(): Promise<void> {
    await this.#client?.end().catch(() => undefined);
    this.#client = undefined;
  }
}

/** Changes rows so often that their delta table grows beyond the size at which its triggers move on. */
export const CHANGE_BULK = 'do $$ begin for i in 1 .. 9 loop update bulk set v = v + 1; end loop; end $$';
