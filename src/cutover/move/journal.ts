/** The journal of moves, `ibex.cutover` on the configured target: what began, what ended, and what came of it. */
import { performance } from 'node:perf_hooks';
import type { Side } from '../../apply/live.ts';
import { failpoint, MOVE_FAILPOINTS } from '../../core/failpoints.ts';
import type { Session } from '../../postgres/session.ts';
import type { Ending, Phase, Proof } from './move.ts';

export interface Run {
  readonly run: number;
  /** The side that it makes live. */
  readonly live: Side;
  /** It came to its end, or was undone. */
  readonly ended: boolean;
}

export async function readLastRun(record: Session, sync: string): Promise<Run | undefined> {
  const [last] = await record.rows<Run>(
    `select run, live, bool_or(phase = 'end') as ended from ibex.cutover where sync = $1
      group by run, live order by run desc limit 1`,
    [sync],
  );
  return last;
}

export async function beginRun(record: Session, sync: string, live: Side): Promise<number> {
  const { run } = await record.row<{ run: number }>(
    `insert into ibex.cutover (sync, run, n, live, phase, ended_at)
     select $1, coalesce(max(run), 0) + 1, 0, $2, 'begin', clock_timestamp() from ibex.cutover where sync = $1
     returning run`,
    [sync, live],
  );
  return run;
}

export async function endRun(record: Session, sync: string, run: number, what: object): Promise<void> {
  await record.run(
    `insert into ibex.cutover (sync, run, n, live, phase, ended_at, what)
     select $1, $2, max(n) + 1, max(live), 'end', clock_timestamp(), $3 from ibex.cutover where sync = $1 and run = $2`,
    [sync, run, JSON.stringify(what)],
  );
}

/** What the phases of a run found, and for how long nobody could write: from the beginning of its fence until now. */
export async function readProof(record: Session, sync: string, run: number): Promise<Partial<Proof>> {
  const rows = await record.rows<{ what: object; pause: number | null }>(
    `select what, extract(epoch from clock_timestamp() - min(began_at) filter (where phase = 'fence') over ())::float8 as pause
       from ibex.cutover where sync = $1 and run = $2 and what is not null order by n`,
    [sync, run],
  );
  const pauseSeconds = rows[0]?.pause ?? null;
  return Object.assign({}, ...rows.map(({ what }) => what), pauseSeconds === null ? {} : { pauseSeconds });
}

/** How long these phases of a run took together. */
export async function readSpent(
  record: Session,
  sync: string,
  run: number,
  phases: readonly Phase[],
): Promise<number> {
  const { seconds } = await record.row<{ seconds: number }>(
    `select coalesce(sum(extract(epoch from ended_at - began_at)), 0)::float8 as seconds
       from ibex.cutover where sync = $1 and run = $2 and phase = any ($3::text[])`,
    [sync, run, phases],
  );
  return seconds;
}

/** Does one phase, writes it down as it begins and ends, and says so. The work resolves to what it found, and a line of it. */
export async function phase<T extends object>(
  move: Ending,
  name: Phase,
  work: () => Promise<{ readonly found: T; readonly text: string }>,
): Promise<T> {
  const { record, sync, run, say } = move;
  const began = performance.now();
  const { n } = await record.row<{ n: number }>(
    `insert into ibex.cutover (sync, run, n, live, phase)
     select $1, $2, max(n) + 1, max(live), $3 from ibex.cutover where sync = $1 and run = $2 returning n`,
    [sync.name, run, name],
  );
  const seam = MOVE_FAILPOINTS.find((one) => one === `move-${name}`);
  if (seam !== undefined) failpoint(seam);
  const { found, text } = await work();
  await record.run(
    `update ibex.cutover set ended_at = clock_timestamp(), what = $4 where sync = $1 and run = $2 and n = $3`,
    [sync.name, run, n, JSON.stringify(found)],
  );
  say({ phase: name, seconds: (performance.now() - began) / 1000, text });
  return found;
}
