/** A shop on each side, which sells, renames and signs up with no regard to what the other one does. */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { connect } from '../servers.ts';

const PRODUCTS = 20;
const PAUSE_MS = 15;
/** A value that another row has: both shops draw from the same few addresses. */
const UNIQUE_VIOLATION = '23505';

export class TwoWayLoad {
  readonly #clients: readonly pg.Client[];
  readonly #ends: readonly Promise<void>[];
  #stopped = false;
  /** Statements that were committed, of both shops. */
  writes = 0;

  static async start(urls: Readonly<Record<string, string>>): Promise<TwoWayLoad> {
    const entries = Object.entries(urls);
    const clients = await Promise.all(entries.map(([name, url]) => connect(url, `shop:${name}`)));
    return new TwoWayLoad(clients.map((client, i) => [client, entries[i]?.[0] ?? ''] as const));
  }

  private constructor(shops: readonly (readonly [pg.Client, string])[]) {
    this.#clients = shops.map(([client]) => client);
    this.#ends = shops.map(([client, name]) => this.#sell(client, name));
    // Thrown where it is waited for.
    for (const end of this.#ends) end.catch(() => undefined);
  }

  /** Resolves once the last statement was committed. */
  async stop(): Promise<void> {
    this.#stopped = true;
    try {
      await Promise.all(this.#ends);
    } finally {
      await Promise.all(this.#clients.map((client) => client.end()));
    }
  }

  async #sell(client: pg.Client, name: string): Promise<void> {
    while (!this.#stopped) {
      await client.query(...statement(name)).then(
        () => {
          this.writes += 1;
        },
        (error: { code?: string }) => {
          if (error.code !== UNIQUE_VIOLATION) throw error;
        },
      );
      await sleep(PAUSE_MS);
    }
  }
}

function statement(shop: string): [text: string, values: unknown[]] {
  const code = `P${Math.floor(Math.random() * PRODUCTS)}`;
  const dice = Math.random();
  if (dice < 0.6)
    return [
      `insert into product values ($1, $1, $2, $3)
         on conflict (code) do update set price = excluded.price, sold_by = excluded.sold_by`,
      [code, Math.floor(Math.random() * 10_000) / 100, shop],
    ];
  if (dice < 0.7) return ['delete from product where code = $1', [code]];
  const address = `customer${Math.floor(Math.random() * 400)}@example.org`;
  return ['insert into customer (email, city) values ($1, $2)', [address, shop]];
}
