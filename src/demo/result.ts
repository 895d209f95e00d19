/** What comes out of a demo: the document of `--json`, and the screen at the end. */
import type { SyncStatus } from '../observe/status.ts';
import type { TableComparison } from './compare.ts';
import type { LogSummary } from './ibex.ts';
import type { LagSummary } from './probe.ts';

export interface DemoResult {
  readonly postgresql: string;
  readonly queue: 'redis' | 'in-process';
  /** Rows that one side has and the other lacks. */
  readonly differences: number;
  readonly tables: readonly TableComparison[];
  /** What Ibex itself says at the end, and what keeps it from saying READY. */
  readonly verdict: SyncStatus['verdict'];
  readonly why: readonly string[];
  readonly copied: { readonly rows: number; readonly seconds: number };
  /** captured = carried + coalesced + resolved + held. */
  readonly changes: Changes;
  readonly lag: LagSummary;
  readonly load: {
    readonly seconds: number;
    readonly transactions: number;
    /** Of `transactions`, those of pgbench; null without pgbench. */
    readonly pgbench: number | null;
    readonly connections: number;
    readonly deadlocks: number;
    readonly longTransactionSeconds: number;
  };
  /** From the last commit until `ibex wait` had ended, its own start included. */
  readonly inStepSeconds: number;
  readonly log: LogSummary;
  readonly seconds: number;
  /** With --keep. */
  readonly urls?: {
    readonly source: string;
    readonly target: string;
    readonly status: string;
    readonly log: string;
  };
}

export interface Changes {
  readonly captured: number;
  readonly carried: number;
  readonly coalesced: number;
  readonly resolved: number;
  readonly held: number;
}

export function addUp({ tables }: SyncStatus): Changes {
  const sum = (of: 'captured' | 'applied' | 'coalesced' | 'resolved' | 'held') =>
    tables.reduce((total, table) => total + table[of], 0);
  return {
    captured: sum('captured'),
    carried: sum('applied'),
    coalesced: sum('coalesced'),
    resolved: sum('resolved'),
    held: sum('held'),
  };
}

/** Everything arrived, and nothing of the target is still set aside. */
export function isGood({ differences, verdict }: DemoResult): boolean {
  return differences === 0 && verdict === 'READY';
}

export function screen(result: DemoResult): string {
  const { copied, changes, lag, load, tables } = result;
  const rows = tables.reduce((sum, table) => sum + table.rows, 0);
  const pgbench = load.pgbench === null ? '' : `, ${whole(load.pgbench)} of them by pgbench`;
  return [
    '',
    isGood(result)
      ? 'Everything is on the target, and nobody had to stop working.'
      : 'The target is not what it should be. This is a fault in Ibex; please report what stands below.',
    '',
    `  copied        ${whole(copied.rows)} rows of ${tables.length} tables in ${tenths(copied.seconds)} s, under load`,
    `  load          ${whole(load.transactions)} transactions in ${tenths(load.seconds)} s${pgbench};`,
    `                one was open for ${tenths(load.longTransactionSeconds)} s and committed last`,
    `  changes       ${whole(changes.captured)} captured = ${whole(changes.carried)} carried + ${whole(changes.coalesced)} coalesced${rest(changes)}`,
    `  lag           p50 ${whole(lag.p50Ms)} ms, p99 ${whole(lag.p99Ms)} ms, from COMMIT on the source to seen on the target:`,
    `                ${whole(lag.samples)} rows, one by one during the load, each looked for every ${lag.everyMs} ms`,
    `  in step       ${tenths(result.inStepSeconds)} s after the last commit, by \`ibex wait\``,
    `  differences   ${whole(result.differences)}: ${whole(rows)} rows compared as text, every column of every table`,
    ...(isGood(result) ? [] : complaints(result)),
    '',
    ...(result.urls === undefined ? furtherByRunning() : furtherByLooking(result.urls)),
  ].join('\n');
}

function complaints({ tables, verdict, why, log }: DemoResult): string[] {
  return [
    ...tables.filter((table) => table.differences > 0).flatMap(describe),
    '',
    `  status says ${verdict}`,
    ...why.map((reason) => `    ${reason}`),
    `  the log has ${log.warnings} warnings and ${log.errors} errors; the last of them:`,
    ...log.last.map((line) => `    ${line}`),
  ];
}

function describe({ table, differences, examples }: TableComparison): string[] {
  return [
    '',
    `  ${table}: ${whole(differences)} differences`,
    ...examples.map((example) => `    ${example}`),
  ];
}

function rest({ resolved, held }: Changes): string {
  return resolved + held === 0 ? '' : ` + ${whole(resolved)} resolved + ${whole(held)} held`;
}

function furtherByRunning(): string[] {
  return [
    'All of it is gone again. To look around in it: npm run demo -- --keep',
    'For databases of your own: npx ibex --help, docs/configuration.md',
  ];
}

function furtherByLooking({ source, target, status, log }: NonNullable<DemoResult['urls']>): string[] {
  return [
    'All of it goes on running until Ctrl-C. What you write to the source appears on the target:',
    '',
    `  export IBEX_SOURCE_URL=${source}`,
    `  export IBEX_TARGET_URL=${target}`,
    '  npx ibex status',
    '',
    `  in the browser  ${status}`,
    `  the log         ${log}`,
  ];
}

export function whole(n: number): string {
  return Math.round(n).toLocaleString('en-US');
}

export function tenths(seconds: number): string {
  return seconds.toFixed(1);
}
