/**
 * Applies batches to the target: stages the rows as they arrive, merges them, moves the checkpoint, all in one
 * transaction. Whether a batch may be applied at all is decided by the checkpoint rule, under a lock on the
 * checkpoint's row; whatever the queue does, nothing is applied twice, out of order or half.
 */

import { Abort, type Settled, type Settling } from '../conflict/settling.ts';
import type { Piece } from '../core/backlog.ts';
import type { BatchHeader, BatchTable } from '../core/batch.ts';
import { judge } from '../core/checkpoint.ts';
import { IbexError } from '../core/errors.ts';
import { failpoint } from '../core/failpoints.ts';
import { type TablePlan, tableLabel } from '../core/plan.ts';
import type { BatchOutcome, IncomingBatch } from '../core/ports.ts';
import { identityDifference, type Snapshot } from '../core/position.ts';
import type { Session } from '../postgres/session.ts';
import type { Statement } from '../postgres/together.ts';
import { account } from './accounts.ts';
import { type ForeignKey, isUnwatched, readForeignKeys, readingForeignKeys } from './foreign-keys.ts';
import { load } from './loading.ts';
import { merge, type StagedTable } from './merge.ts';
import { MergeMeter, type OnMerging } from './merge-meter.ts';
import { add, type Counts, countStaged, NOTHING, Slices, standsAlone } from './slices.ts';
import { dropStages, hasPiece, keepPiece, takeStaged } from './stages.ts';
import {
  bookingBatch,
  type Disturbed,
  lockBatchTables,
  lockedCheckpoint,
  lockingCheckpoint,
  lockSyncTables,
  movingCheckpoint,
  notingSeen,
  readSyncTables,
  type SyncTable,
  type TableAccount,
} from './state.ts';
import * as sql from './statements.ts';
import { disturbed, readFacts, type TargetFacts } from './target-table.ts';

/** Dead rows that a staging table may gather by DELETE, and all of which each batch reads again, before it is truncated. */
const DEAD_ROWS = 2_000;
/** For how long a replica relies on what it knows of the foreign keys that it has to look after itself. */
const LOOK_AGAIN_MS = 10_000;

interface Stage {
  readonly definition: string;
  dead: number;
}

/** What one applied batch did, for metrics. */
export interface AppliedBatch {
  readonly header: BatchHeader;
  readonly accounts: readonly TableAccount[];
}

/** What is staged of one table, and what the batch brings of it in all. */
interface Staged extends Omit<StagedTable, 'facts'> {
  readonly table: BatchTable;
  readonly all: Counts;
}

export class Applier {
  readonly #session: Session;
  readonly #origin: string;
  readonly #replica: boolean;
  readonly #settling: Settling | null;
  readonly #onApplied: (batch: AppliedBatch) => void;
  readonly #onMerging: OnMerging;
  readonly #stages = new Map<number, Stage>();
  /** Tables of which pieces are staged, by their oids on the source. */
  readonly #large: Set<number>;
  readonly #facts = new Map<string, TargetFacts>();
  #outside: { readonly keys: readonly ForeignKey[]; readonly readAt: number } | null = null;

  /** `origin` names the source node; capture on the target notes it with every row we write. */
  constructor(options: {
    session: Session;
    origin: string;
    /** The session has become a replica: foreign keys do not act on what it writes. */
    replica: boolean;
    /** Where others write the target too, what decides between their rows and those of batches. */
    settling?: Settling | null;
    /** Tables of which pieces are staged from before, by their oids on the source. */
    large?: readonly number[];
    onApplied: (batch: AppliedBatch) => void;
    /** Hears how far the merge of a large backlog is, and null when it has ended. */
    onMerging?: OnMerging;
  }) {
    this.#session = options.session;
    this.#origin = options.origin;
    this.#replica = options.replica;
    this.#settling = options.settling ?? null;
    this.#large = new Set(options.large ?? []);
    this.#onApplied = options.onApplied;
    this.#onMerging = options.onMerging ?? (() => undefined);
  }

  /** Forgets what it knows of the target's tables, after a change of their foreign keys, triggers or columns. */
  forgetCatalog(): void {
    this.#facts.clear();
    this.#outside = null;
  }

  async apply(batch: IncomingBatch): Promise<BatchOutcome> {
    const { header } = batch;
    let accounts: TableAccount[] = [];
    try {
      const position = await this.#applyInTransaction(batch, (booked) => {
        accounts = booked;
      });
      failpoint(header.piece === undefined ? 'after-commit' : 'piece-kept');
      if (position === header.to) {
        for (const { plan } of header.tables) this.#large.delete(plan.relid);
        this.#onApplied({ header, accounts });
      }
      return { id: header.id, position };
    } catch (error) {
      // Staging tables that the transaction created went with it.
      this.#stages.clear();
      if (!(error instanceof Abort)) throw error;
      await error.tell(this.#session);
      throw error.error;
    } finally {
      this.#onMerging(null);
    }
  }

  #applyInTransaction(batch: IncomingBatch, book: (accounts: TableAccount[]) => void): Promise<Snapshot> {
    const { header } = batch;
    return this.#session.transaction(
      '',
      async ([, locked]) => {
        const checkpoint = lockedCheckpoint(this.#session, header.sync, locked?.rows ?? []);
        const verdict = judge(checkpoint, header);
        if (verdict === 'skip') return checkpoint.position;
        if (verdict !== 'apply') throw this.#refusal(verdict, header, checkpoint.epoch);
        const difference = identityDifference(checkpoint.source, header.source);
        if (difference) {
          throw new IbexError('identity', `batch ${header.id} comes from another source: ${difference}`);
        }
        if (header.piece === undefined) {
          book(await this.#mergeBatch(batch));
          failpoint('before-commit');
          return header.to;
        }
        await this.#keepPiece(batch, header.piece);
        return header.from;
      },
      [{ text: sql.markOrigin(this.#origin) }, lockingCheckpoint(header.sync)],
    );
  }

  async #mergeBatch(batch: IncomingBatch): Promise<TableAccount[]> {
    const { header } = batch;
    const isLarge = header.tables.some((table) => table.staged !== undefined);
    const meter = new MergeMeter(isLarge ? this.#onMerging : () => undefined);
    const staged = await this.#stage(batch, meter);
    if (isLarge) failpoint('backlog-gathered');
    failpoint('staging-loaded');
    const current = await this.#inStep(header, staged);
    const foreignKeys = await this.#settleForeignKeys(
      header.sync,
      current.map(({ plan }) => plan),
    );
    const settled = await this.#merge(header, current, foreignKeys, meter);
    meter.finish();
    const accounts = current.map(({ table, all }) => account(table, all, settled.get(table.plan.relid)));
    const large = header.tables.map(({ plan }) => plan.relid).filter((relid) => this.#large.has(relid));
    if (large.length > 0) await dropStages(this.#session, header.sync, large);
    const [booked] = await this.#session.together([
      bookingBatch(header.sync, accounts),
      movingCheckpoint(header.sync, header),
      ...this.#notingSeen(header),
      ...staged.flatMap(({ plan, present, gone }) => this.#clearing(plan, present + gone)),
    ]);
    // No error is no proof: nothing of the application may have fired, which would swallow or change rows in silence.
    const [fired] = (booked?.rows ?? []) as Disturbed[];
    if (fired !== undefined) throw disturbed(fired, fired.firing);
    return accounts;
  }

  /** While some table is out of step with the lane that carries our changes, nothing more of them may be forgotten. */
  #notingSeen({ seen }: BatchHeader): Statement[] {
    if (this.#settling === null || seen === undefined || seen.position === null || seen.apart.length > 0)
      return [];
    return [notingSeen(this.#settling.counterpart, seen.position)];
  }

  async #merge(
    header: BatchHeader,
    staged: readonly Staged[],
    foreignKeys: readonly ForeignKey[],
    meter: MergeMeter,
  ): Promise<Settled> {
    const context = {
      session: this.#session,
      sync: header.sync,
      replica: this.#replica,
      foreignKeys,
      meter,
    };
    const tables = await this.#toMerge(staged, foreignKeys);
    if (this.#settling !== null) return this.#settling.merge(context, header, tables, merge);
    await merge(context, tables);
    return new Map();
  }

  /** Stages a piece and leaves the checkpoint where it is: what the piece is good for, its entry says. */
  async #keepPiece(batch: IncomingBatch, piece: Piece): Promise<void> {
    const { header } = batch;
    const [table] = header.tables as readonly [BatchTable];
    const { plan } = table;
    const [state] = await lockSyncTables(this.#session, header.sync, [plan.relid]);
    if (!standsAt(state, table)) throw this.#refusal('gap', header, header.epoch);
    if (await hasPiece(this.#session, { sync: header.sync, relid: plan.relid }, piece)) return;
    await this.#prepare(plan);
    const [staged] = (await this.#stage(batch)) as [Staged];
    await keepPiece(this.#session, header.sync, plan, piece, staged.all.deltas);
    this.#large.add(plan.relid);
    await this.#session.together(this.#clearing(plan, staged.present + staged.gone));
    failpoint('piece-written');
  }

  #refusal(verdict: 'gap' | 'fenced', header: BatchHeader, epoch: number): IbexError {
    return verdict === 'fenced'
      ? new IbexError('taken', `sync ${header.sync} was taken over by another daemon (epoch ${epoch})`)
      : new IbexError(
          'gap',
          `batch ${header.id} does not start where the checkpoint of ${header.sync} stands`,
        );
  }

  /** Loads what comes, and merges of it what can be before the rest is there. */
  async #stage(batch: IncomingBatch, meter?: MergeMeter): Promise<Staged[]> {
    const { header } = batch;
    const slices = new Slices({
      session: this.#session,
      readAlone: (table) => this.#readAlone(header, table),
      accepts: async (plan) => (await this.#settling?.accepts(this.#session, header, plan)) ?? true,
      clear: async (plan, rows) => {
        await this.#session.together(this.#clearing(plan, rows));
      },
    });
    const loaded = await load(batch, {
      session: this.#session,
      prepare: (plan) => this.#prepare(plan),
      onSlice: (table) => slices.merge(table),
    });
    const staged: Staged[] = [];
    for (const table of header.tables) {
      if (table.staged !== undefined) meter?.gather(table.plan, staged.length, header.tables.length);
      const merged = slices.mergedOf(table.plan);
      staged.push(await this.#count(header, table, loaded.get(table.plan.relid) ?? NOTHING, merged));
    }
    return staged;
  }

  /** The facts of a table of which slices may be merged at once; null of any other. */
  async #readAlone(header: BatchHeader, table: BatchTable): Promise<TargetFacts | null> {
    const { plan } = table;
    if (header.piece !== undefined) return null;
    if ((await this.#inStep(header, [{ table }])).length === 0) return null;
    const foreignKeys = await this.#settleForeignKeys(header.sync, [plan]);
    const facts = await this.#factsOf(plan);
    return standsAlone(plan, facts, foreignKeys) ? facts : null;
  }

  async #count(header: BatchHeader, table: BatchTable, loaded: Counts, merged: Counts): Promise<Staged> {
    const { plan } = table;
    let counted = loaded;
    if (table.staged !== undefined) {
      await this.#prepare(plan);
      const deltas = counted.deltas + (await takeStaged(this.#session, header.sync, plan, table.staged));
      counted = { ...(await countStaged(this.#session, plan)), deltas };
    }
    const all = add(counted, merged);
    if (plan.mode === 'key' && header.piece === undefined && all.deltas > table.captured) {
      throw noKeyAnyMore(plan);
    }
    return {
      table,
      plan,
      emptied: table.truncated,
      joins: table.floor !== undefined,
      present: counted.present,
      gone: counted.gone,
      all,
    };
  }

  /**
   * The tables that still stand where the batch took them from. One that was sent back to be copied, or held,
   * after the batch was read has a later state to come; what the batch knows of it is out of date. One that came into
   * step unknown to the reader is a gap: its changes are not in the batch, which would move the checkpoint over them.
   */
  async #inStep<T extends { readonly table: BatchTable }>(
    header: BatchHeader,
    staged: readonly T[],
  ): Promise<T[]> {
    // All at once, whichever are asked for: the order in which rows are locked is the same for everybody.
    const relids = header.tables.map(({ plan }) => plan.relid);
    const states = await lockBatchTables(this.#session, header.sync, relids, header.inStep);
    const looked = new Set(header.inStep);
    const passedOver = states.find(({ state, relid }) => state === 'streaming' && !looked.has(relid));
    if (passedOver !== undefined) {
      throw new IbexError(
        'gap',
        `batch ${header.id} was read without ${tableLabel(passedOver)}, which is in step`,
      );
    }
    const byRelid = new Map(states.map((state) => [state.relid, state]));
    return staged.filter(({ table }) => standsAt(byRelid.get(table.plan.relid), table));
  }

  /** The tables with something to do: of thousands that join at once, most bring nothing. */
  async #toMerge(staged: readonly Staged[], foreignKeys: readonly ForeignKey[]): Promise<StagedTable[]> {
    const referring = new Set(
      foreignKeys.flatMap(({ child, parent }) => [tableLabel(child), tableLabel(parent)]),
    );
    const tables: StagedTable[] = [];
    for (const one of staged) {
      const brings = one.present + one.gone + one.emptied.length > 0;
      if (!brings && !referring.has(tableLabel(one.plan))) continue;
      await this.#prepare(one.plan);
      tables.push({ ...one, facts: await this.#factsOf(one.plan) });
    }
    return tables;
  }

  /**
   * The foreign keys of the tables, which from here on nobody can add to until the transaction ends: ADD FOREIGN KEY
   * needs a lock that ours excludes. One that came back unseen would let a cascade take rows that no batch carries.
   */
  async #settleForeignKeys(sync: string, plans: readonly TablePlan[]): Promise<readonly ForeignKey[]> {
    if (plans.length === 0) return [];
    if (this.#replica) return this.#keysFromOutside(sync);
    const [, found] = await this.#session.together([
      { text: sql.lockForWriting(plans) },
      readingForeignKeys(sync, plans),
    ]);
    return found?.rows as ForeignKey[];
  }

  /** Those that a replica is not held to, see `isUnwatched`. */
  async #keysFromOutside(sync: string): Promise<readonly ForeignKey[]> {
    // Which tables are in step changes from one batch to the next.
    const rivals = this.#settling !== null;
    if (rivals || this.#outside === null || Date.now() - this.#outside.readAt > LOOK_AGAIN_MS) {
      const tables = await readSyncTables(this.#session, sync);
      const keys = (await readForeignKeys(this.#session, sync, tables)).filter((key) =>
        isUnwatched(key, rivals),
      );
      this.#outside = { keys, readAt: Date.now() };
    }
    return this.#outside.keys;
  }

  async #prepare(plan: TablePlan): Promise<void> {
    const definition = sql.createStage(plan);
    if (this.#stages.get(plan.relid)?.definition === definition) return;
    await this.#session.run(`drop table if exists ${sql.stageName(plan)}`);
    await this.#session.run(definition);
    this.#stages.set(plan.relid, { definition, dead: 0 });
  }

  /** What empties the staging table of a table, which holds so many rows. */
  #clearing(plan: TablePlan, rows: number): Statement[] {
    const stage = this.#stages.get(plan.relid);
    if (stage === undefined || rows === 0) return [];
    const how = stage.dead + rows <= DEAD_ROWS ? 'delete' : 'truncate';
    stage.dead = how === 'delete' ? stage.dead + rows : 0;
    return [{ text: sql.clearStage(plan, how), prepared: how === 'delete' }];
  }

  async #factsOf(plan: TablePlan): Promise<TargetFacts> {
    const label = tableLabel(plan);
    const known = this.#facts.get(label);
    if (known !== undefined) return known;
    const facts = await readFacts(this.#session, plan);
    this.#facts.set(label, facts);
    return facts;
  }
}

function standsAt(state: SyncTable | undefined, table: BatchTable): boolean {
  if (state === undefined) return false;
  if (table.floor === undefined) return state.state === 'streaming';
  return (state.state === 'joining' || state.state === 'held') && state.floor === table.floor;
}

/** A delta came with several rows: what was a key is none, and the catalogs will say so. */
function noKeyAnyMore(plan: TablePlan): IbexError {
  const label = tableLabel(plan);
  return new IbexError('recopy', `several rows of ${label} share what was its key`, { table: label });
}
