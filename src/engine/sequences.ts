/**
 * Keeps the target's sequences ahead of the source's. Sequences are in no transaction and in no delta, so they are
 * looked at again and again, and moved forward only.
 *
 * Carried are those that belong to a column of a table of the sync, and those that belong to no table.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type TableName, tableLabel } from '../core/plan.ts';
import {
  handedOut,
  MARGIN,
  reaches,
  type SequenceState,
  sameDirection,
  stepsBetween,
  valueToSet,
} from '../core/sequence.ts';
import { ident, tableIdent } from '../postgres/quote.ts';
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
  /** What cannot be carried as things are. */
  readonly faults: readonly SequenceFault[];
  /** Those of the target that are ahead now. */
  readonly carried: readonly CarriedSequence[];
}

/** Why a sequence cannot be carried. */
export interface SequenceFault {
  /** What the source calls it. */
  readonly sequence: string;
  readonly why: string;
  readonly remedy: string;
}

/** The fault as one sentence. */
export function faultText({ sequence, why, remedy }: SequenceFault): string {
  return `sequence ${sequence} is not carried: ${why}; ${remedy}`;
}

/** A sequence of the target that is ahead of the source's. */
export interface CarriedSequence {
  /** What source and target call it. */
  readonly sequence: string;
  readonly target: string;
  /** The value that each has handed out last, or would have been just before its first one. */
  readonly sourceAt: bigint;
  readonly targetAt: bigint;
  /** It was set now; otherwise it was ahead before. */
  readonly moved: boolean;
}

/** Pause before locked ones are tried again. */
const RETRY_MS = 100;

/** A table of the sync: what source and target call it. */
export interface CarriedTable {
  readonly source: TableName;
  readonly target: TableName;
}

export class SequenceCarrier {
  readonly #margin: bigint;
  /** Where the source's stood at the last look. */
  readonly #seen = new Map<string, SequenceState>();

  /** `margin`: how many steps ahead of the source's those are set that hand out little. */
  constructor(margin: bigint = MARGIN) {
    this.#margin = margin;
  }

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
    const moved = new Set<string>();
    for (;;) {
      const { carried, ...report } = await this.#carryOnce(source, target, tables);
      for (const one of carried) if (one.moved) moved.add(one.sequence);
      if (report.locked.length === 0 || Date.now() >= deadline || signal.aborted)
        return { ...report, carried: carried.map((one) => ({ ...one, moved: moved.has(one.sequence) })) };
      await sleep(RETRY_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  async #carryOnce(
    source: Session,
    target: Session,
    tables: readonly CarriedTable[],
  ): Promise<SequenceReport> {
    const { standings, locked, faults } = await judgeSequences(source, target, tables);
    const moves = standings.map((one) => ({ ...one, value: this.#valueFor(one) }));
    const settings = moves.flatMap(({ pair, value }): SequenceSetting[] =>
      value === null ? [] : [{ sequence: pair.target, value }],
    );
    const refused = await setSequences(target, settings);
    for (const { pair, state } of standings) this.#seen.set(tableLabel(pair.source), state);
    const behind = new Set([...refused, ...faults.map(({ sequence }) => sequence)]);
    const carried = moves
      .filter(({ pair }) => ![pair.source, pair.target].some((one) => behind.has(tableLabel(one))))
      .map(({ pair, state, standing, value }) => ({
        sequence: tableLabel(pair.source),
        target: tableLabel(pair.target),
        sourceAt: handedOut(state),
        targetAt: handedOut({ ...standing, ...value }),
        moved: value !== null,
      }));
    return { locked: [...locked, ...refused], faults, carried };
  }

  #valueFor({ pair, state, standing }: Standing) {
    const seen = this.#seen.get(tableLabel(pair.source));
    const drawn = seen === undefined ? 0n : stepsBetween(seen, state);
    return valueToSet(state, standing, drawn, this.#margin);
  }
}

/** A sequence of the source and the one that stands for it on the target, and where both stand. */
interface Standing {
  readonly pair: { readonly source: Sequence; readonly target: Sequence };
  readonly state: SequenceState;
  readonly standing: SequenceState;
}

export interface SequenceJudgement {
  readonly standings: readonly Standing[];
  /** Labels of those that others have locked on either side. */
  readonly locked: readonly string[];
  /** What keeps sequences from being carried. Those whose counterpart ends too early are among the standings as well. */
  readonly faults: readonly SequenceFault[];
}

/**
 * Matches the sequences of both sides and reads where they stand; nothing is set. A moment's lock each, as nextval() takes it.
 * @param alone also those that belong to no table, which every sync carries
 */
export async function judgeSequences(
  source: Session,
  target: Session,
  tables: readonly CarriedTable[],
  alone = true,
): Promise<SequenceJudgement> {
  const { pairs, faults } = await matchSequences(source, target, tables, alone);
  const here = await readSequences(
    source,
    pairs.map((pair) => pair.source),
  );
  const there = await readSequences(
    target,
    pairs.map((pair) => pair.target),
  );
  const standings = pairs.flatMap((pair) => {
    const state = here.states.get(tableLabel(pair.source));
    const standing = there.states.get(tableLabel(pair.target));
    return state === undefined || standing === undefined ? [] : [{ pair, state, standing }];
  });
  const tooShort = standings.filter(({ state, standing }) => !reaches(standing, state));
  return {
    standings,
    locked: [...here.locked, ...there.locked],
    faults: [...faults, ...tooShort.map(endsBefore)],
  };
}

/** Which sequence of the target stands for which of the source, and what keeps others from being carried. */
async function matchSequences(
  source: Session,
  target: Session,
  tables: readonly CarriedTable[],
  alone: boolean,
) {
  const there = new Map(tables.map((table) => [tableLabel(table.source), tableLabel(table.target)]));
  const find = counterparts(await listSequences(target));
  const pairs: Standing['pair'][] = [];
  const faults: SequenceFault[] = [];
  for (const one of await listSequences(source)) {
    if (one.owner === null ? !alone : !there.has(one.owner.table)) continue;
    const other = find(one, there);
    const fault = faultOf(one, other);
    if (other !== undefined && fault === null) pairs.push({ source: one, target: other });
    else if (fault !== null) faults.push({ sequence: tableLabel(one), ...fault });
  }
  return { pairs, faults };
}

type Reason = Omit<SequenceFault, 'sequence'>;

function faultOf(source: Sequence, target: Sequence | undefined): Reason | null {
  if (!source.readable)
    return { why: 'the role may not read it on the source', remedy: grant('source', 'select', source) };
  if (target === undefined) return { why: 'the target has none', remedy: `\`ibex schema copy\` creates it` };
  if (!target.settable)
    return {
      why: 'the role may not set it on the target',
      remedy: grant('target', 'select, update', target),
    };
  if (sameDirection(source, target)) return null;
  const { increment, min, max } = source;
  const start = increment > 0n ? min : max;
  return {
    why: 'it counts in the other direction on the target',
    remedy:
      `on the target: alter sequence ${tableIdent(target)} increment by ${increment} minvalue ${min} maxvalue ${max} ` +
      `start with ${start} restart with ${start};`,
  };
}

function grant(side: 'source' | 'target', rights: string, sequence: Sequence): string {
  const role = ident(sequence.role);
  return (
    `on the ${side}: grant usage on schema ${ident(sequence.schema)} to ${role}; ` +
    `grant ${rights} on sequence ${tableIdent(sequence)} to ${role};`
  );
}

/** The target's is set to its end all the same: as far ahead as it goes. */
function endsBefore({ pair, state: source, standing: target }: Standing): SequenceFault {
  const [limit, name] = source.increment > 0n ? [source.max, 'maxvalue'] : [source.min, 'minvalue'];
  const end = source.increment > 0n ? target.max : target.min;
  return {
    sequence: tableLabel(pair.source),
    why: `it stands at ${source.last}, and that of the target ends at ${end}`,
    remedy: `on the target: alter sequence ${tableIdent(pair.target)} as bigint ${name} ${limit};`,
  };
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
