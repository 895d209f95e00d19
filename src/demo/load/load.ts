/**
 * The load: several connections that do what a shop's do, as the application's own role, until told to stop.
 * What replication gets wrong is among it: keys that change, unique values that change places, rows that move to
 * another partition, cascades, savepoints rolled back, TRUNCATE.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { IbexError } from '../../core/errors.ts';
import { connect } from '../servers.ts';
import { GOODS } from './goods.ts';
import type { Kind, Memory } from './kind.ts';
import { ORDERS } from './orders.ts';
import { PEOPLE } from './people.ts';

const KINDS: readonly Kind[] = [...ORDERS, ...PEOPLE, ...GOODS];
const CONNECTIONS = 6;
/** Mean pause between two transactions of a connection: about 200 of them a second in all. */
const PAUSE_MS = 25;
/** What PostgreSQL asks to try again: serialisation failure, deadlock. */
const AGAIN = ['40001', '40P01'];

export class Load {
  /** Transactions done, and those that PostgreSQL had ended for a deadlock. */
  transactions = 0;
  retried = 0;
  readonly connections = CONNECTIONS;
  /** Rejects as soon as anything fails; resolves after `stop`. */
  readonly ended: Promise<unknown>;
  readonly #memory: Memory;
  #stopped = false;

  constructor(url: string) {
    // Far from the keys of other runs and of the rows that were there before.
    let number = 100_000;
    this.#memory = { orders: [], next: () => number++ };
    this.ended = Promise.all(Array.from({ length: CONNECTIONS }, (_, i) => this.#work(url, `shop:${i + 1}`)));
  }

  /** Resolves once the last transaction is committed and all connections are closed. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.ended;
  }

  async #work(url: string, name: string): Promise<void> {
    const client = await connect(url, name);
    try {
      while (!this.#stopped) {
        await this.#once(client, pick(KINDS));
        await sleep(Math.random() * 2 * PAUSE_MS);
      }
    } finally {
      await client.end();
    }
  }

  async #once(client: pg.Client, kind: Kind): Promise<void> {
    try {
      await kind.run(client, this.#memory);
      this.transactions++;
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      if (!AGAIN.includes(code ?? '')) {
        const what = `the shop's transaction '${kind.name}' failed: ${message}`;
        throw new IbexError('tool', what, {
          hint: 'The application must not notice that it is captured.',
          cause: error,
        });
      }
      await client.query('ROLLBACK');
      this.retried++;
    }
  }
}

function pick(kinds: readonly Kind[]): Kind {
  let left = Math.random() * kinds.reduce((sum, { weight }) => sum + weight, 0);
  const found = kinds.find(({ weight }) => {
    left -= weight;
    return left < 0;
  });
  return found ?? (kinds[0] as Kind);
}
