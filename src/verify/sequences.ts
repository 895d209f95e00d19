/** Whether every sequence of the target is where it hands out nothing that the source has handed out. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type TableName, tableLabel } from '../core/plan.ts';
import { handedOut } from '../core/sequence.ts';
import { faultText, matchSequences } from '../engine/sequences.ts';
import { readSequences } from '../postgres/sequences.ts';
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
  const { pairs, faults } = await matchSequences(source, target, carried);
  const owned = new Set(pairs.filter((pair) => all || pair.source.owner !== null));
  const here = await readSequences(
    source,
    [...owned].map((pair) => pair.source),
  );
  const there = await readSequences(
    target,
    [...owned].map((pair) => pair.target),
  );
  const wrong = [...owned].flatMap((pair) => {
    const label = tableLabel(pair.source);
    const [one, other] = [here.states.get(label), there.states.get(tableLabel(pair.target))];
    if (one === undefined || other === undefined) return [`sequence ${label} is locked by others`];
    const ahead = (handedOut(other) - handedOut(one)) * (one.increment > 0n ? 1n : -1n);
    const at = `${handedOut(one)} on the source and ${handedOut(other)} on the target`;
    return ahead < 0n ? [`sequence ${label} is behind: it has handed out ${at}`] : [];
  });
  return { compared: owned.size, faults: [...(all ? faults.map(faultText) : []), ...wrong] };
}
