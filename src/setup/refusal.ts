/** A table that cannot be carried as it is: how that is said, and how it is told from other reasons to wait. */
import { IbexError } from '../core/errors.ts';
import { type TableName, tableLabel } from '../core/plan.ts';

const CANNOT = 'cannot be carried: ';

/** `why` comes from `ibex.refusal` on the source. */
export function refusedTable(table: TableName, why: string): IbexError {
  const label = tableLabel(table);
  return new IbexError('unsupported', `table ${label} ${CANNOT}${why}`, {
    table: label,
    hint: `Leave it out: --exclude '${label}', or ibex tables remove '${label}'.`,
  });
}

/** Whether a table waits for this reason, and so for the source alone. */
export function isRefusal(reason: string | null): boolean {
  return reason?.includes(CANNOT) ?? false;
}
