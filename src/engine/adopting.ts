/**
 * How tables come into step where both sides are written, which is another matter than a copy: nothing may be removed, and
 * nothing of what either side changes meanwhile be overwritten.
 *
 * At the start the first node is copied to the second, beside the rows that are there. Before the first chunk the second
 * notes the rows that it has, as rows from before all changes (`ibex.note_existing`): once the copy has come into step, its
 * own lane brings those that the first one lacks. A table that has to be copied anew later is not copied at all: both
 * sides note all that they have, and whatever only one has, or one has changed last, finds its way.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { startCopies } from '../backfill/progress.ts';
import { setFloors } from '../capture/trigger/registry.ts';
import type { Rivalry } from '../core/conflict.ts';
import { type TableName, tableLabel } from '../core/plan.ts';
import { tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import type { CopyPair } from './copy-sessions.ts';
import type { IncarnationOptions } from './options.ts';
import type { Rooms } from './rooms.ts';
import type { Roster, RosterTable } from './roster.ts';

const LOOK_MS = 200;

export class Adopting {
  readonly #options: IncarnationOptions;
  readonly #rooms: Rooms;
  readonly #roster: Roster;
  /** Tables whose copy may go on: the other side has noted what it has, or this side is in step. */
  readonly #ready = new Set<number>();

  constructor(options: IncarnationOptions, rooms: Rooms, roster: Roster) {
    this.#options = options;
    this.#rooms = rooms;
    this.#roster = roster;
  }

  /** Whether the backfill may take the table up. Where one side is written only it always may. */
  mayCopy({ relid, state, replace }: RosterTable): boolean {
    if (this.#options.sync.rivalry === null) return true;
    return this.#ready.has(relid) && (state === 'copying' || (this.#copies && !replace));
  }

  /** Runs until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const { rivalry } = this.#options.sync;
    while (rivalry !== null && !signal.aborted) {
      try {
        await this.#lookAtAll(rivalry);
      } catch (error) {
        // The sessions are closed before it has come to its end.
        if (!signal.aborted) throw error;
      }
      await sleep(LOOK_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  async #lookAtAll(rivalry: Rivalry): Promise<void> {
    for (const table of this.#roster.tables) {
      const { relid, plan, armed, givenUp, state } = table;
      if (state !== 'pending' && state !== 'copying') this.#ready.delete(relid);
      else if (plan !== null && armed && givenUp === null)
        await this.#rooms.pairs.use((pair) => this.#look(table, rivalry, pair), 'urgent');
    }
  }

  /** The lane from the first node to the second copies; the other one brings what that leaves. */
  get #copies(): boolean {
    const { source, rivalry } = this.#options.sync;
    return source.name === rivalry?.first;
  }

  async #look(table: RosterTable, rivalry: Rivalry, { source, target }: CopyPair): Promise<void> {
    if (table.state === 'pending' && (table.replace || !this.#copies)) {
      const ours = await readCaptured(target, table);
      if (ours === null) return;
      await this.#begin(table, ours, { source, target });
    }
    // The other lane's own state of the table stands where that one carries to, which is where this one reads.
    const other = await readState(source, rivalry.counterpart, table);
    const begun = other !== undefined && (other.state === 'streaming' || other.floor);
    if (this.#copies ? begun : other?.state === 'streaming') this.#ready.add(table.relid);
  }

  async #begin(
    { relid, plan, carries, replace, ...name }: RosterTable,
    ours: number,
    { source, target }: CopyPair,
  ): Promise<void> {
    const { sync, log } = this.#options;
    const { lease } = this.#rooms;
    if (plan === null || carries === null) return;
    const floor = (await setFloors(source, sync.name, [relid])).get(relid) as string;
    await source.run('select ibex.note_existing($1)', [relid]);
    if (replace) await target.run('select ibex.note_existing($1)', [ours]);
    const start = { relid, floor, choice: plan.choice, carried: carries, found: 0, chunks: [] };
    await target.transaction('', () => startCopies(target, { sync: sync.name, epoch: lease.epoch }, [start]));
    await this.#roster.readStates(target);
    log.info({ table: tableLabel(name) }, `${tableLabel(name)}: what it has is noted`);
  }
}

/** The oid of a table that is captured and armed on that side; null of any other. */
async function readCaptured(session: Session, table: TableName): Promise<number | null> {
  const [row] = await session.rows<{ relid: number }>(
    'select c.relid::int8::float8 as relid from ibex.captured c where c.relid = to_regclass($1) and c.armed_at is not null',
    [tableIdent(table)],
  );
  return row?.relid ?? null;
}

async function readState(session: Session, sync: string, { schema, name }: TableName) {
  const [row] = await session.rows<{ state: string; floor: boolean }>(
    `select t.state, t.floor is not null as floor from ibex.target_table t
      where t.sync = $1 and t.schema_name = $2 and t.table_name = $3`,
    [sync, schema, name],
  );
  return row;
}
