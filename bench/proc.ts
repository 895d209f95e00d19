/**
 * What Linux tells about processes in /proc. CPU time says what work costs even while other programs keep the
 * machine busy, which times on a clock do not. Other systems have no /proc: there some figures are missing, and two
 * scenarios do not run.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { IbexError } from '../src/core/errors.ts';
import type { Running } from './children.ts';
import type { Server } from './servers.ts';

const SAMPLE_MS = 20;

export const hasProc = process.platform === 'linux';

/** Throws where there is no /proc, before anything is started. */
export function requireProc(): void {
  if (hasProc) return;
  throw new IbexError('tool', 'this scenario reads /proc, which only Linux has', {
    hint: 'Run it on Linux, or in a container.',
  });
}

interface Stat {
  readonly parent: number;
  readonly group: number;
  /** CPU seconds, user and system, of the process itself, and of its children that have ended. */
  readonly own: number;
  readonly ofEnded: number;
}

function readStat(pid: number): Stat | undefined {
  const stat = readFile(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The second field is the name in parentheses, which may contain anything; the third stands after it.
  const fields = ['', '', '', ...stat.slice(stat.lastIndexOf(')') + 2).split(' ')];
  const seconds = (first: number) => (Number(fields[first]) + Number(fields[first + 1])) / ticksPerSecond();
  return { parent: Number(fields[4]), group: Number(fields[5]), own: seconds(14), ofEnded: seconds(16) };
}

/** CPU seconds that a process has used; `undefined` once it has ended. */
export function cpuSeconds(pid: number): number | undefined {
  return readStat(pid)?.own;
}

/** The process group that a process belongs to; `undefined` once it has ended. */
export function processGroupOf(pid: number | undefined): number | undefined {
  return pid === undefined ? undefined : readStat(pid)?.group;
}

/** CPU seconds that the processes of a group have used; 0 without one, or without /proc. */
export function groupCpuSeconds(group: number | undefined): number {
  if (group === undefined) return 0;
  const stats = allPids().map((pid) => readStat(pid));
  return stats.reduce((sum, stat) => sum + (stat?.group === group ? stat.own : 0), 0);
}

function allPids(): number[] {
  return readdirSync('/proc').flatMap((name) => (/^\d+$/.test(name) ? [Number(name)] : []));
}

/** CPU seconds that all processes of a server have used, those of ended sessions included; 0 where nobody tells. */
export function serverCpuSeconds({ cluster }: Pick<Server, 'cluster'>): number {
  if (!hasProc || cluster === undefined) return 0;
  const postmaster = Number(readFile(join(cluster.directory, 'data', 'postmaster.pid'))?.split('\n')[0]);
  const ofEnded = () => readStat(postmaster)?.ofEnded ?? 0;
  for (;;) {
    const before = ofEnded();
    const stats = allPids().map((pid) => ({ pid, ...readStat(pid) }));
    const alive = stats.filter(({ pid, parent }) => pid === postmaster || parent === postmaster);
    // A process that ended meanwhile was perhaps counted twice, or not at all.
    if (ofEnded() === before) return alive.reduce((sum, { own }) => sum + (own ?? 0), before);
  }
}

/** The most resident memory that a process ever had, in MiB; `undefined` once it has ended. */
export function peakMemoryMib(pid: number): number | undefined {
  const kib = /^VmHWM:\s+(\d+) kB$/m.exec(readFile(`/proc/${pid}/status`) ?? '')?.[1];
  return kib === undefined ? undefined : Number(kib) / 1024;
}

/** Reads something of a process again and again until it ends, and gives what was read last. */
export async function readUntilEnd(
  running: Running,
  read: (pid: number) => number | undefined,
): Promise<number> {
  let last = 0;
  while (running.running) {
    last = read(running.pid) ?? last;
    await sleep(SAMPLE_MS);
  }
  return last;
}

let ticks: number | undefined;

function ticksPerSecond(): number {
  ticks ??= Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
  return ticks;
}

function readFile(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
