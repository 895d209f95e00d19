/** When the next chunk may begin: not while the sync is paused, and one after the other while the source is busy. */
import { setTimeout as sleep } from 'node:timers/promises';

/** Beside a busy source, copying rests after a chunk for as long as the chunk took, within these bounds. */
const REST_MIN_MS = 500;
const REST_MAX_MS = 10_000;
const LOOK_MS = 100;

export interface PaceOptions {
  readonly isPaused: () => boolean;
  readonly isBusy: () => boolean;
}

export class Pace {
  readonly #options: PaceOptions;
  #underWay = 0;
  #restUntil = 0;

  constructor(options: PaceOptions) {
    this.#options = options;
  }

  /** Does one chunk's work once it may begin. Rejects when the signal comes before. */
  async within<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    while (!this.#mayBegin()) await sleep(LOOK_MS, undefined, { signal });
    signal.throwIfAborted();
    const began = Date.now();
    this.#underWay++;
    try {
      return await work();
    } finally {
      this.#underWay--;
      const now = Date.now();
      this.#restUntil = now + Math.min(REST_MAX_MS, Math.max(REST_MIN_MS, now - began));
    }
  }

  #mayBegin(): boolean {
    const { isPaused, isBusy } = this.#options;
    if (isPaused()) return false;
    return !isBusy() || (this.#underWay === 0 && Date.now() >= this.#restUntil);
  }
}
