/** Customers: they come, change and go, with all that hangs on them. */

import { randomUUID } from 'node:crypto';
import type { ClientBase } from 'pg';
import { anyCustomer, anyProduct, between, type Kind, transaction } from './kind.ts';

const editCustomer: Kind['run'] = (client) =>
  client.query(
    `UPDATE shop.customer
        SET points = points + 1, preferences = preferences || jsonb_build_object('seen', $2::int),
            tags = CASE WHEN cardinality(tags) < 9 THEN array_append(tags, 'seen') ELSE '{}' END
      WHERE id = $1`,
    [anyCustomer(), between(1, 1_000)],
  );

const newCustomer: Kind['run'] = (client, memory) =>
  client.query(
    `WITH c AS (INSERT INTO shop.customer (email, name) VALUES ($1, $2) RETURNING id)
     INSERT INTO shop.address (customer_id, lines, country) SELECT id, '{"New Street 1",NULL}', 'AT' FROM c`,
    [`new${memory.next()}@example.com`, "O'Neil \\ Söhne"],
  );

const deleteCustomer: Kind['run'] = (client) =>
  client.query('DELETE FROM shop.customer WHERE id = $1', [anyCustomer()]);

/** A new id: everything that hangs on the customer follows by ON UPDATE CASCADE. */
const renumberCustomer: Kind['run'] = (client) =>
  client.query('UPDATE shop.customer SET id = DEFAULT WHERE id = $1', [anyCustomer()]);

/** Two customers exchange their unique addresses, by way of a third. */
async function swapEmails(client: ClientBase): Promise<void> {
  await client.query('BEGIN');
  const { rows } = await client.query<{ id: string; email: string }>(
    'SELECT id, email FROM shop.customer WHERE id IN ($1, $2) ORDER BY id FOR UPDATE',
    [anyCustomer(), anyCustomer()],
  );
  const [a, b] = rows;
  if (a !== undefined && b !== undefined) {
    const set = 'UPDATE shop.customer SET email = $2 WHERE id = $1';
    await client.query(set, [a.id, `${randomUUID()}@example.com`]);
    await client.query(set, [b.id, a.email]);
    await client.query(set, [a.id, b.email]);
  }
  await client.query('COMMIT');
}

const changeOfMind: Kind['run'] = (client) =>
  transaction(
    client,
    ['UPDATE shop.customer SET points = points + 10 WHERE id = $1', [anyCustomer()]],
    ['SAVEPOINT s'],
    ['DELETE FROM shop.review WHERE customer_id = $1', [anyCustomer()]],
    ["INSERT INTO shop.session_cache VALUES (gen_random_uuid(), '1')"],
    ['ROLLBACK TO s'],
    ["INSERT INTO shop.session_cache VALUES (gen_random_uuid(), 'null')"],
    ['RELEASE s'],
  );

async function giveUp(client: ClientBase): Promise<void> {
  await client.query('BEGIN');
  await client.query('DELETE FROM shop.address WHERE customer_id = $1', [anyCustomer()]);
  await client.query('UPDATE shop.stock SET on_hand = 0 WHERE product_code = $1', [anyProduct()]);
  await client.query('ROLLBACK');
}

const review: Kind['run'] = (client) =>
  client.query(
    `INSERT INTO shop.review (customer_id, product_code, rating, body)
     SELECT c.id, p.code, 3, $3 FROM shop.customer c, shop.product p WHERE c.id = $1 AND p.code = $2
     ON CONFLICT (customer_id, product_code) DO UPDATE SET rating = 1, body = NULL`,
    [anyCustomer(), anyProduct(), 'So so. '.repeat(between(1, 600))],
  );

const visit: Kind['run'] = (client) =>
  client.query(
    `INSERT INTO shop.session_cache SELECT gen_random_uuid(), '{"a": [1, 2.50, "x"]}' FROM generate_series(1, 5)`,
  );

const clearCache: Kind['run'] = (client) =>
  transaction(
    client,
    ['TRUNCATE shop.session_cache'],
    ["INSERT INTO shop.session_cache VALUES (gen_random_uuid(), '{}')"],
  );

export const PEOPLE: readonly Kind[] = [
  { name: 'edit customer', weight: 10, run: editCustomer },
  { name: 'new customer', weight: 4, run: newCustomer },
  { name: 'delete customer', weight: 2, run: deleteCustomer },
  { name: 'renumber customer', weight: 0.15, run: renumberCustomer },
  { name: 'swap e-mail addresses', weight: 0.15, run: swapEmails },
  { name: 'change of mind', weight: 4, run: changeOfMind },
  { name: 'give up', weight: 3, run: giveUp },
  { name: 'review', weight: 5, run: review },
  { name: 'visit', weight: 5, run: visit },
  { name: 'clear cache', weight: 0.3, run: clearCache },
];
