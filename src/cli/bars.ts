/**
 * The progress of a copy as bars for a terminal. Pure. Widths are in columns; what does not
 * fit is left out, the least important first.
 */
import type { CopyView } from '../observe/copy-watch.ts';
import { isCopied, type TableProgress } from '../observe/progress.ts';
import { percentText } from '../observe/progress-text.ts';
import { fitted, widthOf } from '../observe/screen.ts';
import { bytesText, countText, shareText, timeText } from '../observe/units.ts';

/** Tables that have a bar of their own. */
const OWN_BARS = 5;
const BAR = { least: 8, most: 30 };
const LABEL_MOST = 32;
const GAP = '  ';

/** The cells beside a bar, the most important first. */
const CELLS = ['share', 'left', 'bytes', 'rate', 'rows'] as const;
type Cell = (typeof CELLS)[number];

interface Line {
  readonly label: string;
  /** From 0 to 1; null when the whole is not known. */
  readonly done: number | null;
  readonly cells: Readonly<Partial<Record<Cell, string>>>;
}

/** The block that a terminal shows: at most so many lines, each at most so wide. */
export function barsOf(view: CopyView, columns: number, lines: number): string[] {
  const room = Math.max(0, Math.min(OWN_BARS, lines - 3));
  const block = [overall(view), ...tableLines(view.tables, room)];
  return [...draw(block, columns), fitted(countsText(view), columns)].slice(0, lines);
}

function overall({ copy, rate, secondsLeft }: CopyView): Line {
  return {
    label: 'all tables',
    ...amounts(copy),
    cells: {
      ...amounts(copy).cells,
      rate: rate === null ? '' : `${bytesText(rate.bytesPerSecond)}/s`,
      left: secondsLeft === null ? 'time left unknown' : `${timeText(secondsLeft)} left`,
    },
  };
}

/** Those under way, as many as there is room for; the rest of them as one. */
function tableLines(tables: readonly TableProgress[], room: number): Line[] {
  const underWay = tables.filter(({ state, chunks }) => state === 'copying' && chunks.done < chunks.all);
  const own = underWay.length > room ? underWay.slice(0, Math.max(0, room - 1)) : underWay;
  const rest = underWay.slice(own.length);
  const lines = own.map((table) => ({ label: table.table, ...amounts(table) }));
  if (rest.length === 0 || room === 0) return lines;
  const sum = (of: (table: TableProgress) => number) => rest.reduce((all, table) => all + of(table), 0);
  const together = {
    copied: sum(({ copied }) => copied),
    bytes: {
      copied: sum(({ bytes }) => bytes.copied),
      planned: sum(({ bytes }) => bytes.planned ?? 0),
    },
  };
  return [...lines, { label: `${rest.length} more`, ...amounts(together) }];
}

function amounts({ copied, bytes }: Pick<TableProgress, 'copied' | 'bytes'>) {
  const done = fraction(bytes.copied, bytes.planned);
  return {
    done,
    cells: {
      share: percentText(bytes.copied, bytes.planned),
      bytes: shareText(bytes.copied, bytes.planned),
      rows: `${countText(copied)} rows`,
    },
  };
}

function fraction(copied: number, planned: number | null): number | null {
  if (planned === null) return null;
  return planned === 0 ? 1 : Math.min(1, copied / planned);
}

function countsText({ copy, tables }: CopyView): string {
  const waiting = tables.filter(({ state, reason }) => state === 'pending' && reason === null).length;
  const stuck = tables.filter(({ state, reason }) => !isCopied({ state }) && reason !== null).length;
  return [
    `${copy.tables.copied} of ${copy.tables.all} tables copied`,
    ...(waiting === 0 ? [] : [`${waiting} to come`]),
    ...(stuck === 0 ? [] : [`${stuck} held up, see \`ibex status\``]),
    `${copy.jobs} ${copy.jobs === 1 ? 'job' : 'jobs'} under way`,
  ].join(', ');
}

function draw(lines: readonly Line[], columns: number): string[] {
  const labelWidth = Math.min(
    LABEL_MOST,
    Math.floor(columns / 3),
    Math.max(...lines.map(({ label }) => widthOf(label))),
  );
  const widths = new Map(
    CELLS.map((cell) => [cell, Math.max(...lines.map(({ cells }) => widthOf(cells[cell] ?? '')))]),
  );
  const widthFor = (cells: readonly Cell[]) =>
    cells.reduce((sum, cell) => sum + GAP.length + (widths.get(cell) ?? 0), labelWidth + GAP.length + 2);
  let shown: readonly Cell[] = CELLS.filter((cell) => (widths.get(cell) ?? 0) > 0);
  while (shown.length > 0 && widthFor(shown) + BAR.least > columns) shown = shown.slice(0, -1);
  const bar = Math.min(BAR.most, columns - widthFor(shown));
  const order = (['share', 'bytes', 'rows', 'rate', 'left'] as const).filter((cell) => shown.includes(cell));
  return lines.map(({ label, done, cells }) => {
    const name = fitted(label, labelWidth);
    const parts = order.map((cell) => {
      const text = cells[cell] ?? '';
      return ' '.repeat((widths.get(cell) ?? 0) - widthOf(text)) + text;
    });
    const drawn = bar < 1 ? [] : [barText(done, bar)];
    return fitted(
      [name + ' '.repeat(labelWidth - widthOf(name)), ...drawn, ...parts].join(GAP).trimEnd(),
      columns,
    );
  });
}

function barText(done: number | null, width: number): string {
  const full = Math.floor((done ?? 0) * width);
  return `[${'#'.repeat(full)}${(done === null ? ' ' : '.').repeat(width - full)}]`;
}
