/** Does together what comes one by one. */
import { setTimeout as sleep } from 'node:timers/promises';

/** How long to wait for more, in milliseconds. */
export interface Gathering {
  /** How often `atMostMs` is asked again: what is still to come may have come. */
  readonly everyMs: number;
  /** Given how many wait already. */
  readonly atMostMs: (waiting: number) => number;
}

export class Batching<In, Out> {
  readonly #work: (items: readonly In[]) => Promise<readonly Out[]>;
  readonly #gathering: Gathering;
  #waiting: { item: In; resolve: (out: Out) => void; reject: (error: unknown) => void }[] = [];
  #running = false;

  /**
   * `work` resolves to as many results as there are items, in their order; what it throws concerns all of them. What comes
   * while it works is done together the next time.
   */
  constructor(work: (items: readonly In[]) => Promise<readonly Out[]>, gathering: Gathering) {
    this.#work = work;
    this.#gathering = gathering;
  }

  add(item: In): Promise<Out> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject });
      if (!this.#running) void this.#run();
    });
  }

  async #run(): Promise<void> {
    this.#running = true;
    while (this.#waiting.length > 0) {
      await this.#gather();
      const batch = this.#waiting.splice(0);
      try {
        const results = await this.#work(batch.map(({ item }) => item));
        batch.forEach(({ resolve }, i) => {
          resolve(results[i] as Out);
        });
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    this.#running = false;
  }

  async #gather(): Promise<void> {
    const { everyMs, atMostMs } = this.#gathering;
    for (let waited = 0; waited < atMostMs(this.#waiting.length); waited += everyMs) await sleep(everyMs);
  }
}
