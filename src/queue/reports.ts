/** What an error becomes on its way through Redis, from the consumer of one process to the writer of another. */
import { ERROR_KINDS, type ErrorKind, IbexError } from '../core/errors.ts';
import type { BatchOutcome } from '../core/ports.ts';

interface ErrorReport {
  readonly kind: ErrorKind;
  readonly message: string;
  readonly hint?: string;
  readonly table?: string | undefined;
}

export type Report<T = BatchOutcome> = { readonly outcome: T } | { readonly error: ErrorReport };

export function describeError(error: unknown): ErrorReport {
  if (error instanceof IbexError) {
    const { kind, message, hint, table } = error;
    return { kind, message, hint, table };
  }
  return { kind: 'queue', message: error instanceof Error ? error.message : String(error) };
}

export function restoreError(report: ErrorReport): IbexError {
  const { kind, message, hint, table } = report;
  return new IbexError(kind in ERROR_KINDS ? kind : 'queue', message, {
    ...(hint === undefined ? {} : { hint }),
    ...(table === undefined ? {} : { table }),
  });
}

export function lostError(): IbexError {
  return new IbexError('queue_lost', 'Redis lost parts of the batch');
}

export function closedError(): IbexError {
  return new IbexError('queue_lost', 'the queue was closed before the batch was applied');
}
