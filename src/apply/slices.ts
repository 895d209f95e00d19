/**
 * Merges slices of a large table while the rest of its batch is still on its way, in the transaction of the batch.
 *
 * That is done where it cannot matter what else the batch brings: nothing but its key tells the rows of the table apart,
 * and no foreign key ties them to others. A slice that cannot be merged stays staged, and is
 * merged with all that follows.
 */
import type { BatchTable } from '../core/batch.ts';
import { keyOf, type TablePlan, tableLabel } from '../core/plan.ts';
import { serverError } from '../postgres/errors.ts';
import type { Session } from '../postgres/session.ts';
import type { ForeignKey } from './foreign-keys.ts';
import { mergeAlone, type StagedRows } from './merge.ts';
import { countStage, identityMoved } from './statements.ts';
import type { TargetFacts } from './target-table.ts';

/** What is staged of a table, or was: rows that are present, keys that are gone, deltas that named them. */
export interface Counts {
  readonly present: number;
  readonly gone: number;
  readonly deltas: number;
}

export const NOTHING: Counts = { present: 0, gone: 0, deltas: 0 };

export function add(one: Counts, other: Counts): Counts {
  return {
    present: one.present + other.present,
    gone: one.gone + other.gone,
    deltas: one.deltas + other.deltas,
  };
}

export async function countStaged(session: Session, plan: TablePlan): Promise<Counts> {
  return countsOf(await session.row<CountsRow>(countStage(plan)));
}

type CountsRow = Record<keyof Counts, string>;

/** What `countStage` gives. */
export function countsOf({ present, gone, deltas }: CountsRow): Counts {
  return { present: Number(present), gone: Number(gone), deltas: Number(deltas) };
}

export interface SlicesOptions {
  readonly session: Session;
  /** What is known of a table that still stands where the batch took it from and whose rows stand alone; else null. */
  readonly readAlone: (table: BatchTable) => Promise<TargetFacts | null>;
  /** False: what was merged of a table is to be taken back, to be merged with all that follows. */
  readonly accepts: (plan: TablePlan) => Promise<boolean>;
  /** Empties the staging table, which holds so many rows. */
  readonly clear: (plan: TablePlan, rows: number) => Promise<void>;
}

/** The slices of one batch. */
export class Slices {
  readonly #options: SlicesOptions;
  readonly #merged = new Map<number, Counts>();
  readonly #facts = new Map<number, TargetFacts | null>();

  constructor(options: SlicesOptions) {
    this.#options = options;
  }

  /** What was merged of a table. */
  mergedOf({ relid }: TablePlan): Counts {
    return this.#merged.get(relid) ?? NOTHING;
  }

  /** Merges what is staged of a table. False: it has to wait for the rest of the batch, and so has what follows. */
  async merge(table: BatchTable): Promise<boolean> {
    const { plan } = table;
    const { session, readAlone, accepts, clear } = this.#options;
    const known = this.#facts.get(plan.relid);
    const facts = known === undefined ? await readAlone(table) : known;
    this.#facts.set(plan.relid, facts);
    if (facts === null) return false;
    const counts = await countStaged(session, plan);
    await session.run('savepoint slice');
    const merged = await this.#tryMerge({ plan, facts, ...counts });
    if (!merged || !(await accepts(plan))) {
      // Whatever stands in the way is found again, and named, when all of the batch is there.
      await session.run('rollback to savepoint slice; release savepoint slice');
      return false;
    }
    await session.run('release savepoint slice');
    await clear(plan, counts.present + counts.gone);
    this.#merged.set(plan.relid, add(this.mergedOf(plan), counts));
    return true;
  }

  async #tryMerge(table: StagedRows): Promise<boolean> {
    try {
      await mergeAlone(this.#options.session, table);
      return true;
    } catch (error) {
      if (serverError(error) === undefined) throw error;
      return false;
    }
  }
}

/** Whether slices of a table can be merged at all, as far as its batch tells. */
export function comesInSlices({ plan, truncated, staged }: BatchTable): boolean {
  return plan.mode === 'key' && truncated.length === 0 && staged === undefined;
}

/** Whether the rows of a table are tied to no others, neither by a constraint nor by how keys compare. */
export function standsAlone(
  plan: TablePlan,
  facts: TargetFacts,
  foreignKeys: readonly ForeignKey[],
): boolean {
  const tied = foreignKeys.flatMap(({ child, parent }) => [tableLabel(child), tableLabel(parent)]);
  return (
    facts.arbiter &&
    facts.takesOnConflict &&
    !facts.rivals &&
    facts.unchecked.length === 0 &&
    identityMoved(plan, facts) === null &&
    keyOf(plan).every((column) => column.same && column.match?.exact) &&
    !tied.includes(tableLabel(plan))
  );
}
