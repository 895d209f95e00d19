/** The body of a probe's transaction: on other people's servers, so it is rolled back and does not wait for anybody. */
import { IbexError } from '../../core/errors.ts';
import type { Session } from '../../postgres/session.ts';
import { endsAll } from './finding.ts';

const PATIENCE = `set local lock_timeout = '500ms'; set local statement_timeout = '60s'`;

/** Runs the body in a transaction that is rolled back, with little patience. */
export function tryOut<T>(session: Session, body: () => Promise<T>): Promise<T> {
  return session.rehearse(async () => {
    for (const setting of PATIENCE.split('; ')) await session.run(setting);
    return body();
  });
}

/** Why a step of such a transaction failed, which goes on without it; null when it went through. */
export async function failureOf(session: Session, step: () => Promise<unknown>): Promise<IbexError | null> {
  await session.run('savepoint step');
  try {
    await step();
    await session.run('release savepoint step');
    return null;
  } catch (error) {
    if (!(error instanceof IbexError) || endsAll(error)) throw error;
    await session.run('rollback to savepoint step');
    return error;
  }
}
