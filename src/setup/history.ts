/** Whether source and target still belong together, and whether this version understands what they hold. */
import { readRecord } from '../apply/state.ts';
import { readHistory } from '../capture/trigger/registry.ts';
import type { IbexError } from '../core/errors.ts';
import { historyFault } from '../core/history.ts';
import { isInstalled, requireKnownVersion } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';

/**
 * Why the sync's checkpoint means nothing on this source; null when it does, or there is none. Nothing is changed.
 * Errors: `unsupported` when a later version has set up either side.
 */
export async function findHistoryFault(
  source: Session,
  target: Session,
  sync: string,
): Promise<IbexError | null> {
  await requireKnownVersion(source, 'source');
  await requireKnownVersion(target, 'target');
  const record = (await isInstalled(target, 'target')) ? await readRecord(target, sync) : undefined;
  if (record === undefined) return null;
  return historyFault({ server: source.server, sync }, record, await readHistory(source, sync));
}

/** Errors: `identity`, and those of `findHistoryFault`. */
export async function requireHistory(source: Session, target: Session, sync: string): Promise<void> {
  const fault = await findHistoryFault(source, target, sync);
  if (fault !== null) throw fault;
}
