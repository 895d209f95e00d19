/** Progress of a copy: one line that renews itself on a terminal, otherwise a line every ten seconds, on stderr. */
import type { SyncStatus } from '../observe/status.ts';

const EVERY_MS = 10_000;

export class ProgressLine {
  #shownAt = 0;
  #firstRows: number | undefined;

  show(status: SyncStatus, elapsedSeconds: number): void {
    const text = this.#text(status, elapsedSeconds);
    if (process.stderr.isTTY) {
      process.stderr.write(`\r\u001b[K${text}`);
    } else if (Date.now() - this.#shownAt >= EVERY_MS) {
      process.stderr.write(`${text}\n`);
      this.#shownAt = Date.now();
    }
  }

  end(): void {
    if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
  }

  #text({ tables }: SyncStatus, elapsedSeconds: number): string {
    const rows = tables.reduce((sum, table) => sum + table.copied, 0);
    this.#firstRows ??= rows;
    const done = tables.filter((table) => table.state === 'streaming' || table.state === 'joining').length;
    const chunks = tables.reduce((sum, table) => sum + table.chunks.all, 0);
    const finished = tables.reduce((sum, table) => sum + table.chunks.done, 0);
    const rate = (rows - this.#firstRows) / Math.max(elapsedSeconds, 1);
    const left =
      finished === 0 ? '' : `, about ${Math.ceil((elapsedSeconds / finished) * (chunks - finished))} s left`;
    return `copied ${rows} rows, ${done} of ${tables.length} tables, ${Math.round(rate)} rows/s${left}`;
  }
}
