/**
 * The tables of a running sync as this process knows them: plans, states and lower bounds. The truth is in the
 * target (`ibex.target_table`) and in both catalogs; this is a copy that is read again whenever something moves.
 */
import { type CarriedRecord, readCarried } from '../apply/carried.ts';
import { readSyncTables, type SyncTable } from '../apply/state.ts';
import { carriedTable } from '../capture/trigger/expressions.ts';
import { type CapturedRecord, readCaptured } from '../capture/trigger/registry.ts';
import type { SyncConfig } from '../config/syncs.ts';
import { missingColumn, missingFunction } from '../conflict/validating.ts';
import { type Carried, carriedBy, type Fit, judgeFit } from '../core/carried.ts';
import { ruleOf } from '../core/carry.ts';
import type { ConflictRules } from '../core/conflict.ts';
import { IbexError } from '../core/errors.ts';
import { keylessConflict, keylessRefusal } from '../core/keys.ts';
import { type TableName, type TablePlan, tableLabel } from '../core/plan.ts';
import { planTable } from '../core/planner.ts';
import type { Snapshot } from '../core/position.ts';
import type { TableInfo } from '../core/table.ts';
import { readTables } from '../postgres/catalog.ts';
import type { Session } from '../postgres/session.ts';

export interface RosterTable extends SyncTable {
  /** Null while it cannot be planned; `obstacle` says why. */
  readonly plan: TablePlan | null;
  readonly obstacle: IbexError | null;
  /** What rows carried by the plan stand for, and whether those on the target do; null where there is no plan. */
  readonly carries: Carried | null;
  readonly fit: Fit | null;
  /** What the rows on the target stand for, as recorded. */
  readonly carried: Carried | null;
  /** What the source calls it now; null when it is not captured there. */
  readonly named: TableName | null;
  readonly armed: boolean;
  /** The triggers name columns that are no more: they are to be replaced even though there is no plan. */
  readonly stale: boolean;
  /** Why it waits for a person to ask for a new copy, if its deltas were given up; else null. */
  readonly givenUp: string | null;
  /** Deltas visible in it are gone; null when none were forgotten yet. */
  readonly forgotten: Snapshot | null;
}

/** What the plans of a sync depend on, besides the catalogs. */
export type Wishes = Pick<SyncConfig, 'name' | 'carry' | 'keyless'> &
  Partial<Pick<SyncConfig, 'rivalry' | 'guard'>>;

/** Reads the roster from both sides. */
export async function readRoster(
  source: Session,
  target: Session,
  { name, carry, keyless, rivalry = null, guard = null }: Wishes,
): Promise<RosterTable[]> {
  const states = await readSyncTables(target, name);
  const records = await readCarried(target, name);
  const captured = new Map((await readCaptured(source, name)).map((table) => [table.relid, table]));
  const names = states.map((state) => captured.get(state.relid) ?? state);
  const counterparts = new Map((await readTables(target, names)).map((table) => [tableLabel(table), table]));
  const owners = ownersOf(states, records, captured);
  const former = await readNames(target, [...records.values()]);
  const roster: RosterTable[] = [];
  for (const state of states) {
    const record = captured.get(state.relid);
    const { carried = null, ahead = {}, choice = null } = records.get(state.relid) ?? {};
    const known = {
      carried,
      ahead,
      choice,
      former: carried === null ? undefined : former.get(carried.relation),
    };
    const counterpart = counterparts.get(tableLabel(record ?? state));
    const owner = counterpart && owners.get(counterpart.relid);
    const plannedAs =
      record === undefined
        ? notCaptured(state)
        : owner !== undefined && owner.relid !== state.relid
          ? without(occupied(record, owner))
          : tryPlan(
              // Under either name, lest a table that was renamed travels whole.
              await carriedTable(source, record, ruleOf(carry, record, state)),
              counterpart,
              state.state === 'pending' ? undefined : known,
              rivalry !== null ? 'two-way' : guard !== null ? 'guard' : keyless,
            );
    const rules = (rivalry ?? guard)?.rules;
    const planned = rules === undefined ? plannedAs : await withRules(target, rules, plannedAs);
    roster.push({
      ...state,
      ...planned,
      carried,
      named: record === undefined ? null : { schema: record.schema, name: record.name },
      armed: record?.armed ?? false,
      stale: record?.noted.some((name) => record.columns.every((column) => column.name !== name)) ?? false,
      givenUp: record?.givenUp ?? null,
      forgotten: record?.forgotten ?? null,
    });
  }
  return roster;
}

/** Without a plan where conflicts could not be decided as they are to be. */
async function withRules(target: Session, rules: ConflictRules, planned: Planned): Promise<Planned> {
  if (planned.plan === null) return planned;
  const wrong = missingColumn(rules, planned.plan) ?? (await missingFunction(target, rules, planned.plan));
  return wrong === undefined ? planned : without(wrong);
}

type Planned = Pick<RosterTable, 'plan' | 'obstacle' | 'carries' | 'fit'>;

function notCaptured(state: SyncTable): Planned {
  const label = tableLabel(state);
  const message = state.reason ?? `table ${label} does not exist on the source any more`;
  return without(new IbexError('schema_mismatch', message, { table: label }));
}

function without(obstacle: IbexError): Planned {
  return { plan: null, obstacle, carries: null, fit: null };
}

/** What is known of the rows on the target, and what the table that has them is called there now. */
type Known = Omit<CarriedRecord, 'relid'> & { readonly former: TableName | undefined };

function tryPlan(
  record: CapturedRecord | IbexError,
  counterpart: TableInfo | undefined,
  known: Known | undefined,
  keyless: Wishes['keyless'] | 'two-way' | 'guard',
): Planned {
  if (record instanceof IbexError) return without(record);
  if (record.mode === 'row' && keyless === 'refuse') return without(keylessRefusal(record));
  const timed = keyless === 'two-way' || keyless === 'guard' ? keyless : undefined;
  if (record.mode === 'row' && timed) return without(keylessConflict(record));
  try {
    const planned = planTable(record, counterpart);
    const plan: TablePlan = timed ? { ...planned, timed } : planned;
    const target = counterpart as TableInfo;
    const carries = carriedBy(record, target, plan);
    const fits = fitOf(plan, carries, known, target);
    if (fits?.kind === 'renamed' && known?.former !== undefined)
      return without(exchanged(record, known.former));
    return { plan, obstacle: null, carries, fit: fits };
  } catch (error) {
    if (error instanceof IbexError && error.table !== undefined) return without(error);
    throw error;
  }
}

function fitOf(plan: TablePlan, carries: Carried, known: Known | undefined, target: TableInfo): Fit | null {
  if (known === undefined) return null;
  if (plan.choice !== known.choice)
    return { kind: 'copy', why: 'was copied with another choice of what to carry' };
  return known.carried === null ? null : judgeFit(known.carried, carries, known.ahead, target);
}

/** By the target's tables: whose rows they have. */
function ownersOf(
  states: readonly SyncTable[],
  records: ReadonlyMap<number, CarriedRecord>,
  captured: ReadonlyMap<number, CapturedRecord>,
): Map<number, CapturedRecord> {
  const carried = states.filter(({ state }) => state !== 'pending' && state !== 'dropped');
  return new Map(
    carried.flatMap(({ relid }) => {
      const [relation, owner] = [records.get(relid)?.carried?.relation, captured.get(relid)];
      return relation === undefined || owner === undefined ? [] : [[relation, owner]];
    }),
  );
}

function occupied(record: TableName, owner: TableName): IbexError {
  const label = tableLabel(record);
  const message = `${label} on the target has the rows of ${tableLabel(owner)}, as which it goes on`;
  return new IbexError('schema_mismatch', message, {
    table: label,
    hint: `It needs a table of its own there, once that one is called ${tableLabel(owner)}.`,
  });
}

function exchanged(record: TableName, former: TableName): IbexError {
  const label = tableLabel(record);
  const message = `${label} on the target is another table than the one that was carried, which is ${tableLabel(former)} there`;
  return new IbexError('schema_mismatch', message, { table: label });
}

/** What the tables that were carried into are called now, by oid; those that are gone are left out. */
async function readNames(
  target: Session,
  records: readonly CarriedRecord[],
): Promise<Map<number, TableName>> {
  const relations = records.flatMap(({ carried }) => (carried === null ? [] : [carried.relation]));
  if (relations.length === 0) return new Map();
  const rows = await target.rows<TableName & { relation: string }>(
    `select c.oid::int8::text as relation, n.nspname as schema, c.relname as name
       from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid::int8 = any ($1::int8[])`,
    [relations],
  );
  return new Map(rows.map(({ relation, ...name }) => [Number(relation), name]));
}

/**
 * The roster of one incarnation. Several read it again beside each other, over different sessions, so what an older reading
 * saw must not come after what a newer one saw: a lane that is told that a table in step were still being copied would
 * pass over its changes.
 */
export class Roster {
  #tables: readonly RosterTable[] = [];
  /** Readings of the states, numbered as they began; the newest that is shown. */
  #begun = 0;
  #shown = 0;
  readonly #sync: Wishes;
  /** Called when tables, or their states, are others than before. */
  onChange: () => void = () => undefined;

  constructor(sync: Wishes) {
    this.#sync = sync;
  }

  get tables(): readonly RosterTable[] {
    return this.#tables;
  }

  /** Tables were copied by their plans: their rows are what the plans carry. */
  settle(relids: ReadonlySet<number>): void {
    this.#tables = this.#tables.map((table) =>
      relids.has(table.relid) ? { ...table, carried: table.carries, fit: null } : table,
    );
  }

  /** Reads everything again, catalogs included. The states come last: the catalogs take a while. */
  async refresh(source: Session, target: Session): Promise<void> {
    const tables = await readRoster(source, target, this.#sync);
    await this.#show(target, () => tables);
  }

  /**
   * Reads the states again; plans only change with `refresh`. False when there are tables that it has no plan of,
   * because somebody added them to the sync.
   */
  readStates(target: Session): Promise<boolean> {
    return this.#show(target, () => this.#tables);
  }

  /** Shows tables with their states as of now. */
  async #show(target: Session, tables: () => readonly RosterTable[]): Promise<boolean> {
    const reading = ++this.#begun;
    const states = new Map(
      (await readSyncTables(target, this.#sync.name)).map((state) => [state.relid, state]),
    );
    // Somebody who began later has shown what is newer.
    if (reading < this.#shown) return this.#show(target, tables);
    this.#shown = reading;
    const before = this.#tables;
    this.#tables = tables().flatMap((table) => {
      const state = states.get(table.relid);
      // Of thousands of tables few change: a copy of each, at each reading, is most of what there is to collect.
      return state === undefined ? [] : [stands(table, state) ? table : { ...table, ...state }];
    });
    const same =
      this.#tables.length === before.length && this.#tables.every((table, i) => table === before[i]);
    if (!same) this.onChange();
    return this.#tables.length === states.size;
  }
}

function stands(table: RosterTable, state: SyncTable): boolean {
  return (Object.keys(state) as (keyof SyncTable)[]).every((name) => table[name] === state[name]);
}

/**
 * Whether a table waits for a person or a condition, with a reason that `status` shows. One that only waits for
 * its lock to be armed is not: that passes by itself.
 */
export function isHeld(table: RosterTable): boolean {
  const waitsForLock = table.plan !== null && !table.armed && table.givenUp === null;
  return table.state === 'held' || (table.reason !== null && !waitsForLock && table.state !== 'dropped');
}
