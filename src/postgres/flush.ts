/**
 * What a source has not flushed to its disk, a crash takes back: rows, and the ids of their transactions, which are given
 * out again. So nothing of what was read, no rows and no position, may last on the target before the source's log is on
 * disk up to where it stood after the snapshot.
 */
import type { Session } from './session.ts';
import type { Statement } from './together.ts';

/** Resolves once the log of the session's server is on disk up to `lsn`, its insert position when something was read. */
export async function waitForFlush(session: Session, lsn: string): Promise<void> {
  const [answer] = await session.together([askingForFlush(lsn)]);
  await flushUnlessFlushed(session, answer);
}

/** Whether the log is on disk up to there; `flushUnlessFlushed` takes what it gives. */
export function askingForFlush(lsn: string): Statement {
  return {
    text: 'select pg_current_wal_flush_lsn() >= $1::pg_lsn as flushed',
    values: [lsn],
    prepared: true,
  };
}

/** What `askingForFlush` gives. */
export interface FlushAnswer {
  readonly rows: readonly { readonly flushed: boolean }[];
}

/** Flushes the log unless that was the answer. */
export async function flushUnlessFlushed(session: Session, answer: FlushAnswer | undefined): Promise<void> {
  // A transactional message is a commit with a transaction id, which flushes the log whatever came before it.
  if (answer?.rows[0]?.flushed !== true)
    await session.run(`select pg_logical_emit_message(true, 'ibex', '')`);
}
