/**
 * How far large backlogs are staged: which tables have pieces on the target, which piece comes next, when nothing is left
 * but the batch that takes them in. Starts from what the target has kept, and is thrown away with its lane. It decides
 * about work only: what a batch may rely on is looked at again in the batch's own transaction.
 */
import type { StageRecord } from '../apply/stages.ts';
import { fingerprint } from '../backfill/copier.ts';
import type { ReadTable, TableStaging } from '../capture/trigger/cut.ts';
import {
  type BlockRange,
  type DeltaFile,
  type DeltaWindow,
  type LargePart,
  nextRange,
  type Piece,
} from '../core/backlog.ts';
import { type TablePlan, tableLabel } from '../core/plan.ts';
import type { Snapshot } from '../core/position.ts';

/** Bytes of a piece, about: what is in the spool at once, and what a crash costs. */
const PIECE_BYTES = 128 * 1024 * 1024;
/** Deltas in a block of a delta table, about. */
const DELTAS_PER_BLOCK = 100;

/** How far the backlog of one table is staged, as far as its blocks tell. */
export interface StagingProgress {
  readonly table: string;
  /** Deltas staged in this round, and about how many are left. */
  readonly staged: number;
  readonly left: number;
  /** Null until there is a piece. */
  readonly secondsLeft: number | null;
}

/** A window of deltas that is being staged. */
interface Round extends DeltaWindow {
  readonly deltas: number | null;
  readonly covered: BlockRange[];
  /** Null until somebody has looked. */
  files: readonly DeltaFile[] | null;
  complete: boolean;
  /** Blocks, and milliseconds, of the pieces that this lane has read. */
  blocks: number;
  sinceMs: number;
}

interface Stage {
  readonly lower: Snapshot;
  readonly plan: string;
  pieces: number;
  round: Round;
  bytesPerBlock: number;
}

export class Staging {
  readonly #above: number;
  readonly #stages = new Map<number, Stage>();
  /** Tables that were truncated while they were staged: they are read as they are. */
  readonly #whole = new Set<number>();

  /** `above`: a table with more unread deltas is staged; `records`: what the target has kept. */
  constructor(above: number, records: readonly StageRecord[]) {
    this.#above = above;
    for (const record of records) {
      const stage = stageOf(record);
      if (stage !== undefined) this.#stages.set(record.relid, stage);
    }
  }

  /** What a batch from `position` has to know of a table. What was staged for another position or plan is forgotten. */
  describe(plan: TablePlan, lower: Snapshot): TableStaging | undefined {
    const stage = this.#stages.get(plan.relid);
    if (stage !== undefined && (stage.lower !== lower || stage.plan !== fingerprint(plan))) {
      this.#stages.delete(plan.relid);
      return this.describe(plan, lower);
    }
    if (this.#whole.has(plan.relid)) return undefined;
    if (stage === undefined) return { above: this.#above, part: null, roundBefore: null };
    const { pieces, round } = stage;
    const part = { upto: round.upto, pieces, lower, plan: stage.plan };
    return { above: this.#above, part, roundBefore: round.deltas };
  }

  /** A table of these that has pieces left to stage, if there is one. */
  unfinished(tables: readonly ReadTable[]): ReadTable | undefined {
    return tables.find(({ plan }) => this.#stages.get(plan.relid)?.round.complete === false);
  }

  /** The next piece of a table's round; undefined when the round is complete. `look` finds out what there is. */
  async next(plan: TablePlan, look: () => Promise<readonly DeltaFile[]>): Promise<Piece | undefined> {
    const stage = this.#stages.get(plan.relid);
    if (stage === undefined) return undefined;
    const { round } = stage;
    round.files ??= await look();
    const range = nextRange(round.files, round.covered, this.#blocksOf(stage));
    if (range === undefined) {
      round.complete = true;
      return undefined;
    }
    const { after, upto } = round;
    return { ...range, after, upto, n: stage.pieces + 1, lower: stage.lower, plan: stage.plan };
  }

  /** A piece is in the queue. */
  took({ relid }: TablePlan, piece: Piece, bytes: number): void {
    const stage = this.#stages.get(relid);
    if (stage === undefined) return;
    const blocks = piece.end - piece.first;
    stage.pieces = piece.n;
    stage.round.covered.push(piece);
    stage.round.blocks += blocks;
    stage.bytesPerBlock = bytes / blocks;
  }

  /** Begins a round. */
  begin({ plan, after, upto, deltas }: LargePart, lower: Snapshot): void {
    const known = this.#stages.get(plan.relid);
    this.#stages.set(plan.relid, {
      lower,
      plan: fingerprint(plan),
      pieces: known?.pieces ?? 0,
      round: { ...newRound(after, upto), deltas },
      bytesPerBlock: known?.bytesPerBlock ?? 0,
    });
  }

  /** What was staged of a table does not count any more, and it is not staged again. */
  spoil({ relid }: TablePlan): void {
    this.#stages.delete(relid);
    this.#whole.add(relid);
  }

  /** A batch has taken these tables in. */
  taken(plans: readonly TablePlan[]): void {
    for (const { relid } of plans) {
      this.#stages.delete(relid);
      this.#whole.delete(relid);
    }
  }

  /** Null for a table of which nothing is staged. */
  progressOf(plan: TablePlan): StagingProgress | null {
    const round = this.#stages.get(plan.relid)?.round;
    if (round?.files == null) return null;
    const all = blocksIn(round.files);
    const done = round.covered.reduce((sum, { first, end }) => sum + end - first, 0);
    const deltas = round.deltas ?? all * DELTAS_PER_BLOCK;
    const [share, passed] = [all === 0 ? 1 : Math.min(1, done / all), Date.now() - round.sinceMs];
    const secondsLeft = round.blocks === 0 ? null : ((all - done) / round.blocks) * (passed / 1000);
    const staged = Math.round(deltas * share);
    return { table: tableLabel(plan), staged, left: deltas - staged, secondsLeft };
  }

  #blocksOf({ bytesPerBlock }: Stage): number {
    const byDeltas = this.#above / 2 / DELTAS_PER_BLOCK;
    const byBytes = bytesPerBlock === 0 ? Number.POSITIVE_INFINITY : PIECE_BYTES / bytesPerBlock;
    return Math.max(1, Math.floor(Math.min(byDeltas, byBytes)));
  }
}

function newRound(after: Snapshot, upto: Snapshot): Round {
  return {
    ...{ after, upto, deltas: null, covered: [], files: null },
    ...{ complete: false, blocks: 0, sinceMs: Date.now() },
  };
}

/** The last round is gone on with; whether it was complete the source has to say. */
function stageOf({ lower, plan, pieces }: StageRecord): Stage | undefined {
  const last = pieces.at(-1);
  if (last === undefined) return undefined;
  const covered = pieces.filter(({ upto }) => upto === last.upto);
  const round = { ...newRound(last.after, last.upto), covered };
  return { lower, plan, pieces: last.n, round, bytesPerBlock: 0 };
}

function blocksIn(files: readonly DeltaFile[]): number {
  return files.reduce((sum, { blocks }) => sum + blocks, 0);
}
