/** What a copy of existing rows leaves alone: whatever this side has changed since it notes its changes. */
import { stageName } from '../apply/statements.ts';
import type { TablePlan } from '../core/plan.ts';
import type { Session } from '../postgres/session.ts';
import { readOurs } from './ours.ts';
import { ourKeys, sameKey } from './statements.ts';

/** Takes these keys out of what is staged; resolves to how many there were. `incoming` is the node that is copied from. */
export async function spareOurs(session: Session, plan: TablePlan, incoming: string): Promise<number> {
  const ours = (await readOurs(session, [plan], incoming)).get(plan.relid);
  if (ours === undefined || ours.generations.length === 0) return 0;
  const keys = ourKeys({ plan, ours, known: null, incoming });
  return session.run(
    `delete from ${stageName(plan)} s using (${keys}) d where d.at is not null and ${sameKey(plan)}`,
  );
}
