/**
 * Pieces of large backlogs, staged on the target by themselves (`ibex.stage`, `ibex.piece`, one table `ibex.stage_<id>`
 * for each). A piece is committed with its entry, so it is there whole or not at all, and outlives daemon, worker and
 * server. What is staged touches no table of the application; the batch that takes it in reads it, and drops it in the
 * transaction that moves the checkpoint.
 */
import type { Piece, StagedPart } from '../core/backlog.ts';
import { IbexError } from '../core/errors.ts';
import type { TablePlan } from '../core/plan.ts';
import type { Session } from '../postgres/session.ts';
import { addStaged, copyStage, createStageFor } from './statements.ts';

/** For the sort that finds the newest row of each key; a batch of millions would go to disk many times over with less. */
const SORT_MEMORY = '64MB';

/** What is staged of a table, with all its pieces in order. */
export interface StageRecord {
  readonly relid: number;
  readonly lower: string;
  readonly plan: string;
  readonly pieces: readonly PieceRecord[];
}

export interface PieceRecord extends Omit<Piece, 'lower' | 'plan'> {
  readonly deltas: number;
}

/** What a staged backlog is known by. */
interface StageKey {
  readonly sync: string;
  readonly relid: number;
}

/**
 * What is staged of a sync and still counts. Everything else goes: what was staged for a position at which the table does
 * not stand any more, and tables that nothing is known of. Called by who has just taken the lane.
 */
export async function keepValidStages(session: Session, sync: string): Promise<StageRecord[]> {
  await session.run(FORGET_INVALID, [sync]);
  await dropOrphans(session);
  return session.rows<StageRecord>(READ_STAGES, [sync]);
}

const FORGET_INVALID = `
  delete from ibex.stage s using ibex.target_table t, ibex.checkpoint c
   where s.sync = $1 and t.sync = s.sync and t.relid = s.relid and c.sync = s.sync
     and (case t.state when 'streaming' then c.position when 'joining' then t.floor when 'held' then t.floor end)
         is distinct from s.lower`;

const READ_STAGES = `
  select s.relid::float8 as relid, s.lower, s.plan,
         coalesce((select json_agg(json_build_object('n', p.n, 'after', p.after, 'upto', p.upto,
                     'generation', p.generation, 'first', p.first_block, 'end', p.end_block, 'deltas', p.deltas)
                     order by p.n)
                     from ibex.piece p where p.stage = s.id), '[]') as pieces
    from ibex.stage s where s.sync = $1`;

/** Tables whose entry is gone: it goes by itself with its table's, or when the table is sent back to be copied. */
async function dropOrphans(session: Session): Promise<void> {
  const orphans = await session.rows<{ id: string }>(
    `select substr(c.relname, 7) as id from pg_class c
      where c.relnamespace = 'ibex'::regnamespace and c.relkind = 'r' and c.relname ~ '^stage_[0-9]+$'
        and not exists (select from ibex.stage s where c.relname = 'stage_' || s.id)`,
  );
  for (const { id } of orphans) await session.run(`drop table if exists ${tableOf(Number(id))}`);
}

/** What is staged of a table, for whoever looks on. */
export interface StagedAmount {
  readonly relid: number;
  readonly deltas: number;
  /** Of the last pieces; null until there are two. */
  readonly perSecond: number | null;
}

export function readStagedAmounts(session: Session, sync: string): Promise<StagedAmount[]> {
  return session.rows<StagedAmount>(READ_AMOUNTS, [sync]);
}

/** The first of the last ten tells when the others began. */
const READ_AMOUNTS = `
  select s.relid::float8 as relid, sum(p.deltas)::float8 as deltas,
         (select sum(r.deltas) filter (where r.before is not null)::float8
                   / nullif(extract(epoch from max(r.staged_at) - min(r.staged_at)), 0)::float8
            from (select l.deltas, l.staged_at, lag(l.n) over (order by l.n) as before
                    from (select * from ibex.piece q where q.stage = s.id order by q.n desc limit 10) l) r) as "perSecond"
    from ibex.stage s join ibex.piece p on p.stage = s.id where s.sync = $1 group by s.id order by 1`;

/** What is staged of a table counts no more. Its rows go when the lane starts next, or with the next stage. */
export async function forgetStage(session: Session, { sync, relid }: StageKey): Promise<void> {
  await session.run('delete from ibex.stage where sync = $1 and relid = $2', [sync, relid]);
}

/** Whether this piece is there already: it was handed out twice. */
export async function hasPiece(session: Session, key: StageKey, piece: Piece): Promise<boolean> {
  const { known } = await session.row<{ known: boolean }>(
    `select exists (select from ibex.stage s join ibex.piece p on p.stage = s.id
                     where s.sync = $1 and s.relid = $2 and s.lower = $3 and s.plan = $4 and p.n = $5) as known`,
    [key.sync, key.relid, piece.lower, piece.plan, piece.n],
  );
  return known;
}

/** Keeps what lies in the table's temporary stage as this piece. Part of a transaction that has locked the checkpoint. */
export async function keepPiece(
  session: Session,
  sync: string,
  plan: TablePlan,
  piece: Piece,
  deltas: number,
): Promise<void> {
  const id = await openStage(session, sync, plan, piece);
  await session.run(copyStage(plan, tableOf(id), piece.n));
  const { n, after, upto, generation, first, end } = piece;
  await session.run(
    `insert into ibex.piece (stage, n, after, upto, generation, first_block, end_block, deltas)
     values ($1, $2, $3, $4, $5, $6, $7, $8)`,
    [id, n, after, upto, generation, first, end, deltas],
  );
}

/** The first piece makes the stage; what is there for another position or plan makes room for it. */
async function openStage(session: Session, sync: string, plan: TablePlan, piece: Piece): Promise<number> {
  const key = [sync, plan.relid];
  const [known] = await session.rows<{ id: number; fits: boolean }>(
    'select id, lower = $3 and plan = $4 as fits from ibex.stage where sync = $1 and relid = $2',
    [...key, piece.lower, piece.plan],
  );
  if (known?.fits && piece.n > 1) return known.id;
  if (piece.n > 1) throw lostPieces(sync);
  if (known !== undefined) await dropStage(session, known.id);
  const { id } = await session.row<{ id: number }>(
    'insert into ibex.stage (sync, relid, lower, plan) values ($1, $2, $3, $4) returning id',
    [...key, piece.lower, piece.plan],
  );
  await session.run(createStageFor(plan, tableOf(id)));
  return id;
}

/**
 * Adds what is staged of a table to what its batch has brought, of each key the newest. Resolves to the deltas that the
 * pieces stand for. Errors: `gap` when they are not those on which the batch relies; the lane then looks anew.
 */
export async function takeStaged(
  session: Session,
  sync: string,
  plan: TablePlan,
  part: StagedPart,
): Promise<number> {
  const [stage] = await session.rows<{ id: number; pieces: number; upto: string; deltas: string }>(
    `select s.id, count(*)::int4 as pieces, (array_agg(p.upto order by p.n desc))[1] as upto, sum(p.deltas)::text as deltas
       from ibex.stage s join ibex.piece p on p.stage = s.id
      where s.sync = $1 and s.relid = $2 and s.lower = $3 and s.plan = $4 group by s.id`,
    [sync, plan.relid, part.lower, part.plan],
  );
  if (stage?.pieces !== part.pieces || stage.upto !== part.upto) throw lostPieces(sync);
  await session.run(`set local work_mem = '${SORT_MEMORY}'`);
  await session.run(addStaged(plan, tableOf(stage.id)));
  await session.run('reset work_mem');
  return Number(stage.deltas);
}

/** Drops what is staged of tables that a batch has taken in, whether it relied on it or read everything itself. */
export async function dropStages(session: Session, sync: string, relids: readonly number[]): Promise<void> {
  const stages = await session.rows<{ id: number }>(
    'select id from ibex.stage where sync = $1 and relid = any ($2)',
    [sync, relids],
  );
  for (const { id } of stages) await dropStage(session, id);
}

async function dropStage(session: Session, id: number): Promise<void> {
  await session.run('delete from ibex.stage where id = $1', [id]);
  await session.run(`drop table if exists ${tableOf(id)}`);
}

function tableOf(id: number): string {
  return `ibex.stage_${id}`;
}

function lostPieces(sync: string): IbexError {
  return new IbexError('gap', `what was staged for ${sync} is not what the batch relies on`);
}
