/**
 * What every result says about where it comes from (machine, versions, commit, and how busy the machine was), how it
 * stands with the contract, and the result as a JSON document, as a screen and as Markdown.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, loadavg, release, totalmem, type } from 'node:os';
import { join } from 'node:path';
import type { Plot } from './charts/plot.ts';
import { CONTRACT, type ContractRow, contractTable, verdict, worstOf } from './contract.ts';
import type { LeftOut } from './peers.ts';
import { versionOf } from './programs.ts';
import type { Outcome, Pass } from './scenario.ts';
import { align } from './statistics.ts';

const ROOT = join(import.meta.dirname, '..');

/** The programs whose versions a report names where they are installed. */
const PROGRAMS = ['pgbench', 'psql', 'pgcopydb', 'bucardo'];

/** Where the figures come from: the same for all scenarios of a call. */
export interface Origin {
  /** Null where scenarios were named. */
  readonly pass: Pass | null;
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

export function readOrigin(pass: Pass | undefined): Origin {
  const programs = PROGRAMS.map((name) => [name, versionOf(name)] as const);
  return {
    pass: pass ?? null,
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
    contract: Object.fromEntries(
      [...measuredOf(results)].map(([row, value]) => [row, { value, met: verdict(row, value) }]),
    ),
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

/** All results as Markdown; `drawn` has the titles of the plots that lie beside it, by the names of their files. */
export function markdownOf(
  origin: Origin,
  results: readonly Result[],
  drawn: ReadonlyMap<string, string>,
): string {
  const plots = plotsOf(results);
  const sections = results.flatMap((result) => [
    `## ${headingOf(result)}`,
    ...result.outcome.content.map((part) => (typeof part === 'string' ? part : pipes(part))),
    ...leftOutLines(result),
    ...plots
      .filter(({ file, result: its }) => its === result && drawn.has(file))
      .map(({ file }) => `![${drawn.get(file)}](${file})`),
  ]);
  const rows = rowsToShow(origin, results);
  return [
    '# Benchmark of Ibex',
    ...(rows.length === 0 ? [] : [pipes(contractTable(rows, measuredOf(results)))]),
    originLines(origin, results)
      .map((text) => `- ${text}`)
      .join('\n'),
    ...sections,
    '',
  ]
    .filter((part, at, all) => part !== '' || at === all.length - 1)
    .join('\n\n');
}

/** The table of the contract for the screen; nothing where nothing of it was measured. */
export function contractLines(origin: Origin, results: readonly Result[]): string {
  const rows = rowsToShow(origin, results);
  if (rows.length === 0) return '';
  return `${['contract', ...align(contractTable(rows, measuredOf(results)))].join('\n')}\n`;
}

/** All rows in a whole report, else those that were measured. What a smoke test measures is nobody's business. */
function rowsToShow({ pass }: Origin, results: readonly Result[]): ContractRow[] {
  if (pass === 'smoke') return [];
  const measured = measuredOf(results);
  return (Object.keys(CONTRACT) as ContractRow[]).filter((row) => pass !== null || measured.has(row));
}

function measuredOf(results: readonly Result[]): Map<ContractRow, number> {
  return worstOf(results.flatMap(({ outcome }) => outcome.contract ?? []));
}

/** The plots of all results, with names for their files that no two share. */
export function plotsOf(results: readonly Result[]): { file: string; plot: Plot; result: Result }[] {
  return results.flatMap((result, at) => {
    const before = results.slice(0, at).filter(({ scenario }) => scenario === result.scenario).length;
    const prefix = before === 0 ? result.scenario : `${result.scenario}-${before + 1}`;
    return (result.outcome.plots ?? []).map((plot) => ({
      file: `${prefix}-${plot.name}.svg`,
      plot,
      result,
    }));
  });
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

/** The part of what is said of the servers that goes under each report. */
interface Servers {
  readonly postgresql: string;
  readonly settings: { readonly fsync: string };
}

function originLines({ machine, versions, commit, startedAt }: Origin, results: readonly Result[]): string[] {
  const all = results.map(({ outcome }) => outcome.servers as Servers);
  const servers = all.map(({ postgresql }) => postgresql);
  const fsync = all.map(({ settings }) => settings.fsync);
  const { ibex, node, ...programs } = versions;
  const short = commit?.replace(/^(.{10}).*?(\+?)$/, '$1$2') ?? 'unknown commit';
  return [
    `${machine.cores} x ${machine.cpu}, ${machine.memoryGib} GiB, ${machine.system}; load before: ${machine.loadBefore}`,
    `ibex ${ibex} (${short}), node ${node}, PostgreSQL ${[...new Set(servers)].join(' and ')} twice, fsync ${[...new Set(fsync)].join(' and ')}`,
    ...(Object.keys(programs).length === 0 ? [] : [Object.values(programs).join(', ')]),
    startedAt,
  ];
}
