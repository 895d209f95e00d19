/** Orders: placed, paid, moved to another month, cancelled. */
import type { ClientBase } from 'pg';
import {
  anyCustomer,
  anyProduct,
  anyWarehouse,
  between,
  type Kind,
  type Memory,
  transaction,
} from './kind.ts';

/** How many orders are remembered; later changes meet those. */
const REMEMBERED = 500;

/** Orders that were there before the load. */
const ORDERS_BEFORE = 50_000;

const recent = ({ orders }: Memory) => orders[between(0, orders.length - 1)] ?? '1000';

async function placeOrder(client: ClientBase, memory: Memory): Promise<void> {
  const codes = [anyProduct(), anyProduct(), anyProduct()];
  await client.query('BEGIN');
  const { rows } = await client.query<{ id: string; placed_at: string }>(
    `INSERT INTO shop.orders (customer_id, note) SELECT id, $2 FROM shop.customer WHERE id = $1
     RETURNING id, placed_at::text`,
    [anyCustomer(), Math.random() < 0.1 ? 'a present' : null],
  );
  const [order] = rows;
  if (order !== undefined) {
    await client.query(
      `INSERT INTO shop.order_line (order_id, placed_at, line_no, product_code, quantity, price)
       SELECT $1, $2::timestamptz, row_number() OVER (ORDER BY code), code, 2, price
         FROM shop.product WHERE code = ANY ($3)`,
      [order.id, order.placed_at, codes],
    );
    await client.query(
      `UPDATE shop.stock SET on_hand = on_hand - 2 WHERE product_code = ANY ($1) AND warehouse = $2 AND on_hand >= 2`,
      [codes, anyWarehouse()],
    );
    await client.query(
      `UPDATE shop.orders SET total = (SELECT coalesce(sum(amount), 0) FROM shop.order_line WHERE order_id = $1)
        WHERE id = $1`,
      [order.id],
    );
  }
  await client.query('COMMIT');
  if (order !== undefined) memory.orders.push(order.id);
  if (memory.orders.length > REMEMBERED) memory.orders.shift();
}

const pay: Kind['run'] = (client, memory) => {
  const order = recent(memory);
  return transaction(
    client,
    [
      "UPDATE shop.orders SET state = 'paid', delivery = tstzrange(now(), now() + '3 days') WHERE id = $1",
      [order],
    ],
    [
      `INSERT INTO shop.payment (order_id, placed_at, method, amount, receipt)
       SELECT id, placed_at, 'card', total, decode(md5(id::text), 'hex') FROM shop.orders WHERE id = $1`,
      [order],
    ],
  );
};

/** Half of what was paid. The payment has a number that only the database may give, which UPDATE cannot set. */
const refund: Kind['run'] = (client, memory) =>
  transaction(
    client,
    [
      `INSERT INTO shop.refund (payment_id, amount) SELECT id, amount / 2 FROM shop.payment WHERE order_id = $1
       ON CONFLICT DO NOTHING`,
      [recent(memory)],
    ],
    ['UPDATE shop.payment SET amount = amount / 2 WHERE order_id = $1', [between(1, ORDERS_BEFORE)]],
  );

/** To another month, and so to another partition; lines and payments follow by ON UPDATE CASCADE. */
const backdate: Kind['run'] = (client, memory) =>
  client.query(`UPDATE shop.orders SET placed_at = placed_at - interval '1 month' WHERE id = $1`, [
    recent(memory),
  ]);

const cancel: Kind['run'] = (client, memory) =>
  client.query('DELETE FROM shop.orders WHERE id = $1', [recent(memory)]);

export const ORDERS: readonly Kind[] = [
  { name: 'place order', weight: 40, run: placeOrder },
  { name: 'pay', weight: 14, run: pay },
  { name: 'refund', weight: 3, run: refund },
  { name: 'backdate', weight: 5, run: backdate },
  { name: 'cancel', weight: 5, run: cancel },
];
