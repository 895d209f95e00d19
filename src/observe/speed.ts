/**
 * How fast a copy goes, smoothed, and so how long it will take. What was seen lately counts most; what is not known is
 * null. Pure: times come from outside.
 */

/** What happened this long ago counts a third of what happens now: several chunks of usual size and speed. */
const MEMORY_SECONDS = 20;
/** Before that a rate says more of the start than of the copy. */
const LEARNING_SECONDS = 3;

export interface Sample {
  /** In seconds, of a clock that does not jump. */
  readonly at: number;
  readonly bytes: number;
  readonly rows: number;
}

export interface Rate {
  readonly bytesPerSecond: number;
  readonly rowsPerSecond: number;
}

export class Speed {
  #last: Sample | undefined;
  #bytes = 0;
  #rows = 0;
  #weight = 0;
  #seconds = 0;

  /** Takes in how much is copied in all by now. */
  add(sample: Sample): void {
    const last = this.#last;
    this.#last = sample;
    // Less than before: something is copied again.
    if (last === undefined || sample.bytes < last.bytes || sample.rows < last.rows) {
      this.#forget();
      return;
    }
    const passed = sample.at - last.at;
    const fading = Math.exp(-passed / MEMORY_SECONDS);
    this.#bytes = this.#bytes * fading + sample.bytes - last.bytes;
    this.#rows = this.#rows * fading + sample.rows - last.rows;
    this.#weight = this.#weight * fading + passed;
    this.#seconds += passed;
  }

  /** Null until enough was seen. */
  get rate(): Rate | null {
    if (this.#seconds < LEARNING_SECONDS) return null;
    return { bytesPerSecond: this.#bytes / this.#weight, rowsPerSecond: this.#rows / this.#weight };
  }

  /** Null when that cannot be told: nothing moves, or nobody knows how much there is. */
  secondsLeft(bytesLeft: number | null): number | null {
    const { rate } = this;
    if (bytesLeft === null || rate === null || rate.bytesPerSecond <= 0) return null;
    return bytesLeft / rate.bytesPerSecond;
  }

  #forget(): void {
    this.#bytes = this.#rows = this.#weight = this.#seconds = 0;
  }
}
