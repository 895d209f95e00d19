/**
 * Counts how far the merge of a large backlog is. It is one transaction, so nobody can ask the target; what is known is
 * which statements are done, and so large tables are written in parts.
 */
import type { MergeProgress } from '../core/backlog.ts';
import { type TablePlan, tableLabel } from '../core/plan.ts';

export type OnMerging = (progress: MergeProgress | null) => void;

/** What a merge brings of one table. */
interface Amount {
  readonly plan: TablePlan;
  readonly present: number;
  readonly gone: number;
}

export class MergeMeter {
  readonly #tell: OnMerging;
  /** Rows to write or remove that each table has left, by its oid on the source. */
  readonly #left = new Map<number, number>();
  #rows = { done: 0, all: 0 };

  constructor(tell: OnMerging) {
    this.#tell = tell;
  }

  /** Looks for the newest row of each key of a table, after `done` of `all` tables. */
  gather(plan: TablePlan, done: number, all: number): void {
    this.#tell({ step: 'gather', table: tableLabel(plan), tables: { done, all }, rows: null });
  }

  /** Begins to write, perhaps for the second time in another way. */
  begin(tables: readonly Amount[]): void {
    for (const { plan, present, gone } of tables) this.#left.set(plan.relid, present + gone);
    this.#rows = { done: 0, all: tables.reduce((sum, { present, gone }) => sum + present + gone, 0) };
  }

  /** Does a piece of work that writes or removes so many rows of a table. */
  async write(plan: TablePlan, rows: number, work: () => Promise<unknown>): Promise<void> {
    this.#say('write', plan);
    await work();
    this.#left.set(plan.relid, Math.max(0, (this.#left.get(plan.relid) ?? 0) - rows));
    this.#rows.done = this.#rows.all - [...this.#left.values()].reduce((sum, left) => sum + left, 0);
  }

  /** All is written; the transaction is about to end. */
  finish(): void {
    this.#say('commit', null);
  }

  #say(step: MergeProgress['step'], plan: TablePlan | null): void {
    const done = [...this.#left.values()].filter((left) => left === 0).length;
    const table = plan === null ? null : tableLabel(plan);
    this.#tell({ step, table, tables: { done, all: this.#left.size }, rows: { ...this.#rows } });
  }
}
