/** What the three roles of the application do, each in one transaction around which the ledger keeps its books. */
import type pg from 'pg';
import type { Drawn } from './ledger.ts';
import type { Role } from './stage.ts';

export interface Deed {
  readonly role: Role;
  readonly kind: 'transfer' | 'order' | 'job' | 'price' | 'long';
  /** The same every time that it is tried. */
  readonly run: (client: pg.Client, operation: string) => Promise<Drawn>;
}

/** A whole number from 0 on, below the one given. */
export type Pick = (below: number) => number;

async function transfer(client: pg.Client, operation: string, from: number, to: number, amount: number) {
  // In the order of their keys, lest two transfers wait for each other.
  const booked = [
    [from, -amount],
    [to, amount],
  ].sort(([a = 0], [b = 0]) => a - b);
  for (const [id, sum] of booked)
    await client.query(
      'update bank.account set balance = balance + $2, version = version + 1 where id = $1',
      [id, sum],
    );
  const { rows } = await client.query(
    'insert into bank.transfer (operation, payer, payee, amount) values ($1, $2, $3, $4) returning id',
    [operation, from, to, amount],
  );
  return [{ from: 'bank.transfer', value: rows[0].id }];
}

/** Two different accounts. */
function twoOf(pick: Pick): [number, number] {
  const from = 1 + pick(200);
  return [from, 1 + ((from + pick(199)) % 200)];
}

function pay(pick: Pick): Deed {
  const [from, to] = twoOf(pick);
  const amount = 1 + pick(20);
  const run = (client: pg.Client, operation: string) => transfer(client, operation, from, to, amount);
  return { role: 'web', kind: 'transfer', run };
}

function order(pick: Pick): Deed {
  const [customer, category, tenant] = [1 + pick(500), 1 + pick(60), pick(10)];
  const run = async (client: pg.Client, operation: string) => {
    const { rows } = await client.query(
      `insert into shop.orders (operation, customer, valid) values ($1, $2, tstzrange(now(), null)) returning id`,
      [operation, customer],
    );
    await client.query(
      `insert into shop.order_line
         select $1, row_number() over (), code, 2 from (select code from shop.product where category = $2 limit 3) p`,
      [rows[0].id, category],
    );
    await client.query(
      `delete from shop.orders where id = (select min(id) from shop.orders where operation <> $1
      and customer = $2)`,
      [operation, customer],
    );
    await client.query(`set local app.tenant = ${tenant}`);
    const note = await client.query('insert into shop.note (tenant, body) values ($1, $2) returning id', [
      tenant,
      operation,
    ]);
    return [
      { from: 'shop.orders', value: rows[0].id },
      { from: 'shop.note', value: note.rows[0].id },
    ];
  };
  return { role: 'web', kind: 'order', run };
}

function job(pick: Pick): Deed {
  const [lane, done] = [1 + pick(4), 1 + pick(2000)];
  const run = async (client: pg.Client, operation: string) => {
    const { rows } = await client.query(
      `insert into jobs.job (operation, ticket, payload) values ($1, nextval('jobs.ticket'), '{"of": "now"}')
       returning id, ticket, nextval('jobs.countdown') as countdown, nextval('jobs.round') as round`,
      [operation],
    );
    const [{ id, ticket, countdown, round }] = rows;
    await client.query(`update jobs.job set state = 'running' where id = $1`, [id]);
    const event = await client.query(
      'insert into jobs.event (lane, job, body) values ($1, $2, $3) returning id',
      [lane, id, Buffer.from(operation)],
    );
    // PostgreSQL refuses the second of two transactions that move one row to other partitions: they take turns.
    await client.query('select pg_advisory_xact_lock($1)', [done]);
    await client.query('update jobs.event set lane = $1 where id = $2 and lane <> $1', [lane, done]);
    return [
      { from: 'jobs.job', value: String(id) },
      { from: 'jobs.ticket', value: ticket },
      { from: 'jobs.countdown', value: countdown },
      { from: 'jobs.round', value: round },
      { from: 'jobs.event', value: event.rows[0].id },
    ];
  };
  return { role: 'worker', kind: 'job', run };
}

function reprice(pick: Pick): Deed {
  const [category, document, empties] = [1 + pick(60), 1 + pick(200), pick(10) === 0];
  const run = async (client: pg.Client) => {
    await client.query(
      `update shop.product set price = price + 0.01, attributes = attributes || '{"new": true}' where category = $1`,
      [category],
    );
    // The long text stays as it is.
    await client.query(`update shop.document set title = title || '.' where id = $1`, [document]);
    if (empties)
      await client.query(`truncate shop.cache; insert into shop.cache select code, price from shop.product
        where category < 5`);
    return [];
  };
  return { role: 'app', kind: 'price', run };
}

/** A transaction that is open for a while in between, or after all that it has to say. */
export function dawdle(pick: Pick): Deed {
  const [from, to] = twoOf(pick);
  const [ms, early] = [300 + pick(900), pick(2) === 0];
  const run = async (client: pg.Client, operation: string) => {
    const drawn = early ? await transfer(client, operation, from, to, 1) : [];
    await client.query('select pg_sleep($1)', [ms / 1000]);
    return early ? drawn : transfer(client, operation, from, to, 1);
  };
  return { role: 'worker', kind: 'long', run };
}

const DEEDS: Readonly<Record<Role, readonly ((pick: Pick) => Deed)[]>> = {
  web: [pay, order],
  worker: [job],
  app: [reprice],
};

export function deedOf(role: Role, pick: Pick): Deed {
  const deeds = DEEDS[role];
  return (deeds[pick(deeds.length)] as (pick: Pick) => Deed)(pick);
}
