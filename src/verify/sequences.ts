/** Whether every sequence of the target is where it hands out nothing that the source has handed out. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type TableName, tableLabel } from '../core/plan.ts';
import { handedOut } from '../core/sequence.ts';
import { faultText, judgeSequences } from '../engine/sequences.ts';
import type { Session } from '../postgres/session.ts';
import type { Patience } from './settle.ts';

export interface SequenceResult {
  readonly compared: number;
  /** What is wrong, one sentence each. */
  readonly faults: readonly string[];
}

/** A daemon looks at them about every ten seconds. */
const CARRIED_WITHIN_MS = 30_000;
const LOOK_MS = 1_000;

/** @param all also those that belong to no table, which every sync carries */
export async function compareSequences(
  source: Session,
  target: Session,
  options: { readonly tables: readonly TableName[]; readonly all: boolean; readonly patience: Patience },
): Promise<SequenceResult> {
  const { patience } = options;
  const deadline = Date.now() + Math.min(CARRIED_WITHIN_MS, patience.settleMs);
  for (;;) {
    const result = await compareOnce(source, target, options);
    if (result.faults.length === 0 || Date.now() >= deadline || !(await patience.isRunning())) return result;
    await sleep(LOOK_MS, undefined, { signal: patience.signal });
  }
}

async function compareOnce(
  source: Session,
  target: Session,
  { tables, all }: { readonly tables: readonly TableName[]; readonly all: boolean },
): Promise<SequenceResult> {
  const carried = tables.map((table) => ({ source: table, target: table }));
  const { standings, locked, faults } = await judgeSequences(source, target, carried, all);
  const named = new Set(faults.map(({ sequence }) => sequence));
  const behind = standings.flatMap(({ pair, state, standing }) => {
    const label = tableLabel(pair.source);
    const ahead = (handedOut(standing) - handedOut(state)) * (state.increment > 0n ? 1n : -1n);
    const at = `${handedOut(state)} on the source and ${handedOut(standing)} on the target`;
    return ahead < 0n && !named.has(label) ? [`sequence ${label} is behind: it has handed out ${at}`] : [];
  });
  const unread = locked.map((label) => `sequence ${label} is locked by others`);
  return { compared: standings.length, faults: [...faults.map(faultText), ...unread, ...behind] };
}
