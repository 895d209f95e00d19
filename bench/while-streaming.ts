/**
 * What is measured while somebody replicates: each round gives every way of replicating its turn, in fresh databases
 * that are in step, and compares the rows of both sides when it has ended.
 */
import { findDifferences } from './equality.ts';
import { type Databases, type Pair, settle, type Templates } from './pair.ts';
import { createProbe, PROBE_TABLE } from './probe.ts';
import { say } from './scenario.ts';
import type { Stream } from './streams.ts';

/** The tables of a scenario, which both sides have and whose rows only the source has. */
export interface Tables {
  readonly names: readonly string[];
  /** Where they are made from; without it `create` makes them. */
  readonly templates?: Templates;
  create?(databases: Databases): Promise<void>;
}

export interface Stage {
  readonly pair: Pair;
  readonly databases: Databases;
  /** The process that replicates; `undefined` where it belongs to the servers. */
  readonly pid: number | undefined;
}

export interface Turn<T> {
  readonly who: string;
  readonly round: number;
  /** Without, where the tables came out different: then they are nobody's business. */
  readonly figures?: T;
  readonly differences: readonly string[];
}

/** `measure` has to leave the target in step: it ends with a change that was seen there. */
export async function inTurns<T>(
  { pair, tables, repeat }: { pair: Pair; tables: Tables; repeat: number },
  streams: readonly Stream[],
  measure: (stage: Stage, round: number) => Promise<T>,
): Promise<Turn<T>[]> {
  const turns: Turn<T>[] = [];
  for (let round = 1; round <= repeat; round++) {
    for (const stream of streams) {
      say(`round ${round} of ${repeat}: ${stream.who}`);
      const turn = await whileStreaming(pair, tables, stream, (stage) => measure(stage, round));
      turns.push({ who: stream.who, round, ...turn });
    }
  }
  return turns;
}

async function whileStreaming<T>(
  pair: Pair,
  { names, templates, create }: Tables,
  stream: Stream,
  measure: (stage: Stage) => Promise<T>,
): Promise<Pick<Turn<T>, 'figures' | 'differences'>> {
  const databases = await pair.create('streaming', templates);
  try {
    await create?.(databases);
    await createProbe(databases);
    const tables = [...names, PROBE_TABLE];
    const streaming = await stream.begin(databases, tables);
    try {
      await settle(databases);
      const figures = await measure({ pair, databases, pid: streaming.pid });
      const differences = await findDifferences(databases, tables);
      if (differences.length === 0) return { figures, differences };
      say(`  NOT EQUAL: ${differences.slice(0, 3).join('; ')}`);
      return { differences };
    } finally {
      await streaming.end();
    }
  } finally {
    await databases.drop();
  }
}

/** The figures of those that came out equal, for each way of replicating, in the order of their turns. */
export function byWho<T>(turns: readonly Turn<T>[]): Map<string, T[]> {
  const figures = new Map<string, T[]>();
  for (const turn of turns) {
    if (turn.figures !== undefined) figures.set(turn.who, [...(figures.get(turn.who) ?? []), turn.figures]);
  }
  return figures;
}

/** What the report says of it, and whether all is well. */
export function equalityOf(turns: readonly Turn<unknown>[]): { readonly ok: boolean; readonly line: string } {
  const different = turns.filter(({ differences }) => differences.length > 0).length;
  if (different === 0)
    return { ok: true, line: `all ${turns.length} runs ended with equal tables on both sides` };
  return { ok: false, line: `${different} of ${turns.length} runs ended DIFFERENT and have no figure` };
}
