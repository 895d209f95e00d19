/** Lines over a continuous axis, each named where it ends; both axes begin at zero. */
import type { Lines } from './plot.ts';
import { colour, FAINT, image, line, MARGIN, round, TOP, text, WIDTH } from './svg.ts';

const HEIGHT = 280;
const SCALE_WIDTH = 52;
const NAMES = 150;
/** Lines that end closer to each other than this have their names moved apart. */
const NAME_HEIGHT = 17;

export function drawLines({ title, subtitle, x, y, series }: Lines): string | undefined {
  const points = series.flatMap((one) => one.points);
  if (points.length === 0) return undefined;
  const [left, right] = [MARGIN + SCALE_WIDTH, WIDTH - MARGIN - NAMES];
  const [top, bottom] = [TOP + 18, TOP + 18 + HEIGHT];
  const across = stepsUpTo(Math.max(...points.map((point) => point[0])));
  const up = stepsUpTo(Math.max(...points.map((point) => point[1])));
  const toX = (value: number) => left + (value / (across.at(-1) as number)) * (right - left);
  const toY = (value: number) => bottom - (value / (up.at(-1) as number)) * (bottom - top);
  const parts = [
    text(MARGIN, TOP + 4, y, { size: 12, fill: FAINT }),
    text(right, bottom + 36, x, { size: 12, fill: FAINT, anchor: 'end' }),
    ...up.map((value) => line(left, toY(value), right, toY(value))),
    ...up.map((value) =>
      text(left - 8, toY(value) + 4, written(value), { size: 12, fill: FAINT, anchor: 'end' }),
    ),
    ...across.map((value) =>
      text(toX(value), bottom + 18, written(value), { size: 12, fill: FAINT, anchor: 'middle' }),
    ),
  ];
  const colours = coloursOf(series);
  for (const [at, one] of series.entries()) {
    const path = one.points.map(([a, b]) => `${round(toX(a))},${round(toY(b))}`).join(' ');
    parts.push(
      `<polyline points="${path}" fill="none" stroke="${colours[at]}" stroke-width="${one.ours ? 2.5 : 2}" stroke-linejoin="round"/>`,
    );
  }
  const ends = series.flatMap(({ label, points }, at) => {
    const end = points.at(-1);
    return end === undefined ? [] : [{ label, x: toX(end[0]), y: toY(end[1]), fill: colours[at] as string }];
  });
  for (const name of apart(ends)) {
    parts.push(text(name.x + 8, name.y + 4, name.label, { fill: name.fill, bold: true }));
  }
  return image(title, subtitle, bottom + 52, parts);
}

function coloursOf(series: Lines['series']): string[] {
  const count = { true: 0, false: 0 };
  return series.map(({ ours }) => colour(ours, count[`${ours}`]++));
}

/** From zero to the first round number that is not below `highest`, in four to ten steps. */
function stepsUpTo(highest: number): number[] {
  const rough = (highest || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((one) => one >= rough) as number;
  const count = Math.ceil((highest || 1) / step - 1e-9);
  return Array.from({ length: count + 1 }, (_, at) => at * step);
}

/** The same names from top to bottom, none over another. */
function apart<T extends { readonly y: number }>(names: readonly T[]): T[] {
  let free = Number.NEGATIVE_INFINITY;
  return names
    .toSorted((a, b) => a.y - b.y)
    .map((name) => {
      const y = Math.max(name.y, free);
      free = y + NAME_HEIGHT;
      return { ...name, y };
    });
}

function written(value: number): string {
  return Number(value.toPrecision(6)).toLocaleString('en');
}
