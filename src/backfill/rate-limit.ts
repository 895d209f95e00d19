/** The most that copying may take from the source a second, over everything that shares the limit. */

/** What was not used is had later, up to so many milliseconds of it: a pause must not be made up for by a flood. */
const BURST_MS = 100;

export class RateLimit {
  readonly bytesPerSecond: number;
  readonly #now: () => number;
  /** When everything that was taken so far has had its time. */
  #busyUntil = Number.NEGATIVE_INFINITY;

  /** @param now a clock in milliseconds */
  constructor(bytesPerSecond: number, now: () => number = () => performance.now()) {
    this.bytesPerSecond = bytesPerSecond;
    this.#now = now;
  }

  /** Counts bytes that were let through, and says after how many milliseconds the next ones may follow. */
  reserve(bytes: number): number {
    const now = this.#now();
    this.#busyUntil = Math.max(this.#busyUntil, now - BURST_MS) + (bytes / this.bytesPerSecond) * 1000;
    return Math.max(0, this.#busyUntil - now);
  }
}
