/** Does together what comes one by one. */
import { setTimeout as sleep } from 'node:timers/promises';

/** What comes within so many milliseconds is done together, and all that comes while that is being done. */
const GATHER_MS = 50;

export class Batching<In, Out> {
  readonly #work: (items: readonly In[]) => Promise<readonly Out[]>;
  #waiting: { item: In; resolve: (out: Out) => void; reject: (error: unknown) => void }[] = [];
  #running = false;

  /** `work` resolves to as many results as there are items, in their order; what it throws concerns all of them. */
  constructor(work: (items: readonly In[]) => Promise<readonly Out[]>) {
    this.#work = work;
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
      await sleep(GATHER_MS);
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
}
