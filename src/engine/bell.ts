/** Ends a pause before its time: what somebody rests for may have happened, in this process. */
export class Bell {
  #rung = 0;
  readonly #resting = new Set<() => void>();

  /** How often it has rung. */
  get rung(): number {
    return this.#rung;
  }

  ring(): void {
    this.#rung++;
    for (const wake of [...this.#resting]) wake();
  }

  /** Rests for so long, until the signal or until it rings; not at all if it has rung more than `heard` times. */
  rest(ms: number, signal: AbortSignal, heard = this.#rung): Promise<void> {
    if (signal.aborted || this.#rung > heard) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.#resting.delete(wake);
        signal.removeEventListener('abort', wake);
        resolve();
      };
      const timer = setTimeout(wake, ms);
      this.#resting.add(wake);
      signal.addEventListener('abort', wake);
    });
  }
}
