/**
 * What is said of the merge of a large backlog: a line of the log for each step and every ten seconds, the metrics, and the target's record,
 * where `ibex status` finds it.
 */
import type { MergeProgress, MergeStatus } from '../core/backlog.ts';
import type { Logger } from '../observe/log.ts';
import { mergeText, writeMerging } from '../observe/merging.ts';
import type { Metrics } from '../observe/metrics.ts';
import { LINE_EVERY_MS } from '../observe/progress-text.ts';
import type { Session } from '../postgres/session.ts';

interface Merge {
  readonly progress: MergeProgress;
  readonly sinceMs: number;
  /** When the first row was about to be written; null before that. */
  readonly writingSinceMs: number | null;
}

export class MergeReport {
  readonly #sync: string;
  readonly #log: Logger;
  readonly #metrics: Metrics;
  #merge: Merge | null = null;
  /** The target's record says that there is one, or may say so from before. */
  #recorded = true;
  #said = { at: 0, step: '' };

  constructor(sync: string, log: Logger, metrics: Metrics) {
    this.#sync = sync;
    this.#log = log;
    this.#metrics = metrics;
  }

  /** Null: there is none any more. */
  note(progress: MergeProgress | null): void {
    const now = Date.now();
    if (progress === null) {
      this.#merge = null;
      return;
    }
    const writingSinceMs = this.#merge?.writingSinceMs ?? (progress.step === 'write' ? now : null);
    this.#merge = { progress, sinceMs: this.#merge?.sinceMs ?? now, writingSinceMs };
  }

  /** Says how far it is, to all that are to know. Called every second or so. */
  async tell(target: Session): Promise<void> {
    const status = this.#status();
    this.#metrics.showMerge(this.#sync, status);
    if (status !== null) this.#say(status);
    if (status === null && !this.#recorded) return;
    await writeMerging(target, this.#sync, status);
    this.#recorded = status !== null;
  }

  #say(status: MergeStatus): void {
    const { at, step } = this.#said;
    if (status.step === step && Date.now() - at < LINE_EVERY_MS) return;
    this.#said = { at: Date.now(), step: status.step };
    this.#log.info({ ...status }, mergeText(status));
  }

  #status(): MergeStatus | null {
    if (this.#merge === null) return null;
    const { progress, sinceMs, writingSinceMs } = this.#merge;
    const { rows } = progress;
    const seconds = (since: number) => (Date.now() - since) / 1000;
    const isKnown = rows !== null && rows.done > 0 && writingSinceMs !== null;
    const secondsLeft = isKnown ? (seconds(writingSinceMs) / rows.done) * (rows.all - rows.done) : null;
    return { ...progress, seconds: seconds(sinceMs), secondsLeft };
  }
}
