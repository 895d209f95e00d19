/**
 * Measures the lag as somebody would who does not trust Ibex: one connection commits a row on the source, another
 * looks for it on the target until it is there, all through the load. Times are of this process's clock, from the
 * COMMIT's answer to the answer that has the row.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { connect } from './servers.ts';

/** Pause between two looks, and mean pause between two rows. */
const LOOK_MS = 2;
const PAUSE_MS = 30;

export interface LagSummary {
  readonly samples: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** Between two looks at the target. */
  readonly everyMs: number;
}

export class LagProbe {
  readonly ended: Promise<void>;
  #samples: number[] = [];
  #counting = false;
  #underWay: Promise<number> | undefined;
  #stopped = false;

  constructor(source: string, target: string) {
    this.ended = this.#live(source, target);
  }

  /**
   * Only rows committed from now on count: before, the table was still being copied. Resolves once the row under
   * way has arrived, so that a load that begins now is measured from its beginning.
   */
  async beginCounting(): Promise<void> {
    this.#counting = true;
    await this.#underWay;
  }

  /** The row under way is still waited for, so that no slow one is left out. */
  async stop(): Promise<LagSummary> {
    this.#stopped = true;
    await this.ended;
    const sorted = this.#samples.sort((a, b) => a - b);
    const quantile = (q: number) => round(sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)] ?? NaN);
    return {
      samples: sorted.length,
      p50Ms: quantile(0.5),
      p99Ms: quantile(0.99),
      maxMs: quantile(1),
      everyMs: LOOK_MS,
    };
  }

  async #live(sourceUrl: string, targetUrl: string): Promise<void> {
    const source = await connect(sourceUrl, 'demo:probe');
    const target = await connect(targetUrl, 'demo:probe');
    try {
      for (let n = 1; !this.#stopped; n++) {
        const counts = this.#counting;
        this.#underWay = commitAndLook(source, target, n);
        const lag = await this.#underWay;
        if (counts) this.#samples.push(lag);
        await sleep(Math.random() * 2 * PAUSE_MS);
      }
    } finally {
      await Promise.all([source.end(), target.end()]);
    }
  }
}

function round(ms: number): number {
  return Math.round(ms * 10) / 10;
}

/** Resolves to the milliseconds between the COMMIT's answer and the answer that has the row. */
async function commitAndLook(source: Client, target: Client, n: number): Promise<number> {
  await source.query('INSERT INTO shop.heartbeat (n) VALUES ($1)', [n]);
  const committed = performance.now();
  const look = { name: 'look', text: 'SELECT FROM shop.heartbeat WHERE n = $1', values: [n] };
  while ((await target.query(look)).rowCount === 0) await sleep(LOOK_MS);
  return performance.now() - committed;
}
