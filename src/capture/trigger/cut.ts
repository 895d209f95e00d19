/**
 * Cuts batches: in the reading transaction, takes the snapshot at which one ends and finds out which tables have
 * something in it, and by which statements that is read. A piece of a large backlog is cut like a batch of one table.
 */
import { isLarge, type LargePart, type Piece, type StagedPart } from '../../core/backlog.ts';
import type { BatchHeader, BatchTable, Seen, TruncatedRelation } from '../../core/batch.ts';
import { IbexError } from '../../core/errors.ts';
import { type TablePlan, tableLabel } from '../../core/plan.ts';
import type { Snapshot, SourceIdentity } from '../../core/position.ts';
import type { Session } from '../../postgres/session.ts';
import type { Statement } from '../../postgres/together.ts';
import {
  BEGIN_BATCH,
  type Generations,
  givenValues,
  READ_SEEN,
  readPieceStatement,
  readStatement,
  summaryStatement,
  truncatedStatement,
} from './statements.ts';

/** A table that a batch looks at, with its own lower bound while it is not in step with the lane. */
export interface ReadTable {
  readonly plan: TablePlan;
  readonly floor: Snapshot | null;
  /** Absent: it is read as it is, however much there is. */
  readonly staging?: TableStaging;
}

/** How a large backlog of a table is staged before its batch. */
export interface TableStaging {
  /** With more deltas than that left to read, they are staged first. */
  readonly above: number;
  /** What of it is staged already. */
  readonly part: StagedPart | null;
  /** The deltas with which the last round of staging began; null when there was none. */
  readonly roundBefore: number | null;
}

/** The lane's side of a batch that is to be read. */
export interface ReadRequest {
  readonly sync: string;
  readonly epoch: number;
  readonly id: string;
  readonly from: Snapshot;
  readonly tables: readonly ReadTable[];
  /** The lane of the other direction, where the target is written too; else null. */
  readonly counterpart?: string | null;
  /** Publish the batch even when nothing changed, to move the checkpoint or to let a table join. */
  readonly evenIfEmpty: boolean;
}

/** A piece that is to be read. */
export interface PieceRequest extends Pick<ReadRequest, 'sync' | 'epoch' | 'id' | 'from'> {
  readonly table: Pick<ReadTable, 'plan' | 'floor'>;
  readonly piece: Piece;
}

/** What a reading transaction has to do. */
export interface Cut {
  readonly to: Snapshot;
  /** Where the source's log stood after the snapshot. */
  readonly lsn: string;
  /** Null when there is nothing to publish. */
  readonly header: BatchHeader | null;
  /** What is read of each table of the header; null where nothing is. */
  readonly statements: readonly (string | null)[];
  /** Parts that are to be staged first; nothing is published then. */
  readonly large: readonly LargePart[];
  /** Tables that were truncated after they were staged, so that it does not count; nothing is published then. */
  readonly spoiled: readonly TablePlan[];
  /** What counted the deltas, where the next batch is likely to ask the same of its own position; null: nothing did. */
  readonly summary: string | null;
}

/** What `beginning` gives. */
export interface Beginning {
  readonly snapshot: Snapshot;
  readonly lsn: string;
  /** Null: the source does not know the sync any more. */
  readonly witness: number | null;
  readonly echo: string | null;
  readonly generations: readonly (readonly [relid: number, n: number])[];
}

/** What the batch before asked of its position, asked of this one's along with the beginning. */
export interface Ahead {
  readonly summary: string;
  readonly rows: readonly Summary[];
}

export interface Summary {
  readonly relid: string;
  readonly captured: string;
  readonly truncates: string;
  readonly unknown: string;
  readonly fresh: string;
  readonly freshTruncates: string;
  readonly oldest: number | null;
}

/** A table with what the batch finds of it. */
interface Found {
  readonly table: ReadTable;
  readonly generations: Generations;
  readonly lower: Snapshot;
  readonly captured: number;
  readonly truncates: number;
  readonly fresh: number;
  readonly freshTruncates: number;
}

/** The first statement of a reading transaction, which takes its snapshot. */
export function beginning({ sync, tables }: Pick<ReadRequest, 'sync'> & AskedTables): Statement {
  return { text: BEGIN_BATCH, values: [tables.map(({ plan }) => plan.relid), sync], prepared: true };
}

/** What the batch before asked, of another position: with the beginning, as the answer is likely to be wanted. */
export function summaryAhead(summary: string, from: Snapshot): Statement {
  return { text: summary, values: givenValues(from), prepared: true };
}

interface AskedTables {
  readonly tables: readonly Pick<ReadTable, 'plan'>[];
}

export async function cutBatch(
  reading: Session,
  source: SourceIdentity,
  request: ReadRequest,
  begun: Beginning,
  ahead: Ahead | null,
): Promise<Cut> {
  const { sync, id, epoch, from, tables } = request;
  const { snapshot, lsn } = begun;
  const witness = requireWitness(begun, sync);
  const { found, oldestAt, summary } = await summarise(reading, request, begun, ahead);
  const nothing = { to: snapshot, lsn, header: null, statements: [], large: [], spoiled: [], summary };
  const spoiled = found.filter(
    ({ table, freshTruncates }) => table.staging?.part != null && freshTruncates > 0,
  );
  if (spoiled.length > 0) return { ...nothing, spoiled: spoiled.map(({ table }) => table.plan) };
  const large = found.flatMap((one) => largePart(one, snapshot));
  if (large.length > 0) return { ...nothing, large };
  if (found.length === 0 && !request.evenIfEmpty) return nothing;
  const batchTables: BatchTable[] = [];
  for (const one of found) batchTables.push(await batchTable(reading, one));
  const inStep = tables.flatMap(({ plan, floor }) => (floor === null ? [plan.relid] : []));
  const to = snapshot;
  const counterpart = request.counterpart ?? null;
  const seen = counterpart === null ? null : await readSeen(reading, counterpart);
  const header: BatchHeader = {
    ...{ sync, id, epoch, from, to, source, witness, tables: batchTables, inStep, oldestAt },
    ...(seen === null ? {} : { seen }),
  };
  const waiting = seen?.held ? counterpart : null;
  return { ...nothing, header, statements: found.map((one) => statementOf(one, waiting)) };
}

/** A piece moves no position: what its header says of one is where the checkpoint has to stand, and when it was read. */
export function cutPiece(
  source: SourceIdentity,
  { sync, id, epoch, from, table, piece }: PieceRequest,
  begun: Beginning,
): Cut {
  const { plan, floor } = table;
  const { snapshot, lsn, echo } = begun;
  const witness = requireWitness(begun, sync);
  const tables = [{ plan, truncated: [], captured: 0, ...(floor === null ? {} : { floor }) }];
  return {
    to: snapshot,
    lsn,
    header: {
      sync,
      id,
      epoch,
      from,
      to: snapshot,
      source,
      witness,
      tables,
      inStep: [],
      oldestAt: null,
      piece,
    },
    statements: [readPieceStatement(plan, piece, echo)],
    large: [],
    spoiled: [],
    summary: null,
  };
}

function requireWitness({ witness }: Beginning, sync: string): number {
  if (witness === null) throw new IbexError('source_moved', `the source knows no sync ${sync} any more`);
  return witness;
}

/** In the snapshot in which the rows are read: what the other lane has written here is in them up to this. */
async function readSeen(reading: Session, counterpart: string): Promise<Seen> {
  return reading.row<Seen>(READ_SEEN, [counterpart]);
}

/** Joining tables belong to the batch even without deltas: it is what takes them into step. */
async function summarise(
  reading: Session,
  request: ReadRequest,
  { generations, echo }: Pick<Beginning, 'generations' | 'echo'>,
  ahead: Ahead | null,
) {
  const byTable = new Map<number, number[]>();
  for (const [relid, n] of generations) byTable.set(relid, [...(byTable.get(relid) ?? []), n]);
  const notedOf = ({ relid }: TablePlan) => ({ numbers: byTable.get(relid) ?? [], echo });
  const noted = request.tables.filter(({ plan }) => byTable.has(plan.relid));
  // Of tables in step the text is the same, as long as the same ones have deltas.
  const repeats = noted.every(({ floor, staging }) => floor === null && !staging?.part);
  const statement = noted
    .map(({ plan, floor, staging }) => {
      const from = repeats ? null : (floor ?? request.from);
      return summaryStatement(plan, notedOf(plan), from, staging?.part?.upto);
    })
    .join(' union all ');
  const summary = repeats && noted.length > 0 ? statement : null;
  const look = async () => {
    if (summary === null) return reading.rows<Summary>(statement);
    if (summary === ahead?.summary) return ahead.rows;
    return reading.prepared<Summary>(summary, givenValues(request.from));
  };
  const rows = noted.length === 0 ? [] : await look();
  const summaries = new Map(rows.map((row) => [Number(row.relid), row]));
  const found: Found[] = [];
  for (const table of request.tables) {
    const { plan, floor } = table;
    const summary = summaries.get(plan.relid);
    const captured = Number(summary?.captured ?? 0);
    if (captured === 0 && floor === null) continue;
    if (Number(summary?.unknown ?? 0) > 0) throw unknownKeys(plan);
    found.push({
      table,
      generations: notedOf(plan),
      lower: floor ?? request.from,
      captured,
      truncates: Number(summary?.truncates ?? 0),
      fresh: Number(summary?.fresh ?? 0),
      freshTruncates: Number(summary?.freshTruncates ?? 0),
    });
  }
  const times = rows.map((row) => row.oldest).filter((time) => time !== null);
  return { found, oldestAt: times.length === 0 ? null : Math.min(...times), summary };
}

/** Rows without a key that were truncated are sent whole, as they are now. */
function largePart({ table, lower, truncates, fresh }: Found, upto: Snapshot): LargePart[] {
  const { plan, staging } = table;
  if (staging === undefined || !isLarge(fresh, staging.above, staging.roundBefore)) return [];
  if (plan.mode === 'row' && truncates > 0) return [];
  return [{ plan, after: staging.part?.upto ?? lower, upto, deltas: fresh }];
}

async function batchTable(reading: Session, found: Found): Promise<BatchTable> {
  const { table, generations, lower, captured, truncates } = found;
  const { plan, floor, staging } = table;
  const truncated =
    truncates === 0
      ? []
      : await reading.rows<TruncatedRelation>(truncatedStatement(plan, generations, lower));
  return {
    plan,
    truncated,
    captured,
    ...(floor === null ? {} : { floor }),
    ...(staging?.part ? { staged: staging.part } : {}),
  };
}

function statementOf(
  { table, generations, lower, fresh, truncates }: Found,
  waiting: string | null,
): string | null {
  const { plan, staging } = table;
  if (fresh === 0) return null;
  return readStatement(plan, generations, staging?.part?.upto ?? lower, truncates > 0, waiting);
}

/** The deltas of a table cannot tell its keys: it is copied again. */
export function unknownKeys(plan: TablePlan, cause?: unknown): IbexError {
  const label = tableLabel(plan);
  return new IbexError('recopy', `${label} was written while its key was being altered`, {
    table: label,
    cause,
  });
}
