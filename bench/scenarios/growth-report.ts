/** What `growth` comes to: the cost of a change in each size, beside that in the smaller one. */
import type { Outcome } from '../scenario.ts';
import { range, ratioText, type Summary, summarise } from '../statistics.ts';
import { byWho, equalityOf, type Turn } from '../while-streaming.ts';

/** Rows of the tables, times the number of changes. */
export const TABLES = [1, 10, 100] as const;

/** Which rows are changed: the first of the table, however many it has, or some all over it. */
export const PLACES = ['the same rows', 'all over it'] as const;
export type Place = (typeof PLACES)[number];

/** What a change costs, in one of the sizes. */
export interface Cost {
  readonly place: Place;
  /** Times the smallest. */
  readonly table: number;
  readonly backlog: number;
  /** Microseconds for each change, in each repetition. */
  readonly wall: readonly number[];
  readonly cpu: readonly number[];
}

interface Figures {
  readonly who: string;
  readonly place: Place;
  readonly table: number;
  readonly backlog: number;
  readonly wall: Summary;
  readonly cpu: Summary;
  /** Times the cost of a change in the smallest table, for the larger backlog in the same table. */
  readonly wallRatio: number;
  readonly cpuRatio: number;
}

export function report(servers: object, changes: number, turns: readonly Turn<Cost[]>[]): Outcome {
  const figures = [...byWho(turns)].flatMap(([who, costs]) => figuresOf(who, costs.flat()));
  const equality = equalityOf(turns);
  return {
    servers,
    figures: { unit: 'us', changes, figures, runs: turns },
    content: [
      `${changes} changes in a table of ${changes} rows, and multiples; microseconds for each change, median (min-max)`,
      '',
      [
        ['', 'wall', '/ smaller', 'CPU', '/ smaller'],
        ...figures.map((cost) => [
          labelOf(cost),
          range(cost.wall, 1),
          ratioText(cost.wallRatio),
          range(cost.cpu, 1),
          ratioText(cost.cpuRatio),
        ]),
      ],
      '',
      equality.line,
    ],
    plots: [
      {
        kind: 'bars',
        name: 'cpu',
        title: 'What a change costs as table and backlog grow',
        subtitle: 'CPU of daemon and both servers for a change / the same for the smaller one',
        unit: 'x',
        bars: figures
          .filter(({ table, cpuRatio }) => table > 1 && Number.isFinite(cpuRatio))
          .map((cost) => ({ label: labelOf(cost), value: cost.cpuRatio, ours: cost.who === 'ibex' })),
        reference: { value: 1, label: 'no dearer' },
      },
    ],
    contract: contractOf(figures),
    ok: equality.ok,
  };
}

function labelOf({ who, table, backlog, place }: Figures): string {
  return `${who}: table x${table}, backlog x${backlog}, ${place}`;
}

function figuresOf(who: string, costs: readonly Cost[]): Figures[] {
  return costs.map(({ table, place, backlog, wall, cpu }) => {
    // A larger table is compared with the smallest, a larger backlog with the small one in the same table.
    const least = costs.find(
      (one) => one.place === place && one.backlog === 1 && one.table === (backlog === 1 ? 1 : table),
    );
    const ratio = (kind: 'wall' | 'cpu', own: readonly number[]) =>
      summarise(own).median / summarise(least?.[kind] ?? own).median;
    return {
      ...{ who, table, place, backlog },
      wall: summarise(wall),
      cpu: summarise(cpu),
      wallRatio: ratio('wall', wall),
      cpuRatio: ratio('cpu', cpu),
    };
  });
}

/** Of the same rows: what a larger table has more of to touch, whoever touches it, is in the table. In time and in CPU: the dearer counts. */
function contractOf(figures: readonly Figures[]): NonNullable<Outcome['contract']> {
  return figures
    .filter(
      ({ who, table, place }) => who === 'ibex' && place === 'the same rows' && table === Math.max(...TABLES),
    )
    .flatMap(({ backlog, wallRatio, cpuRatio }) =>
      [wallRatio, cpuRatio]
        .filter(Number.isFinite)
        .map((value) => ({ row: backlog === 1 ? 'growth-table' : 'growth-backlog', value }) as const),
    );
}
