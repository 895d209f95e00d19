/** CPU time of all that takes part in a run: both servers with all of their processes, and the daemon. */
import type { Pair } from './pair.ts';
import { cpuSeconds, serverCpuSeconds } from './proc.ts';

/** CPU seconds; 0 where nobody tells. */
export interface Cpu {
  readonly daemon: number;
  readonly source: number;
  readonly target: number;
}

export function readCpu({ source, target }: Pair, pid: number | undefined): Cpu {
  return {
    daemon: pid === undefined ? 0 : (cpuSeconds(pid) ?? 0),
    source: serverCpuSeconds(source),
    target: serverCpuSeconds(target),
  };
}

/** What was used between two readings. */
export function usedCpu(before: Cpu, after: Cpu): Cpu {
  return {
    daemon: after.daemon - before.daemon,
    source: after.source - before.source,
    target: after.target - before.target,
  };
}

export function totalCpu({ daemon, source, target }: Cpu): number {
  return daemon + source + target;
}
