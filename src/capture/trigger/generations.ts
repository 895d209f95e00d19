/** The delta tables of a sync: which have something in them, moving on to the next, emptying those that nobody needs. */
import type { Session } from '../../postgres/session.ts';
import type { Generations } from './statements.ts';

export interface GenerationInfo {
  readonly relid: number;
  readonly n: number;
  readonly bytes: number;
  /** Whether the triggers write it now. */
  readonly current: boolean;
  /** The node whose changes in it the sync leaves out; null: none. */
  readonly echo: string | null;
}

/** The delta tables of a sync that have something in them. */
export async function readGenerations(session: Session, sync: string): Promise<GenerationInfo[]> {
  const rows = await session.rows<Omit<GenerationInfo, 'relid' | 'bytes'> & { relid: string; bytes: string }>(
    `select g.relid::text, g.n, g.n = c.generation as current, s.echo,
            pg_relation_size(to_regclass(format('ibex.delta_%s_%s', g.relid, g.n)))::text as bytes
       from ibex.source_table t join ibex.source_sync s on s.name = t.sync
       join ibex.captured c on c.relid = t.relid join ibex.generation g on g.relid = c.relid
      where t.sync = $1 and pg_relation_size(to_regclass(format('ibex.delta_%s_%s', g.relid, g.n))) > 0`,
    [sync],
  );
  return rows.map((row) => ({ ...row, relid: Number(row.relid), bytes: Number(row.bytes) }));
}

/** Those of one table. */
export function generationsOf(all: readonly GenerationInfo[], relid: number): Generations {
  const own = all.filter((one) => one.relid === relid);
  return { numbers: own.map(({ n }) => n), echo: own[0]?.echo ?? null };
}

export async function rotate(session: Session, relid: number): Promise<void> {
  await session.run('select ibex.rotate($1)', [relid]);
}

/** What became of a generation that was to be emptied: it was, or a sync needs something in it, or somebody has it open. */
export type Forgetting = 'emptied' | 'needed' | 'open';

export async function forget(session: Session, relid: number, generation: number): Promise<Forgetting> {
  const { emptied } = await session.row<{ emptied: boolean | null }>(
    'select ibex.forget($1, $2) as emptied',
    [relid, generation],
  );
  return emptied === null ? 'open' : emptied ? 'emptied' : 'needed';
}
