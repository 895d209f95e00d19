/** Hands the chunks of a copy in to whoever copies them: only so many jobs at once, and each in its turn. */
import { fingerprint } from '../backfill/copier.ts';
import type { TablePlan } from '../core/plan.ts';
import { tableLabel } from '../core/plan.ts';
import type { ChunkName, ChunkOutcome } from '../core/ports.ts';
import type { IncarnationOptions } from './options.ts';
import type { Rooms } from './rooms.ts';

/** Jobs that are handed in and not done: enough for the workers of many hosts. */
const JOBS_AT_ONCE = 64;

/** A chunk that is to be copied by the plan of its table. */
export interface PlannedChunk extends Pick<ChunkName, 'n' | 'direct' | 'divisible'> {
  readonly plan: TablePlan;
}

export class HandIn {
  readonly #options: Pick<IncarnationOptions, 'sync' | 'metrics'>;
  readonly #rooms: Pick<Rooms, 'chunks' | 'lease'>;
  readonly #onDone: () => void;
  #jobs = 0;
  /** Those that wait to hand a job in, in their order. */
  readonly #inLine: (() => void)[] = [];

  /** `onDone` is called after each job. */
  constructor(
    options: Pick<IncarnationOptions, 'sync' | 'metrics'>,
    rooms: Pick<Rooms, 'chunks' | 'lease'>,
    onDone: () => void,
  ) {
    this.#options = options;
    this.#rooms = rooms;
    this.#onDone = onDone;
  }

  /** Jobs that are handed in and not done. */
  get jobs(): number {
    return this.#jobs;
  }

  get isFull(): boolean {
    return this.#jobs >= JOBS_AT_ONCE;
  }

  /** Waits for its turn to hand one more job in. Whoever then does not hand one in calls the next. */
  async turn(): Promise<void> {
    if (!this.isFull) return;
    await new Promise<void>((resolve) => this.#inLine.push(resolve));
  }

  callNext(): void {
    this.#inLine.shift()?.();
  }

  /** Hands one job in; resolves to an outcome for each of its chunks, in their order. */
  async run(planned: readonly PlannedChunk[]): Promise<readonly ChunkOutcome[]> {
    const { sync, metrics } = this.#options;
    const { chunks, lease } = this.#rooms;
    const names = planned.map(({ plan, ...chunk }) => ({
      ...chunk,
      relid: plan.relid,
      plan: fingerprint(plan),
    }));
    this.#jobs++;
    try {
      const outcomes = await chunks.run({ sync: sync.name, epoch: lease.epoch, chunks: names });
      outcomes.forEach(({ rows, bytes }, i) => {
        const labels = { sync: sync.name, table: tableLabel((planned[i] as PlannedChunk).plan) };
        metrics.copied.inc(labels, rows);
        metrics.sent.inc(labels, bytes);
      });
      return outcomes;
    } finally {
      this.#jobs--;
      this.callNext();
      this.#onDone();
    }
  }
}
