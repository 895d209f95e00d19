/** Bars with their names on the left and their values at the end, in proportion from zero. */
import type { Bars } from './plot.ts';
import { colour, FAINT, INK, image, line, MARGIN, round, TOP, text, WIDTH } from './svg.ts';

const ROW = 34;
const BAR = 20;
const LABELS = 230;
const VALUES = 90;

export function drawBars({ title, subtitle, unit, bars, reference }: Bars): string | undefined {
  if (bars.length === 0) return undefined;
  const left = MARGIN + LABELS;
  const longest = Math.max(...bars.map(({ value, spread }) => spread?.[1] ?? value), reference?.value ?? 0);
  const x = (value: number) => left + (value / longest) * (WIDTH - MARGIN - VALUES - left);
  const bottom = TOP + bars.length * ROW;
  const parts = bars.flatMap(({ label, value, spread, ours }, at) => {
    const middle = TOP + at * ROW + ROW / 2;
    return [
      text(left - 12, middle + 4, label, { anchor: 'end' }),
      `<rect x="${left}" y="${round(middle - BAR / 2)}" width="${round(x(value) - left)}" height="${BAR}" rx="2" fill="${colour(ours, 0)}"/>`,
      ...(spread === undefined ? [] : whisker(x(spread[0]), x(spread[1]), middle)),
      text(x(spread?.[1] ?? value) + 8, middle + 4, `${written(value)}${unit}`, { bold: ours, halo: true }),
    ];
  });
  if (reference !== undefined) {
    const at = x(reference.value);
    parts.unshift(line(at, TOP - 4, at, bottom + 4, { stroke: INK, dashed: true }));
    parts.push(text(at, bottom + 20, reference.label, { size: 12, fill: FAINT, anchor: 'middle' }));
  }
  return image(title, subtitle, bottom + (reference === undefined ? 16 : 36), parts);
}

/** From the smallest to the largest of the runs. */
function whisker(from: number, to: number, y: number): string[] {
  if (to - from < 1) return [];
  const style = { stroke: INK, width: 1.5 };
  return [line(from, y, to, y, style), ...[from, to].map((x) => line(x, y - 4, x, y + 4, style))];
}

/** Three digits that count. */
function written(value: number): string {
  return value >= 1000 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(3)));
}
