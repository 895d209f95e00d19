/**
 * Merges a batch into tables that this side writes too.
 *
 * First as if there were nothing against it: the merge locks every row that it meets, so that a look at what we have
 * noted, after it, tells for certain whether a change of ours was overwritten of which the other side did not know.
 * Mostly there is none, and that look is all that two ways cost. Otherwise the merge is undone, the rows are locked,
 * the conflicts found and decided, and it is merged again without what lost; until nothing came in between.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { MergeContext, StagedTable } from '../apply/merge.ts';
import { countStaged } from '../apply/slices.ts';
import type { BatchHeader } from '../core/batch.ts';
import { type Rivalry, rulesOf } from '../core/conflict.ts';
import { IbexError, isKind } from '../core/errors.ts';
import { type TablePlan, tableLabel } from '../core/plan.ts';
import type { Snapshot } from '../core/position.ts';
import { tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { askFunctions } from './asking.ts';
import { knownOf, type OurTable, readOurs, type Unknown } from './ours.ts';
import { READ_ABORTED, type RecordedTable, record, recordAborted } from './recording.ts';
import { settleRivals } from './rivals.ts';
import * as sql from './statements.ts';

/** How often a batch is merged anew because a change of ours came in between, or somebody has a row locked. */
const TRIES = 20;
/** Below every server's deadlock_timeout: who waits longer may make the application the victim of a deadlock. */
const PATIENCE = '300ms';
const PAUSE_MS = 50;

export interface Sides {
  readonly rivalry: Rivalry;
  /** The names of the target's node and the source's. */
  readonly local: string;
  readonly incoming: string;
  /** Goes one way: the other side never hears of what was changed here, so it counts until it was decided about. */
  readonly guard: boolean;
}

/** What became of keys that were not simply applied, by the table's oid on the source. */
export type Settled = ReadonlyMap<number, Outcome>;

export interface Outcome {
  readonly resolved: number;
  readonly held: number;
  /** Conflicts that were met, by type. */
  readonly types: Readonly<Record<string, number>>;
}

const NOTHING: Settled = new Map();

type Merge = (context: MergeContext, tables: readonly StagedTable[]) => Promise<void>;

/** A conflict that ends its batch; what it was about is in `ibex.conflict` once `tell` has been called. */
export class Abort {
  readonly error: IbexError;
  readonly tell: (session: Session) => Promise<void>;

  constructor(error: IbexError, tell: (session: Session) => Promise<void>) {
    this.error = error;
    this.tell = tell;
  }
}

export class Settling {
  readonly #sides: Sides;
  /** Of a guard: what was committed before the conflicts of the batch were looked for. */
  #asOf: Snapshot = '';

  constructor(sides: Sides) {
    this.#sides = sides;
  }

  /** The lane by which the target's own changes are carried, or the reader of the guard. */
  get counterpart(): string {
    return this.#sides.rivalry.counterpart;
  }

  /** Merges what is staged. Throws `Abort` where a rule says so. */
  async merge(
    context: MergeContext,
    header: BatchHeader,
    tables: readonly StagedTable[],
    merge: Merge,
  ): Promise<Settled> {
    const { session, sync } = context;
    const staged = await this.#stageEmptied(session, tables);
    await session.run(`set local lock_timeout = '${PATIENCE}'; savepoint unsettled`);
    const { held } = await session.row<{ held: boolean }>(
      'select exists (select from ibex.held_key where sync = $1) as held',
      [sync],
    );
    for (let n = 1; ; n++) {
      const careful = n > 1 || held || header.seen?.held === true;
      try {
        const decided = careful ? await this.#decide(context, header, staged) : staged;
        await merge(context, decided);
        if (!(await this.#isUndecided(session, header, decided, careful))) {
          return careful ? await this.#conclude(context, header, decided) : NOTHING;
        }
        if (n >= TRIES) throw new IbexError('lock', `rows of batch ${header.id} keep changing on the target`);
      } catch (error) {
        if (n >= TRIES || !mayPass(error, n)) throw error;
      }
      await session.run('rollback to savepoint unsettled');
      if (n > 1) await sleep(Math.random() * PAUSE_MS * Math.min(n, 5));
    }
  }

  /** Whether a slice of a table that was merged has met no change of ours; otherwise it is to be taken back. */
  async accepts(session: Session, header: BatchHeader, plan: TablePlan): Promise<boolean> {
    const { held } = await session.row<{ held: boolean }>(
      'select exists (select from ibex.held_key where sync = $1) as held',
      [header.sync],
    );
    return (
      !held && header.seen?.held !== true && !(await this.#isUndecided(session, header, [{ plan }], false))
    );
  }

  #readOurs(session: Session, tables: readonly { readonly plan: TablePlan }[]) {
    return readOurs(
      session,
      tables.map(({ plan }) => plan),
      this.#sides.incoming,
      this.#sides.guard ? this.counterpart : null,
    );
  }

  /** A TRUNCATE there is taken key by key: what we changed meanwhile is another matter than what we did not. */
  async #stageEmptied(session: Session, tables: readonly StagedTable[]): Promise<StagedTable[]> {
    const staged: StagedTable[] = [];
    for (const table of tables) {
      if (table.emptied.length === 0) {
        staged.push(table);
        continue;
      }
      for (const relation of table.emptied) await session.run(sql.stageEmptied(table.plan, relation));
      const { present, gone } = await countStaged(session, table.plan);
      staged.push({ ...table, emptied: [], present, gone });
    }
    return staged;
  }

  #unknown(header: BatchHeader, plan: TablePlan, ours: OurTable): Unknown {
    const known = header.seen === undefined ? null : knownOf(header.seen, plan);
    return { plan, ours, known, incoming: this.#sides.incoming };
  }

  /** What is carried on from here keeps the time of its change: every node is to compare the same times. */
  async #isUndecided(
    session: Session,
    header: BatchHeader,
    tables: readonly { readonly plan: TablePlan }[],
    decided: boolean,
  ): Promise<boolean> {
    const ours = await this.#readOurs(session, tables);
    const statements = tables.flatMap(({ plan }) => {
      const own = ours.get(plan.relid);
      if (own === undefined || own.generations.length === 0) return [];
      return [sql.existsUndecided(this.#unknown(header, plan, own), decided)];
    });
    const rows =
      statements.length === 0 ? [] : await session.rows<{ found: boolean }>(statements.join(' union all '));
    if (rows.some(({ found }) => found)) return true;
    for (const { plan } of tables) {
      const own = ours.get(plan.relid);
      if (own?.forwarded) await session.run(sql.stampTimes(plan, own, this.#sides.incoming));
    }
    return false;
  }

  /** Finds what is in conflict and takes out of the stage what lost. Resolves to what is left to merge. */
  async #decide(
    context: MergeContext,
    header: BatchHeader,
    tables: readonly StagedTable[],
  ): Promise<StagedTable[]> {
    const { session, sync } = context;
    const { rivalry, local, guard } = this.#sides;
    await session.run(`${sql.CREATE_CLASHES}; delete from pg_temp.ibex_clash`);
    for (const { plan } of tables) await session.run(sql.lockStaged(plan));
    const ours = await this.#readOurs(session, tables);
    if (guard) await this.#look(session, header, tables, ours);
    const decided: StagedTable[] = [];
    for (const table of tables) {
      const { plan } = table;
      const own = ours.get(plan.relid);
      if (own === undefined) {
        decided.push(table);
        continue;
      }
      const rules = rulesOf(rivalry.rules, plan);
      const columns = await readColumns(session, plan);
      const unknown = this.#unknown(header, plan, own);
      const deciding = { unknown, sync, rivalry, rules, local, columns };
      await session.run(sql.findClashes(deciding));
      await askFunctions(session, deciding);
      await session.run(sql.leaveOut(plan));
      // To remove a row of another key would leave the target without a row that the other side may well have.
      if (table.facts.rivals && !guard) await settleRivals(session, deciding);
      const { present, gone } = await countStaged(session, plan);
      decided.push({ ...table, present, gone });
    }
    await this.#requireNoAbort(context, header, tables);
    return decided;
  }

  /** Of a guard: what is noted by now. A TRUNCATE is refused: it counts against every key, and no key settles it. */
  async #look(
    session: Session,
    header: BatchHeader,
    tables: readonly StagedTable[],
    ours: ReadonlyMap<number, OurTable>,
  ): Promise<void> {
    const { snapshot } = await session.row<{ snapshot: Snapshot }>(
      'select txid_current_snapshot()::text as snapshot',
    );
    this.#asOf = snapshot;
    for (const { plan } of tables) {
      const own = ours.get(plan.relid);
      if (own === undefined || own.generations.length === 0) continue;
      const { n } = await session.row<{ n: string }>(sql.ourTruncates(this.#unknown(header, plan, own)));
      if (Number(n) > 0) throw truncatedHere(plan);
    }
  }

  /** Notes again what the other side has to hear of, or forgets what a guard need not know any more, and writes everything down. */
  async #conclude(
    { session, sync }: MergeContext,
    header: BatchHeader,
    tables: readonly StagedTable[],
  ): Promise<Settled> {
    const ours = await this.#readOurs(session, tables);
    for (const { plan } of tables) {
      const own = ours.get(plan.relid);
      if (own === undefined) continue;
      if (!this.#sides.guard) await session.run(sql.noteAgain(plan, own));
      else await this.#forget(session, plan, own);
    }
    await record({ session, ...this.#about(sync, header) }, tables.map(recorded));
    const rows = await session.rows<CountRow>(sql.COUNT_SETTLED);
    return new Map(
      rows.map(({ relid, resolved, held, types }) => [
        relid,
        { resolved: resolved ?? 0, held: held ?? 0, types },
      ]),
    );
  }

  async #forget(session: Session, plan: TablePlan, ours: OurTable): Promise<void> {
    if (ours.generations.length > 0)
      await session.run(sql.forgetSettled(plan, ours, this.#sides.incoming, this.#asOf));
    await session.run(sql.noteNew(plan, ours));
  }

  #about(sync: string, { id }: BatchHeader) {
    const { local, incoming, rivalry } = this.#sides;
    return { sync, batch: id, local, incoming, values: rivalry.rules.values };
  }

  async #requireNoAbort(
    { session, sync }: MergeContext,
    header: BatchHeader,
    tables: readonly StagedTable[],
  ): Promise<void> {
    const { rows } = await session.row<{ rows: string }>(READ_ABORTED);
    const clashes = JSON.parse(rows) as { relid: number; type: string; key: string[] }[];
    const [first] = clashes;
    if (first === undefined) return;
    const plan = tables.find((table) => table.plan.relid === first.relid)?.plan as TablePlan;
    const error = new IbexError(
      'conflict',
      `${tableLabel(plan)}: ${first.type} of key (${first.key.join(', ')}), and the rule is to stop`,
    );
    const about = this.#about(sync, header);
    throw new Abort(error, (target) =>
      recordAborted({ session: target, ...about }, tables.map(recorded), rows),
    );
  }
}

interface CountRow {
  readonly relid: number;
  readonly resolved: number | null;
  readonly held: number | null;
  readonly types: Readonly<Record<string, number>>;
}

function recorded({ plan }: StagedTable): RecordedTable {
  const { relid, schema, name } = plan;
  return { relid, schema, name, columns: plan.columns.map((column) => column.name) };
}

function truncatedHere(plan: TablePlan): IbexError {
  const label = tableLabel(plan);
  return new IbexError(
    'conflict',
    `${label} was truncated on the target, and no rule says which of its rows are to come back: \`ibex tables recopy '${label}'\``,
    { table: label, hint: 'The copy brings all rows of the source.' },
  );
}

/** A row that somebody has locked, and a value that a row of ours has: the second try looks at both. */
function mayPass(error: unknown, n: number): boolean {
  if (error instanceof Abort) return false;
  return isKind(error, 'lock') || isKind(error, 'transient') || (n < 5 && isKind(error, 'constraint'));
}

async function readColumns(session: Session, plan: TablePlan): Promise<string[]> {
  const { columns } = await session.row<{ columns: string[] }>(
    `select array_agg(a.attname::text order by a.attnum) as columns from pg_attribute a
      where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped`,
    [tableIdent(plan)],
  );
  return columns;
}
