/** What the demo says while it runs, on stderr: steps, and one line that renews itself on a terminal. */
import type { SyncStatus } from '../observe/status.ts';
import { addUp, tenths, whole } from './result.ts';

/** Between two lines where nothing can be renewed. */
const EVERY_MS = 3_000;

export class Progress {
  #shownAt = 0;
  #shown = false;
  #over = false;

  /** Something done or begun, to stay on the screen. */
  step(text: string): void {
    if (this.#over) return;
    this.#clear();
    process.stderr.write(`${text}\n`);
  }

  /** How it stands, until the next one. */
  show(text: string): void {
    if (this.#over) return;
    if (process.stderr.isTTY) {
      process.stderr.write(`\r\u001b[K  ${text.slice(0, (process.stderr.columns ?? 80) - 3)}`);
      this.#shown = true;
    } else if (Date.now() - this.#shownAt >= EVERY_MS) {
      process.stderr.write(`  ${text}\n`);
      this.#shownAt = Date.now();
    }
  }

  /** From now on others write: what is still under way after an interruption has nothing more to say. */
  end(): void {
    this.#clear();
    this.#over = true;
  }

  #clear(): void {
    if (this.#shown) process.stderr.write('\r\u001b[K');
    this.#shown = false;
  }
}

export function copyingText({ tables }: SyncStatus, transactionsPerSecond: number): string {
  const rows = tables.reduce((sum, table) => sum + table.copied, 0);
  const done = tables.filter(({ state }) => state === 'streaming').length;
  return `copying: ${whole(rows)} rows, ${done} of ${tables.length} tables in step; the shop does ${whole(transactionsPerSecond)} transactions/s`;
}

export function streamingText(
  status: SyncStatus,
  live: { secondsLeft: number; batches: number; transactionsPerSecond: number },
): string {
  const { captured } = addUp(status);
  return (
    `streaming: ${whole(captured)} changes in ${whole(live.batches)} batches, ${tenths(status.lag.seconds)} s behind; ` +
    `the shop does ${whole(live.transactionsPerSecond)} transactions/s; ${Math.max(0, Math.ceil(live.secondsLeft))} s left`
  );
}
