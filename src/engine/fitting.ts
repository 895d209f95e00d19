/**
 * Brings the tables of a sync and their plans together before a lane starts: whatever was altered on either side since
 * the last one. A table whose rows still fit goes on as it stands; one that lacks the values of a new column has them
 * filled in; one that has no place on the target waits, with the DDL to run there; where nobody can know, it is copied
 * again.
 */
import { isDeepStrictEqual } from 'node:util';
import { noteCarried, renameParked, renameTable, requestFill } from '../apply/carried.ts';
import { followRenames } from '../apply/parking.ts';
import { holdTable, requestCopy, setReason } from '../apply/state.ts';
import { ruleOf } from '../core/carry.ts';
import { type CarryRule, tableLabel } from '../core/plan.ts';
import type { Snapshot } from '../core/position.ts';
import type { Logger } from '../observe/log.ts';
import type { Session } from '../postgres/session.ts';
import { reasonToHold } from '../setup/remedies.ts';
import type { Roster, RosterTable } from './roster.ts';
import type { TargetWatch } from './target-watch.ts';

export interface FittingContext {
  readonly source: Session;
  readonly target: Session;
  readonly sync: string;
  readonly roster: Roster;
  readonly watch: TargetWatch;
  readonly rules: readonly CarryRule[];
  /** Where the lane starts: what a table that cannot go on is to be read from later. */
  readonly start: Snapshot;
  readonly log: Logger;
}

/** Decides for every table. The roster is read again when anything came of it. */
export async function fitTables(context: FittingContext): Promise<void> {
  const { source, target, sync, roster } = context;
  await followRenames(target, sync);
  if (await followNames(context)) {
    await context.watch.note(target);
    await roster.refresh(source, target);
  }
  let changed = false;
  for (const table of roster.tables) if (await fitTable(context, table)) changed = true;
  if (changed) await roster.refresh(source, target);
}

/**
 * The target's record calls tables as the source does. One that the user has made a rule for keeps the name under which
 * its rule is found, lest it travels whole.
 */
async function followNames({ target, sync, roster, rules, log }: FittingContext): Promise<boolean> {
  let renamed = false;
  for (const { relid, named, ...table } of roster.tables) {
    if (named === null || tableLabel(named) === tableLabel(table)) continue;
    if (ruleOf(rules, table) !== undefined && ruleOf(rules, named) === undefined) continue;
    await renameTable(target, sync, relid, named);
    log.warn({ table: tableLabel(named) }, `${tableLabel(table)} is called ${tableLabel(named)} now`);
    renamed = true;
  }
  return renamed;
}

/** True when something about the table changed. */
async function fitTable(context: FittingContext, table: RosterTable): Promise<boolean> {
  const { target, sync, start, log } = context;
  const { relid, state, carries, carried, fit } = table;
  if (state === 'dropped') return false;
  if (carries === null) return hold(context, table);
  if (state === 'pending') return false;
  switch (fit?.kind) {
    case 'copy':
    case 'renamed': {
      const why = fit.kind === 'copy' ? fit.why : 'is another table on the target now';
      log.warn({ table: tableLabel(table) }, `${tableLabel(table)} ${why}: it is copied again`);
      await requestCopy(target, sync, relid, true, null);
      return true;
    }
    case 'fill':
      await requestFill(target, sync, relid, start, fit.columns);
      return true;
    default:
      if (carried !== null && tableLabel(carried) !== tableLabel(carries))
        await renameParked(target, carried, carries);
      if (isDeepStrictEqual(carried, carries)) return false;
      await noteCarried(target, sync, relid, carries);
      return true;
  }
}

/** The table waits; the lane reads it again from where it stands now. */
async function hold(context: FittingContext, table: RosterTable): Promise<boolean> {
  const { source, target, sync, start, log } = context;
  if (table.obstacle === null || (table.state === 'pending' && table.reason !== null)) return false;
  const reason = await reasonToHold(source, target, table, table.obstacle);
  if (reason === table.reason && ['held', 'copying'].includes(table.state)) return false;
  log.warn({ table: tableLabel(table) }, `${tableLabel(table)} waits: ${reason}`);
  if (table.state === 'pending') await setReason(target, sync, table.relid, reason);
  else await holdTable(target, sync, tableLabel(table), start, reason);
  return true;
}
