/** What is said of large backlogs while they are staged: a line of the log every ten seconds, and the metrics. */
import { type TablePlan, tableLabel } from '../core/plan.ts';
import type { Logger } from '../observe/log.ts';
import type { Metrics } from '../observe/metrics.ts';
import { LINE_EVERY_MS } from '../observe/progress-text.ts';
import { countText, timeText } from '../observe/units.ts';
import type { StagingProgress } from './staging.ts';

export class StagingLog {
  readonly #sync: string;
  readonly #log: Logger;
  readonly #metrics: Metrics;
  #saidAt = 0;

  constructor(sync: string, log: Logger, metrics: Metrics) {
    this.#sync = sync;
    this.#log = log;
    this.#metrics = metrics;
  }

  /** Null: all is staged, and the batch that takes it in is on its way. */
  note(plan: TablePlan, progress: StagingProgress | null): void {
    const table = tableLabel(plan);
    this.#metrics.showBacklog(this.#sync, table, progress);
    if (progress === null) {
      this.#log.info({ table }, `${table}: the backlog is staged and will be merged in one transaction`);
    } else if (Date.now() - this.#saidAt >= LINE_EVERY_MS) {
      this.#saidAt = Date.now();
      this.#log.info({ ...progress }, progressText(progress));
    }
  }
}

function progressText({ table, staged, left, secondsLeft }: StagingProgress): string {
  const time = secondsLeft === null ? 'time left unknown' : `about ${timeText(secondsLeft)} left`;
  return `${table}: a large backlog is staged: ${countText(staged)} of ${countText(staged + left)} changes, ${time}`;
}
