/**
 * Keeps the target's sequences ahead of the source's. Sequences are in no transaction and in no delta, so they are
 * looked at again and again, and moved forward only.
 *
 * Carried are those that belong to a column of a table of the sync, and those that belong to no table.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type TableName, tableLabel } from '../core/plan.ts';
import { type SequenceState, sameDirection, stepsBetween, valueToSet } from '../core/sequence.ts';
import {
  listSequences,
  readSequences,
  type Sequence,
  type SequenceSetting,
  setSequences,
} from '../postgres/sequences.ts';
import type { Session } from '../postgres/session.ts';

export interface SequenceReport {
  /** Labels of those that others have locked on either side. */
  readonly locked: readonly string[];
  /** What cannot be carried as things are, one sentence each. */
  readonly faults: readonly string[];
}

/** Pause before locked ones are tried again. */
const RETRY_MS = 100;

/** A table of the sync: what source and target call it. */
export interface CarriedTable {
  readonly source: TableName;
  readonly target: TableName;
}

export class SequenceCarrier {
  /** Where the source's stood at the last look. */
  #seen: ReadonlyMap<string, SequenceState> = new Map();

  /**
   * Brings every sequence of the target ahead of where the source's stands now. Those that others have locked are
   * tried again until the deadline.
   */
  async carry(
    source: Session,
    target: Session,
    tables: readonly CarriedTable[],
    { deadline, signal }: { readonly deadline: number; readonly signal: AbortSignal },
  ): Promise<SequenceReport> {
    for (;;) {
      const report = await this.#carryOnce(source, target, tables);
      if (report.locked.length === 0 || Date.now() >= deadline || signal.aborted) return report;
      await sleep(RETRY_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  async #carryOnce(source: Session, target: Session, tables: readonly CarriedTable[]) {
    const { pairs, faults } = await match(source, target, tables);
    const here = await readSequences(
      source,
      pairs.map((pair) => pair.source),
    );
    const there = await readSequences(
      target,
      pairs.map((pair) => pair.target),
    );
    const settings = pairs.flatMap((pair): SequenceSetting[] => {
      const label = tableLabel(pair.source);
      const state = here.states.get(label);
      const standing = there.states.get(tableLabel(pair.target));
      if (state === undefined || standing === undefined) return [];
      const seen = this.#seen.get(label);
      const value = valueToSet(state, standing, seen === undefined ? 0n : stepsBetween(seen, state));
      return value === null ? [] : [{ sequence: pair.target, value }];
    });
    const locked = [...here.locked, ...there.locked, ...(await setSequences(target, settings))];
    this.#seen = here.states;
    return { locked, faults };
  }
}

interface Pair {
  readonly source: Sequence;
  readonly target: Sequence;
}

/** Which sequence of the target stands for which of the source, and what keeps others from being carried. */
async function match(source: Session, target: Session, tables: readonly CarriedTable[]) {
  const there = new Map(tables.map((table) => [tableLabel(table.source), tableLabel(table.target)]));
  const find = counterparts(await listSequences(target));
  const pairs: Pair[] = [];
  const faults: string[] = [];
  for (const one of await listSequences(source)) {
    if (one.owner !== null && !there.has(one.owner.table)) continue;
    const other = find(one, there);
    const fault = faultOf(one, other);
    if (other !== undefined && fault === null) pairs.push({ source: one, target: other });
    else faults.push(`sequence ${tableLabel(one)} is not carried: ${fault}`);
  }
  return { pairs, faults };
}

function faultOf(source: Sequence, target: Sequence | undefined): string | null {
  if (!source.readable) return 'the role may not read it on the source';
  if (target === undefined) return 'the target has none; `ibex schema copy` creates it';
  if (!target.settable) return 'the role may not set it on the target';
  return sameDirection(source, target) ? null : 'it counts in the other direction on the target';
}

/** The one of the same column, whatever it is called; else the one of the same name. */
function counterparts(sequences: readonly Sequence[]) {
  const byName = new Map(sequences.map((one) => [tableLabel(one), one]));
  const byColumn = new Map(
    sequences.flatMap((one) => (one.owner ? [[columnKey(one.owner.table, one.owner.column), one]] : [])),
  );
  return (one: Sequence, there: ReadonlyMap<string, string>): Sequence | undefined => {
    const table = one.owner && there.get(one.owner.table);
    const ofColumn = table ? byColumn.get(columnKey(table, one.owner?.column ?? '')) : undefined;
    return ofColumn ?? byName.get(tableLabel(one));
  };
}

function columnKey(table: string, column: string): string {
  return JSON.stringify([table, column]);
}
