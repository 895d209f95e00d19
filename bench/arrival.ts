/** One large transaction, and how long after its commit the target has all of it. */
import { performance } from 'node:perf_hooks';
import { type Cpu, readCpu, usedCpu } from './cpu.ts';
import { nextNumber, whenShown } from './probe.ts';
import type { Stage } from './while-streaming.ts';

export interface Arrival {
  /** Seconds of the transaction itself. */
  readonly transaction: number;
  /** Seconds from the reply to its commit until the target showed its last change. */
  readonly arrival: number;
  /** CPU seconds in that time. */
  readonly cpu: Cpu;
}

/** Native applies a transaction at once, Ibex a batch: neither shows the last change before all others. */
export async function timeArrival({ pair, databases, pid }: Stage, statement: string): Promise<Arrival> {
  const { owner } = databases.source;
  const startedAt = performance.now();
  await owner.query('begin');
  await owner.query(statement);
  const number = await nextNumber(owner);
  await owner.query('commit');
  const committedAt = performance.now();
  const before = readCpu(pair, pid);
  const shownAt = await whenShown(databases, number);
  return {
    transaction: (committedAt - startedAt) / 1000,
    arrival: (shownAt - committedAt) / 1000,
    cpu: usedCpu(before, readCpu(pair, pid)),
  };
}
