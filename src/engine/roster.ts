/**
 * The tables of a running sync as this process knows them: plans, states and lower bounds. The truth is in the
 * target (`ibex.target_table`) and in both catalogs; this is a copy that is read again whenever something moves.
 */
import { readSyncTables, type SyncTable } from '../apply/state.ts';
import { carriedTable } from '../capture/trigger/expressions.ts';
import { type CapturedRecord, readCaptured } from '../capture/trigger/registry.ts';
import type { SyncConfig } from '../config/syncs.ts';
import { ruleOf } from '../core/carry.ts';
import { IbexError } from '../core/errors.ts';
import { keylessRefusal } from '../core/keys.ts';
import { type TablePlan, tableLabel } from '../core/plan.ts';
import { planTable } from '../core/planner.ts';
import type { Snapshot } from '../core/position.ts';
import type { TableInfo } from '../core/table.ts';
import { readTables } from '../postgres/catalog.ts';
import type { Session } from '../postgres/session.ts';

export interface RosterTable extends SyncTable {
  /** Null while it cannot be planned; `obstacle` says why. */
  readonly plan: TablePlan | null;
  readonly obstacle: IbexError | null;
  readonly armed: boolean;
  /** Deltas visible in it are gone; null when none were forgotten yet. */
  readonly forgotten: Snapshot | null;
}

/** What the plans of a sync depend on, besides the catalogs. */
export type Wishes = Pick<SyncConfig, 'name' | 'carry' | 'keyless'>;

/** Reads the roster from both sides. */
export async function readRoster(
  source: Session,
  target: Session,
  { name, carry, keyless }: Wishes,
): Promise<RosterTable[]> {
  const states = await readSyncTables(target, name);
  const captured = new Map((await readCaptured(source, name)).map((table) => [table.relid, table]));
  const counterparts = new Map((await readTables(target, states)).map((table) => [tableLabel(table), table]));
  const roster: RosterTable[] = [];
  for (const state of states) {
    const record = captured.get(state.relid);
    const planned =
      record === undefined
        ? notCaptured(state)
        : tryPlan(
            // Under either name, lest a table that was renamed travels whole.
            await carriedTable(source, record, ruleOf(carry, record, state)),
            counterparts.get(tableLabel(record)),
            keyless,
          );
    const { armed, forgotten } = record ?? { armed: false, forgotten: null };
    roster.push({ ...state, ...planned, armed, forgotten });
  }
  return roster;
}

function notCaptured(state: SyncTable): { plan: null; obstacle: IbexError } {
  const label = tableLabel(state);
  const message = state.reason ?? `table ${label} does not exist on the source any more`;
  return { plan: null, obstacle: new IbexError('schema_mismatch', message, { table: label }) };
}

function tryPlan(
  record: CapturedRecord | IbexError,
  counterpart: TableInfo | undefined,
  keyless: Wishes['keyless'],
): { plan: TablePlan | null; obstacle: IbexError | null } {
  if (record instanceof IbexError) return { plan: null, obstacle: record };
  if (record.mode === 'row' && keyless === 'refuse') return { plan: null, obstacle: keylessRefusal(record) };
  try {
    return { plan: planTable(record, counterpart), obstacle: null };
  } catch (error) {
    if (error instanceof IbexError && error.table !== undefined) return { plan: null, obstacle: error };
    throw error;
  }
}

/** The roster of one incarnation. */
export class Roster {
  #tables: readonly RosterTable[] = [];
  readonly #sync: Wishes;

  constructor(sync: Wishes) {
    this.#sync = sync;
  }

  get tables(): readonly RosterTable[] {
    return this.#tables;
  }

  /** Reads everything again, catalogs included. */
  async refresh(source: Session, target: Session): Promise<void> {
    this.#tables = await readRoster(source, target, this.#sync);
  }

  /** Reads the states again; plans only change with `refresh`. */
  async readStates(target: Session): Promise<void> {
    const states = new Map(
      (await readSyncTables(target, this.#sync.name)).map((state) => [state.relid, state]),
    );
    this.#tables = this.#tables.flatMap((table) => {
      const state = states.get(table.relid);
      return state === undefined ? [] : [{ ...table, ...state }];
    });
  }
}

/**
 * Whether a table waits for a person or a condition, with a reason that `status` shows. One that only waits for
 * its lock to be armed is not: that passes by itself.
 */
export function isHeld(table: RosterTable): boolean {
  const waitsForLock = table.plan !== null && !table.armed;
  return table.state === 'held' || (table.reason !== null && !waitsForLock);
}
