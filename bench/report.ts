/**
 * What every result says about where it comes from (machine, versions, commit, and how busy the machine was), and the
 * result as a JSON document, as a screen and as Markdown.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, loadavg, release, totalmem, type } from 'node:os';
import { join } from 'node:path';
import type { LeftOut } from './peers.ts';
import { versionOf } from './programs.ts';
import type { Outcome } from './scenario.ts';
import { align } from './statistics.ts';

const ROOT = join(import.meta.dirname, '..');

/** The programs whose versions a report names where they are installed. */
const PROGRAMS = ['pgbench', 'psql', 'pgcopydb'];

/** Where the figures come from: the same for all scenarios of a call. */
export interface Origin {
  readonly startedAt: string;
  readonly machine: Machine;
  readonly versions: Readonly<Record<string, string>>;
  /** The commit of this checkout, with `+` when files differ from it; null outside a checkout. */
  readonly commit: string | null;
}

export interface Machine {
  readonly system: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGib: number;
  /** The load average over a minute before the first scenario began: 0 on a machine of its own. */
  readonly loadBefore: number;
}

/** One scenario that ran to its end. */
export interface Result {
  readonly scenario: string;
  readonly options: object;
  readonly tookSeconds: number;
  readonly leftOut: readonly LeftOut[];
  readonly outcome: Outcome;
}

export function readOrigin(): Origin {
  const programs = PROGRAMS.map((name) => [name, versionOf(name)] as const);
  return {
    startedAt: new Date().toISOString(),
    machine: {
      system: `${type()} ${release()}`,
      cpu: cpus()[0]?.model ?? 'unknown',
      cores: cpus().length,
      memoryGib: Math.round(totalmem() / 2 ** 30),
      loadBefore: Number((loadavg()[0] ?? 0).toFixed(2)),
    },
    versions: {
      ibex: JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).version,
      node: process.versions.node,
      ...Object.fromEntries(programs.filter(([, version]) => version !== undefined)),
    },
    commit: readCommit(),
  };
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

/** The document that `--json` writes. */
export function documentOf(origin: Origin, results: readonly Result[]): object {
  return {
    ...origin,
    ok: results.every(({ outcome }) => outcome.ok),
    scenarios: results.map(({ outcome, ...result }) => ({
      ...result,
      ok: outcome.ok,
      servers: outcome.servers,
      figures: outcome.figures,
    })),
  };
}

/** A whole result on one screen. */
export function screenOf(origin: Origin, result: Result): string {
  const { outcome } = result;
  const content = outcome.content.flatMap((part) => (typeof part === 'string' ? [part] : align(part)));
  return [
    headingOf(result),
    ...content,
    '',
    ...leftOutLines(result),
    ...originLines(origin, [result]),
    '',
  ].join('\n');
}

/** All results as Markdown, with the chart if there is one beside it. */
export function markdownOf(origin: Origin, results: readonly Result[], chart: string | undefined): string {
  const sections = results.flatMap((result) => [
    `## ${headingOf(result)}`,
    ...result.outcome.content.map((part) => (typeof part === 'string' ? part : pipes(part))),
    ...leftOutLines(result),
  ]);
  return [
    '# Benchmark of Ibex',
    ...(chart === undefined ? [] : [`![ratios](${chart})`]),
    ...sections,
    originLines(origin, results).join('\n'),
    '',
  ]
    .filter((part, at, all) => part !== '' || at === all.length - 1)
    .join('\n\n');
}

function pipes(rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  const [head = [], ...body] = rows;
  const rule = head.map((_, column) => (column === 0 ? '---' : '---:'));
  return [line(head), line(rule), ...body.map(line)].join('\n');
}

function headingOf({ scenario, tookSeconds }: Result): string {
  return `ibex bench ${scenario} (${tookSeconds} s)`;
}

function leftOutLines({ leftOut }: Result): string[] {
  if (leftOut.length === 0) return [];
  return [`left out: ${leftOut.map(({ peer, why }) => `${peer} (${why})`).join(', ')}`];
}

function originLines({ machine, versions, commit, startedAt }: Origin, results: readonly Result[]): string[] {
  const servers = results.map(({ outcome }) => (outcome.servers as { postgresql: string }).postgresql);
  const { ibex, node, ...programs } = versions;
  const short = commit?.replace(/^(.{10}).*?(\+?)$/, '$1$2') ?? 'unknown commit';
  return [
    `${machine.cores} x ${machine.cpu}, ${machine.memoryGib} GiB, ${machine.system}; load before: ${machine.loadBefore}`,
    `ibex ${ibex} (${short}), node ${node}, PostgreSQL ${[...new Set(servers)].join(' and ')} twice, fsync on`,
    ...(Object.keys(programs).length === 0 ? [] : [Object.values(programs).join(', ')]),
    startedAt,
  ];
}
