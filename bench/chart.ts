/** The ratios of all scenarios as an SVG image: one bar each, and a line where Ibex and the other are equal. */
import type { Outcome } from './scenario.ts';

const WIDTH = 760;
const LABELS = 300;
const VALUES = 60;
const LINE = 22;
const BAR = 14;

type Chart = NonNullable<Outcome['chart']>;

/** `undefined` when there is nothing to draw. */
export function chartOf(charts: readonly Chart[]): string | undefined {
  const filled = charts.filter(({ ratios }) => ratios.length > 0);
  const longest = Math.max(1, ...filled.flatMap(({ ratios }) => ratios.map(({ value }) => value)));
  const scale = (WIDTH - LABELS - VALUES) / longest;
  const parts: string[] = [];
  let y = LINE;
  for (const { heading, ratios } of filled) {
    parts.push(text(10, y, heading, 'font-weight="bold"'));
    const top = y + LINE - BAR;
    for (const { label, value } of ratios) {
      y += LINE;
      parts.push(text(LABELS - 8, y, label, 'text-anchor="end"'));
      parts.push(rectangle(LABELS, y - BAR + 3, value * scale, value < 1 ? '#c2703d' : '#3d7ac2'));
      parts.push(text(LABELS + value * scale + 6, y, value.toFixed(2), ''));
    }
    const equal = round(LABELS + scale);
    parts.push(
      `<line x1="${equal}" y1="${top}" x2="${equal}" y2="${y + 6}" stroke="#444" stroke-dasharray="3 2"/>`,
    );
    y += 2 * LINE;
  }
  if (filled.length === 0) return undefined;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${y}" fill="white"/>`,
    ...parts,
    '</svg>\n',
  ].join('\n');
}

function text(x: number, y: number, content: string, attributes: string): string {
  const safe = content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
  return `<text x="${round(x)}" y="${y}" ${attributes}>${safe}</text>`;
}

function rectangle(x: number, y: number, width: number, fill: string): string {
  return `<rect x="${x}" y="${y}" width="${round(width)}" height="${BAR}" fill="${fill}"/>`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
