/** What an error becomes on its way through Redis, from the consumer of one process to the writer of another. */
import { ERROR_KINDS, type ErrorKind, IbexError } from '../core/errors.ts';
import type { BatchOutcome } from '../core/ports.ts';

interface ErrorReport {
  readonly kind: ErrorKind;
  readonly message: string;
}

export type Report = { readonly outcome: BatchOutcome } | { readonly error: ErrorReport };

export function describeError(error: unknown): ErrorReport {
  const kind = error instanceof IbexError ? error.kind : 'queue';
  return { kind, message: error instanceof Error ? error.message : String(error) };
}

export function restoreError(report: ErrorReport): IbexError {
  return new IbexError(report.kind in ERROR_KINDS ? report.kind : 'queue', report.message);
}

export function lostError(): IbexError {
  return new IbexError('queue_lost', 'Redis lost parts of the batch');
}

export function closedError(): IbexError {
  return new IbexError('queue_lost', 'the queue was closed before the batch was applied');
}
