/** Products, stock and the tree of categories. */
import type { ClientBase } from 'pg';
import { anyProduct, anyWarehouse, between, type Kind, type Memory, productCode, RESERVED } from './kind.ts';

/** A text as key, changed to and fro; stock, lines and reviews follow. */
const recode: Kind['run'] = (client) =>
  client.query(
    `UPDATE shop.product SET code = CASE WHEN code LIKE '%-N' THEN left(code, -2) ELSE code || '-N' END
      WHERE code IN ($1, $1 || '-N')`,
    [anyProduct()],
  );

const countStock: Kind['run'] = (client) => {
  const first = between(RESERVED + 1, 4_000);
  return client.query(
    `UPDATE shop.stock SET on_hand = on_hand + 7, counted_at = now()
      WHERE product_code BETWEEN $1 AND $2 AND warehouse = $3`,
    [productCode(first), productCode(first + 600), anyWarehouse()],
  );
};

const raisePrices: Kind['run'] = (client) =>
  client.query(
    `UPDATE shop.product SET price = round(price * 1.01, 2), name = name || '.'
      WHERE category_id = $1 AND code > $2`,
    [between(1, 400), productCode(RESERVED)],
  );

/** A branch of the tree comes, is moved, and goes with one DELETE. */
async function reorganise(client: ClientBase, memory: Memory): Promise<void> {
  const [a, b] = [1_000 + 2 * memory.next(), 1_001 + 2 * memory.next()];
  await client.query(`INSERT INTO shop.category VALUES ($1, 7, 'Branch'), ($2, $1, 'Twig')`, [a, b]);
  await client.query('UPDATE shop.category SET parent_id = 8 WHERE id = $1', [a]);
  if (Math.random() < 0.7) await client.query('DELETE FROM shop.category WHERE id = $1', [a]);
}

export const GOODS: readonly Kind[] = [
  { name: 'recode product', weight: 0.15, run: recode },
  { name: 'count stock', weight: 1, run: countStock },
  { name: 'raise prices', weight: 1, run: raisePrices },
  { name: 'reorganise', weight: 3, run: reorganise },
];
