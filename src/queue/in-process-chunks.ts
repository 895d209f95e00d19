/** Chunks of a copy when all of them are copied by this process. */
import { IbexError } from '../core/errors.ts';
import type { ChunkHandler, ChunkJob, ChunkOutcome, ChunkQueue } from '../core/ports.ts';

interface Waiting {
  readonly job: ChunkJob;
  readonly settle: (outcomes: readonly ChunkOutcome[]) => void;
  readonly fail: (error: unknown) => void;
}

export function createInProcessChunks(): ChunkQueue {
  return new InProcessChunks();
}

class InProcessChunks implements ChunkQueue {
  readonly #running = new Set<Promise<unknown>>();
  #waiting: Waiting[] = [];
  #handler: ChunkHandler | undefined;
  #concurrency = 0;
  #closed = false;

  run(job: ChunkJob): Promise<readonly ChunkOutcome[]> {
    return new Promise((settle, fail) => {
      if (this.#closed) return fail(closedError());
      this.#waiting.push({ job, settle, fail });
      this.#start();
    });
  }

  consume(handler: ChunkHandler, concurrency: number): void {
    this.#handler = handler;
    this.#concurrency = concurrency;
    this.#start();
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const { fail } of this.#waiting.splice(0)) fail(closedError());
    await Promise.allSettled([...this.#running]);
  }

  #start(): void {
    while (this.#handler !== undefined && this.#running.size < this.#concurrency) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      const running = this.#handler(next.job).then(next.settle, next.fail);
      this.#running.add(running);
      void running.then(() => {
        this.#running.delete(running);
        this.#start();
      });
    }
  }
}

function closedError(): IbexError {
  return new IbexError('queue_lost', 'the queue was closed before the chunk was copied');
}
