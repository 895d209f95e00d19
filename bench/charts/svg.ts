/** The few elements that the pictures are made of, and what they have in common: size, colours, type. */

export const WIDTH = 800;
export const MARGIN = 28;
/** Where the drawing begins below title and subtitle. */
export const TOP = 84;

export const INK = '#1f2933';
export const FAINT = '#7b8794';
const GRID = '#e4e7eb';

/** Ibex first; whoever is compared with it recedes. */
const OURS = ['#1d6fa5', '#2a9d8f', '#6a4c93', '#e07a1f'];
const THEIRS = ['#9aa5b1', '#c2a878', '#8c8c8c', '#b8a1b5'];

/** The colour of the n-th of its kind. */
export function colour(ours: boolean, n: number): string {
  const all = ours ? OURS : THEIRS;
  return all[n % all.length] as string;
}

interface TextStyle {
  readonly size?: number;
  readonly fill?: string;
  readonly anchor?: 'start' | 'middle' | 'end';
  readonly bold?: boolean;
  /** White around the letters, where a line may run behind them. */
  readonly halo?: boolean;
}

export function text(x: number, y: number, content: string, style: TextStyle = {}): string {
  const { size = 13, fill = INK, anchor = 'start', bold = false, halo = false } = style;
  const weight = bold ? ' font-weight="600"' : '';
  const around = halo ? ' stroke="#ffffff" stroke-width="4" paint-order="stroke"' : '';
  return `<text x="${round(x)}" y="${round(y)}" font-size="${size}" fill="${fill}" text-anchor="${anchor}"${weight}${around}>${escaped(content)}</text>`;
}

interface Stroke {
  readonly stroke?: string;
  readonly width?: number;
  readonly dashed?: boolean;
}

export function line(x1: number, y1: number, x2: number, y2: number, style: Stroke = {}): string {
  const { stroke = GRID, width = 1, dashed = false } = style;
  const dashes = dashed ? ' stroke-dasharray="4 3"' : '';
  return `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" stroke="${stroke}" stroke-width="${width}"${dashes}/>`;
}

/** The whole picture: title and subtitle over what was drawn. */
export function image(title: string, subtitle: string, height: number, parts: readonly string[]): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${round(height)}" width="${WIDTH}" height="${round(height)}" font-family="Helvetica, Arial, sans-serif" role="img">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="100%" height="100%" fill="#ffffff"/>`,
    text(MARGIN, 36, title, { size: 19, bold: true }),
    text(MARGIN, 58, subtitle, { fill: FAINT }),
    ...parts,
    '</svg>\n',
  ].join('\n');
}

export function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function escaped(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
