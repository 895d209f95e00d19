/** What Linux tells about a process in /proc. Other systems have no such thing, so two scenarios need Linux. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { IbexError } from '../src/core/errors.ts';

/** Throws where there is no /proc, before anything is started. */
export function requireProc(): void {
  if (process.platform === 'linux') return;
  throw new IbexError('tool', 'this scenario reads /proc, which only Linux has', {
    hint: 'Run it on Linux, or in a container.',
  });
}

/** CPU seconds, user and system, that a process has used, waited-for children excluded. */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The second field is the name in parentheses, which may contain anything; utime and stime are 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond();
}

let ticks: number | undefined;

function ticksPerSecond(): number {
  ticks ??= Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
  return ticks;
}

/** The most resident memory that a process ever had, in MiB; `undefined` once it has ended. */
export function peakMemoryMib(pid: number): number | undefined {
  try {
    const kib = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return kib === undefined ? undefined : Number(kib) / 1024;
  } catch {
    return undefined;
  }
}
