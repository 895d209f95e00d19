/** Plots as SVG images. */
import { drawBars } from './bars.ts';
import { drawLines } from './lines.ts';
import type { Plot } from './plot.ts';

/** `undefined` when there is nothing to draw. */
export function draw(plot: Plot): string | undefined {
  return plot.kind === 'bars' ? drawBars(plot) : drawLines(plot);
}
