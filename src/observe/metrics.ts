/** Every metric, with its name, unit and labels, in one place. Values of rows never appear in a label. */
import type { DeltaUsage } from '../capture/trigger/budget.ts';
import type { MergeStatus } from '../core/backlog.ts';
import type { CopyProgress } from './progress.ts';
import { Counter, Gauge, Histogram, Registry } from './prometheus.ts';

export class Metrics {
  readonly registry = new Registry();
  readonly batches = new Counter({
    name: 'ibex_batches_applied_total',
    help: 'Batches applied to the target.',
    labelNames: ['sync'] as const,
    registers: [this.registry],
  });
  readonly captured = new Counter({
    name: 'ibex_deltas_captured_total',
    help: 'Deltas (changed keys noted on the source) taken in by batches.',
    labelNames: ['sync', 'table'] as const,
    registers: [this.registry],
  });
  readonly applied = new Counter({
    name: 'ibex_keys_applied_total',
    help: 'Keys (or, for tables without a key, rows) carried to the target.',
    labelNames: ['sync', 'table'] as const,
    registers: [this.registry],
  });
  readonly coalesced = new Counter({
    name: 'ibex_deltas_coalesced_total',
    help: 'Deltas made needless by another delta of the same key in the same batch.',
    labelNames: ['sync', 'table'] as const,
    registers: [this.registry],
  });
  readonly resolved = new Counter({
    name: 'ibex_keys_resolved_total',
    help: 'Keys of batches that were left out for what the target has, by the decision of a conflict.',
    labelNames: ['sync', 'table'] as const,
    registers: [this.registry],
  });
  readonly held = new Counter({
    name: 'ibex_keys_held_total',
    help: 'Keys of batches that were left out because a person is to decide a conflict.',
    labelNames: ['sync', 'table'] as const,
    registers: [this.registry],
  });
  readonly conflicts = new Counter({
    name: 'ibex_conflicts_total',
    help: 'Conflicts that were met, by their type, whatever became of them.',
    labelNames: ['sync', 'table', 'type'] as const,
    registers: [this.registry],
  });
  readonly clockSkew = new Gauge({
    name: 'ibex_clock_skew_seconds',
    help: "By how much the target's clock is ahead of the source's, where both sides are written.",
    labelNames: ['sync'] as const,
    registers: [this.registry],
  });
  readonly copied = new Counter({
    name: 'ibex_rows_copied_total',
    help: 'Rows copied by the backfill.',
    labelNames: ['sync', 'table'] as const,
    registers: [this.registry],
  });
  readonly sent = new Counter({
    name: 'ibex_bytes_copied_total',
    help: 'Bytes that COPY sent for the backfill.',
    labelNames: ['sync', 'table'] as const,
    registers: [this.registry],
  });
  readonly copyRows = new Gauge({
    name: 'ibex_copy_rows',
    help: 'Rows of the copy of existing rows: copied, and expected by the statistics of the source. None: not known.',
    labelNames: ['sync', 'kind'] as const,
    registers: [this.registry],
  });
  readonly copyBytes = new Gauge({
    name: 'ibex_copy_bytes',
    help: "Bytes on the source's disk, without indexes: copied, and planned. None: not known yet.",
    labelNames: ['sync', 'kind'] as const,
    registers: [this.registry],
  });
  readonly copyJobs = new Gauge({
    name: 'ibex_copy_jobs',
    help: 'Chunks that are being copied now, by whatever process.',
    labelNames: ['sync'] as const,
    registers: [this.registry],
  });
  readonly lag = new Histogram({
    name: 'ibex_lag_seconds',
    help: 'From the capture of the oldest change of a batch (clock of the source) to its commit on the target (clock of the daemon).',
    labelNames: ['sync'] as const,
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800],
    registers: [this.registry],
  });
  readonly queueBytes = new Gauge({
    name: 'ibex_queue_bytes',
    help: 'Bytes of rows in the queue between reader and applier.',
    labelNames: ['sync'] as const,
    registers: [this.registry],
  });
  readonly deltaBytes = new Gauge({
    name: 'ibex_delta_bytes',
    help: "Bytes of the source's disk that the delta tables of the sync take.",
    labelNames: ['sync'] as const,
    registers: [this.registry],
  });
  readonly deltaBudget = new Gauge({
    name: 'ibex_delta_budget_bytes',
    help: 'Bytes of deltas past which the capture of the largest tables ends. None: no limit.',
    labelNames: ['sync'] as const,
    registers: [this.registry],
  });
  readonly deltaAge = new Gauge({
    name: 'ibex_delta_oldest_seconds',
    help: 'Age of the oldest delta that is not acknowledged, up to a minute old itself; 0: there is none.',
    labelNames: ['sync'] as const,
    registers: [this.registry],
  });
  readonly deltaAgeLimit = new Gauge({
    name: 'ibex_delta_age_limit_seconds',
    help: 'Age of a delta past which the capture of its table ends. None: no limit.',
    labelNames: ['sync'] as const,
    registers: [this.registry],
  });
  readonly givenUp = new Gauge({
    name: 'ibex_tables_given_up',
    help: 'Tables whose deltas were given up for the sake of the disk: each needs a new backfill.',
    labelNames: ['sync'] as const,
    registers: [this.registry],
  });
  readonly tables = new Gauge({
    name: 'ibex_tables',
    help: 'Tables by state.',
    labelNames: ['sync', 'state'] as const,
    registers: [this.registry],
  });
  readonly paused = new Gauge({
    name: 'ibex_paused',
    help: '1 while the sync is paused, else 0.',
    labelNames: ['sync'] as const,
    registers: [this.registry],
  });
  readonly slowed = new Gauge({
    name: 'ibex_copy_slowed',
    help: '1 while the backfill holds back because the source is busy, else 0.',
    labelNames: ['sync'] as const,
    registers: [this.registry],
  });
  readonly backlog = new Gauge({
    name: 'ibex_backlog_deltas',
    help: 'Deltas of a large backlog: staged on the target, and left to stage. None: nothing is being staged.',
    labelNames: ['sync', 'table', 'kind'] as const,
    registers: [this.registry],
  });
  readonly backlogSeconds = new Gauge({
    name: 'ibex_backlog_seconds_left',
    help: 'About how long staging a large backlog will take; merging it comes after that. None: not known.',
    labelNames: ['sync', 'table'] as const,
    registers: [this.registry],
  });
  readonly mergeRows = new Gauge({
    name: 'ibex_merge_rows',
    help: 'Rows of a large backlog that is being merged in one transaction: written, and left. None: there is none.',
    labelNames: ['sync', 'kind'] as const,
    registers: [this.registry],
  });
  readonly mergeTables = new Gauge({
    name: 'ibex_merge_tables',
    help: 'Tables of a large backlog that is being merged: done, and left. None: there is none.',
    labelNames: ['sync', 'kind'] as const,
    registers: [this.registry],
  });
  readonly mergeSeconds = new Gauge({
    name: 'ibex_merge_seconds',
    help: 'For how long a large backlog has been merged (passed), and about how long it will take (left). None: not known.',
    labelNames: ['sync', 'kind'] as const,
    registers: [this.registry],
  });
  readonly restarts = new Counter({
    name: 'ibex_lane_restarts_total',
    help: 'Times a lane started again at its checkpoint, by the kind of error.',
    labelNames: ['sync', 'kind'] as const,
    registers: [this.registry],
  });

  /** Notes how far a large backlog of a table is staged; null: it is not. */
  showBacklog(
    sync: string,
    table: string,
    progress: { readonly staged: number; readonly left: number; readonly secondsLeft: number | null } | null,
  ): void {
    const labels = { sync, table };
    setOrRemove(this.backlog, { ...labels, kind: 'staged' }, progress?.staged ?? null);
    setOrRemove(this.backlog, { ...labels, kind: 'left' }, progress?.left ?? null);
    setOrRemove(this.backlogSeconds, labels, progress?.secondsLeft ?? null);
  }

  /** Notes how far the merge of a large backlog is; null: there is none. */
  showMerge(sync: string, merge: MergeStatus | null): void {
    const { tables = null, rows = null } = merge ?? {};
    setOrRemove(this.mergeTables, { sync, kind: 'done' }, tables?.done ?? null);
    setOrRemove(this.mergeTables, { sync, kind: 'left' }, tables && tables.all - tables.done);
    setOrRemove(this.mergeRows, { sync, kind: 'written' }, rows?.done ?? null);
    setOrRemove(this.mergeRows, { sync, kind: 'left' }, rows && rows.all - rows.done);
    setOrRemove(this.mergeSeconds, { sync, kind: 'passed' }, merge?.seconds ?? null);
    setOrRemove(this.mergeSeconds, { sync, kind: 'left' }, merge?.secondsLeft ?? null);
  }

  /** Notes how far the copy of a sync is. */
  showCopy(sync: string, { copied, expected, bytes, jobs }: CopyProgress): void {
    this.copyRows.set({ sync, kind: 'copied' }, copied);
    setOrRemove(this.copyRows, { sync, kind: 'expected' }, expected);
    this.copyBytes.set({ sync, kind: 'copied' }, bytes.copied);
    setOrRemove(this.copyBytes, { sync, kind: 'planned' }, bytes.planned);
    this.copyJobs.set({ sync }, jobs);
  }

  /** Notes what the deltas of a sync take of the source's disk. */
  showDisk(sync: string, { bytes, maxBytes, maxSeconds }: DeltaUsage, givenUp: number): void {
    this.deltaBytes.set({ sync }, bytes);
    setOrRemove(this.deltaBudget, { sync }, maxBytes);
    setOrRemove(this.deltaAgeLimit, { sync }, maxSeconds);
    this.givenUp.set({ sync }, givenUp);
  }
}

function setOrRemove<Label extends string>(
  gauge: Gauge<Label>,
  labels: Record<Label, string>,
  value: number | null,
) {
  if (value === null) gauge.remove(labels);
  else gauge.set(labels, value);
}
