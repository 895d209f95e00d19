/** What every result says about where it comes from: machine, versions, commit, and how busy the machine was. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, loadavg, release, totalmem, type } from 'node:os';
import { join } from 'node:path';
import { findPgbench, pgbenchVersion } from './pgbench.ts';
import type { Outcome, Scenario } from './scenario.ts';

const ROOT = join(import.meta.dirname, '..');

export interface Report {
  readonly scenario: string;
  readonly options: object;
  readonly startedAt: string;
  readonly tookSeconds: number;
  readonly machine: Machine;
  readonly versions: Record<string, string>;
  /** The commit of this checkout, with `+` when files differ from it; null outside a checkout. */
  readonly commit: string | null;
  readonly servers: object;
  readonly ok: boolean;
  readonly figures: object;
}

export interface Machine {
  readonly system: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGib: number;
  /** The load average over a minute before the scenario began: 0 on a machine of its own. */
  readonly loadBefore: number;
}

export function readMachine(): Machine {
  return {
    system: `${type()} ${release()}`,
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    loadBefore: Number((loadavg()[0] ?? 0).toFixed(2)),
  };
}

export async function makeReport(
  scenario: Scenario,
  options: object,
  machine: Machine,
  startedAt: Date,
  outcome: Outcome,
): Promise<Report> {
  return {
    scenario: scenario.name,
    options,
    startedAt: startedAt.toISOString(),
    tookSeconds: Math.round((Date.now() - startedAt.getTime()) / 1000),
    machine,
    versions: {
      ibex: JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).version,
      node: process.versions.node,
      ...(hasPgbench() ? { pgbench: await pgbenchVersion() } : {}),
    },
    commit: readCommit(),
    servers: outcome.servers,
    ok: outcome.ok,
    figures: outcome.figures,
  };
}

function hasPgbench(): boolean {
  try {
    return findPgbench() !== '';
  } catch {
    return false;
  }
}

function readCommit(): string | null {
  const git = (...args: string[]) =>
    execFileSync('git', ['--no-optional-locks', ...args], {
      cwd: ROOT,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  try {
    return `${git('rev-parse', 'HEAD')}${git('status', '--porcelain') === '' ? '' : '+'}`;
  } catch {
    return null;
  }
}

/** The whole result on one screen. */
export function screenOf(report: Report, lines: readonly string[]): string {
  const { machine, versions } = report;
  const { postgresql } = report.servers as { postgresql: string };
  const commit = report.commit?.replace(/^(.{10}).*?(\+?)$/, '$1$2') ?? 'unknown commit';
  return [
    `ibex bench ${report.scenario}`,
    ...lines,
    '',
    `${machine.cores} x ${machine.cpu}, ${machine.memoryGib} GiB, ${machine.system}; load before: ${machine.loadBefore}`,
    `ibex ${versions.ibex} (${commit}), node ${versions.node}, PostgreSQL ${postgresql} twice, fsync on` +
      (versions.pgbench === undefined ? '' : `, ${versions.pgbench}`),
    `${report.startedAt}, ${report.tookSeconds} s in all`,
    '',
  ].join('\n');
}
