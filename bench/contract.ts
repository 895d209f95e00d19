/**
 * The figures that Ibex has to reach, and those it would like to. All but memory and lag are ratios of two
 * measurements that were made in turns in the same run: seconds depend on the machine, ratios far less.
 */

interface Figure {
  readonly what: string;
  /** Whether the figure has to be at least that much, or at most. */
  readonly bound: '>=' | '<=';
  readonly must: number;
  readonly stretch: number;
  /** Stands behind the figures. */
  readonly unit: '' | 'x' | ' ms' | ' MB';
}

export const CONTRACT = {
  tps: {
    what: 'source, pgbench TPC-B: tps with capture / without',
    ...{ bound: '>=', must: 0.83, stretch: 0.9, unit: '' },
  },
  'bulk-update': {
    what: 'source, UPDATE of 200,000 rows: time with capture / without',
    ...{ bound: '<=', must: 1.7, stretch: 1.4, unit: '' },
  },
  'catch-up-native': {
    what: 'catch-up of 55,000 transactions: as fast as native logical replication',
    ...{ bound: '>=', must: 4, stretch: 8, unit: 'x' },
  },
  'catch-up-bucardo': {
    what: 'catch-up of 55,000 transactions: as fast as Bucardo',
    ...{ bound: '>=', must: 6, stretch: 12, unit: 'x' },
  },
  'lag-p50': {
    what: 'lag at half the saturating load, median',
    ...{ bound: '<=', must: 60, stretch: 25, unit: ' ms' },
  },
  'lag-p99': {
    what: 'lag at half the saturating load, 99th percentile',
    ...{ bound: '<=', must: 300, stretch: 100, unit: ' ms' },
  },
  sustained: {
    what: 'sustained rate with lag slope 0 / that of native',
    ...{ bound: '>=', must: 1, stretch: 1.5, unit: 'x' },
  },
  backfill: {
    what: 'backfill of one table, 1 job: rows/s / those of COPY piped into COPY',
    ...{ bound: '>=', must: 0.8, stretch: 0.95, unit: '' },
  },
  clone: {
    what: 'schema, rows and keys of 5 million rows, 2 jobs: time / that of pgcopydb',
    ...{ bound: '<=', must: 1, stretch: 0.8, unit: '' },
  },
  redis: {
    what: 'catch-up through Redis: speed / that in process',
    ...{ bound: '>=', must: 0.8, stretch: 0.9, unit: '' },
  },
  'two-way': {
    what: 'catch-up where both sides may be written: speed / one way',
    ...{ bound: '>=', must: 0.85, stretch: 0.95, unit: '' },
  },
  verify: {
    what: 'verify, full: time / that of one hash over the slower side',
    ...{ bound: '<=', must: 1.5, stretch: 1.1, unit: '' },
  },
  memory: {
    what: 'resident memory of the daemon under any load',
    ...{ bound: '<=', must: 256, stretch: 160, unit: ' MB' },
  },
  'growth-table': {
    what: 'cost per change of the same rows in a table 100 times as large',
    ...{ bound: '<=', must: 1.25, stretch: 1.05, unit: '' },
  },
  'growth-backlog': {
    what: 'cost per change with a backlog 10 times as large',
    ...{ bound: '<=', must: 1.25, stretch: 1.05, unit: '' },
  },
} as const satisfies Record<string, Figure>;

export type ContractRow = keyof typeof CONTRACT;

/** The head and a line for each row: `measured` has the values of those that were measured. */
export function contractTable(
  rows: readonly ContractRow[],
  measured: ReadonlyMap<ContractRow, number>,
): string[][] {
  return [
    ['', 'must', 'stretch', 'measured', 'met'],
    ...rows.map((row) => {
      const { what, bound, must, stretch, unit }: Figure = CONTRACT[row];
      const value = measured.get(row);
      return [
        what,
        `${bound} ${must}${unit}`,
        `${bound} ${stretch}${unit}`,
        value === undefined ? '-' : `${written(value)}${unit}`,
        value === undefined ? 'not measured' : verdict(row, value),
      ];
    }),
  ];
}

/** How it stands with a figure, in a word. */
export function verdict(row: ContractRow, value: number): 'NO' | 'yes' | 'stretch' {
  const { bound, must, stretch }: Figure = CONTRACT[row];
  const reaches = (limit: number) => (bound === '>=' ? value >= limit : value <= limit);
  if (!reaches(must)) return 'NO';
  return reaches(stretch) ? 'stretch' : 'yes';
}

/** Of several measurements of a row the one that is furthest from what it has to be. */
export function worstOf(
  measurements: readonly { readonly row: ContractRow; readonly value: number }[],
): Map<ContractRow, number> {
  const worst = new Map<ContractRow, number>();
  for (const { row, value } of measurements) {
    const worse = CONTRACT[row].bound === '>=' ? Math.min : Math.max;
    worst.set(row, worse(value, worst.get(row) ?? value));
  }
  return worst;
}

/** Three digits that count. */
function written(value: number): string {
  return String(Number(value >= 100 ? value.toFixed(0) : value.toPrecision(3)));
}
