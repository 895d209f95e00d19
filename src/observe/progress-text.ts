/** How far a copy is, in one line of a log. */
import type { CopyView } from './copy-watch.ts';
import type { Logger } from './log.ts';
import { bytesText, countText, shareText, timeText } from './units.ts';

/** How often a copy that nobody sees on a terminal says how far it is. */
export const LINE_EVERY_MS = 10_000;

export function progressText({ copy, rate, secondsLeft }: CopyView): string {
  const { copied, planned } = copy.bytes;
  const speed =
    rate === null ? '' : `, ${bytesText(rate.bytesPerSecond)}/s, ${countText(rate.rowsPerSecond)} rows/s`;
  const left = secondsLeft === null ? 'time left unknown' : `about ${timeText(secondsLeft)} left`;
  return (
    `copied ${shareText(copied, planned)} (${percentText(copied, planned)}), ${countText(copy.copied)} rows, ` +
    `${copy.tables.copied} of ${copy.tables.all} tables${speed}, ${left}`
  );
}

/** The same with all figures beside it. */
export function logProgress(log: Logger, view: CopyView): void {
  const { copy, rate, secondsLeft } = view;
  log.info({ ...copy, rate, secondsLeft }, progressText(view));
}

/** Rounded down: 100 % is said of what is complete. */
export function percentText(copied: number, planned: number | null): string {
  if (planned === null) return '? %';
  return `${planned === 0 ? 100 : Math.min(100, Math.floor((copied / planned) * 100))} %`;
}
