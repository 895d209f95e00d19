/**
 * One transaction that is open nearly as long as the load and commits last. It has its number from the start, so
 * that thousands of later ones commit before it, and writes now and then, to rows that only it touches.
 *
 * Until every table is armed it holds no lock on any: a lock would keep capture waiting, as it should.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { connect } from '../servers.ts';
import { between, productCode, RESERVED } from './kind.ts';

const PAUSE_MS = 300;

const PLACE_ORDER = `
  WITH o AS (INSERT INTO shop.orders (customer_id, note, total) VALUES ($1, 'of the long transaction', 1)
             RETURNING id, placed_at)
  INSERT INTO shop.order_line (order_id, placed_at, line_no, product_code, quantity, price)
  SELECT id, placed_at, 1, $2, 1, 1 FROM o`;

export class LongTransaction {
  /** Seconds it was open. */
  seconds = 0;
  readonly ended: Promise<void>;
  #armed = false;
  #stopped = false;

  constructor(url: string) {
    this.ended = this.#live(url);
  }

  /** From now on it writes. */
  begin(): void {
    this.#armed = true;
  }

  /** Commits. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.ended;
  }

  async #live(url: string): Promise<void> {
    const client = await connect(url, 'shop:long');
    try {
      const began = performance.now();
      await client.query('BEGIN');
      await client.query('SELECT pg_current_xact_id()');
      while (!this.#stopped) {
        if (this.#armed) await write(client);
        await sleep(PAUSE_MS);
      }
      await client.query('COMMIT');
      this.seconds = (performance.now() - began) / 1000;
    } finally {
      await client.end();
    }
  }
}

async function write(client: pg.Client): Promise<void> {
  const [customer, code] = [between(1, RESERVED), productCode(between(1, RESERVED))];
  await client.query(PLACE_ORDER, [customer, code]);
  await client.query('UPDATE shop.stock SET on_hand = on_hand + 1 WHERE product_code = $1', [code]);
  await client.query('SAVEPOINT s');
  await client.query('DELETE FROM shop.address WHERE customer_id = $1', [customer]);
  await client.query(Math.random() < 0.5 ? 'ROLLBACK TO s' : 'RELEASE s');
  await client.query('UPDATE shop.customer SET points = points + 1, email = $2 WHERE id = $1', [
    customer,
    `long${customer}.${Date.now()}@example.com`,
  ]);
}
