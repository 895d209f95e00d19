/** `SyncStatus` as a person reads it on a terminal. */

import type { GuardedTable } from '../conflict/guarded.ts';
import { mergeText } from './merging.ts';
import type { CopyProgress } from './progress.ts';
import type { BacklogStatus, SyncStatus } from './status.ts';
import { bytesText, countText, shareText, timeText } from './units.ts';

export function statusText(status: SyncStatus): string {
  const { lag, daemon } = status;
  return [
    `${status.sync}: ${status.verdict}   ${status.source} -> ${status.target}`,
    ...status.why.map((reason) => `  ! ${reason}`),
    ...status.remarks.map((remark) => `  remark    ${remark}`),
    `  daemon    ${daemon === null ? 'none' : `${daemon.host}, process ${daemon.pid}`}`,
    `  lag       ${lag.seconds.toFixed(1)} s, ${lag.keys} changes, ${bytesText(lag.bytes)} of deltas`,
    ...diskLine(status.disk),
    ...copyLine(status.copy),
    ...status.backlogs.map(backlogLine),
    ...(status.merge === null ? [] : [`  merge     ${mergeText(status.merge)}`]),
    ...(status.slowed === null ? [] : [`  slowed    the source is busy: ${status.slowed.why}`]),
    ...surplusText(status.tables),
    ...(status.guard ?? []).flatMap(guardLine),
    ...status.parked.map(
      ({ kind, name, table, reason }) =>
        `  parked    ${kind.replace('_', ' ')} ${name} of ${table}${reason === null ? '' : `: ${reason}`}`,
    ),
    '',
    ...table([
      ['table', 'state', 'copied', 'captured', 'applied', 'coalesced', 'held', 'pending'],
      ...status.tables.map((one) => [
        one.table,
        one.state === 'copying' ? `copying ${one.chunks.done}/${one.chunks.all}` : one.state,
        ...[one.copied, one.captured, one.applied, one.coalesced, one.held, one.pending].map(String),
      ]),
    ]),
  ].join('\n');
}

function diskLine(disk: SyncStatus['disk']): string[] {
  if (disk === null) return [];
  const { bytes, maxBytes, oldestSeconds, maxSeconds, near } = disk;
  const age =
    oldestSeconds === null ? 'all acknowledged' : `the oldest change is ${timeText(oldestSeconds)} old`;
  const limit = maxSeconds === null ? '' : ` of ${timeText(maxSeconds)}`;
  const warning = near ? ': past that their capture ends' : '';
  return [`  disk      ${shareText(bytes, maxBytes)} of the source, ${age}${limit}${warning}`];
}

/** Rows that are on the target only, as far as the copy can tell. */
export function surplusText(tables: SyncStatus['tables']): string[] {
  return tables
    .filter(({ surplus }) => surplus !== null && surplus > 0)
    .map(
      ({ table, surplus }) => `  surplus   ${table}: ${surplus} rows of the target were not met by the copy`,
    );
}

function backlogLine({ table, staged, left, perSecond, secondsLeft }: BacklogStatus): string {
  const speed = perSecond === null ? '' : `, ${countText(perSecond)}/s`;
  const time = secondsLeft === null ? '' : `, about ${timeText(secondsLeft)} left, then it is merged`;
  return `  backlog   ${table}: ${countText(staged)} of ${countText(staged + left)} changes staged${speed}${time}`;
}

function guardLine({ table, keys, truncated }: GuardedTable): string[] {
  if (truncated) return [`  guard     ${table} was truncated on the target`];
  if (keys === 0) return [];
  return [`  guard     ${table}: ${keys} ${keys === 1 ? 'key was' : 'keys were'} written on the target`];
}

/** Nothing once all is copied. */
function copyLine({ tables, copied, bytes, jobs }: CopyProgress): string[] {
  if (tables.copied === tables.all) return [];
  const rows = `${countText(copied)} rows, ${tables.copied} of ${tables.all} tables`;
  return [`  copy      ${shareText(bytes.copied, bytes.planned)}, ${rows}, ${jobs} under way`];
}

/** Columns aligned: the first two to the left, numbers to the right. */
function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  return rows.map((row) =>
    `  ${row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  ')}`.trimEnd(),
  );
}
