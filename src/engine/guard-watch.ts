/**
 * Looks after the guard of a sync that goes one way: all tables have one, it stands again where somebody took it away, and what
 * it notes stays within its part of the target's disk. Takes a guard away that the sync has no more.
 */
import { beat, readGivenUp, relieve } from '../capture/trigger/budget.ts';
import { readGenerations } from '../capture/trigger/generations.ts';
import { guardName } from '../core/conflict.ts';
import { type TableName, tableLabel } from '../core/plan.ts';
import type { Session } from '../postgres/session.ts';
import { removeGuard, tendGuard } from '../setup/guarding.ts';
import type { IncarnationOptions } from './options.ts';
import type { RosterTable } from './roster.ts';

/** No more often than this. */
const LOOK_MS = 2_000;
/** And at what it takes of the disk no more often than this. */
const DISK_MS = 30_000;
/** Settled changes leave dead rows, which every batch reads: from here on they are cleared away. */
const VACUUM_BYTES = 256 * 1024;

export class GuardWatch {
  readonly #options: IncarnationOptions;
  #lookedAt = 0;
  #diskAt = 0;
  /** What was said, until it is otherwise. */
  #said: ReadonlySet<string> = new Set();
  #removed = false;

  constructor(options: IncarnationOptions) {
    this.#options = options;
  }

  async look(target: Session, tables: readonly RosterTable[]): Promise<void> {
    if (this.#removed || Date.now() - this.#lookedAt < LOOK_MS) return;
    this.#lookedAt = Date.now();
    const { sync, lockTimeoutMs, log } = this.#options;
    if (sync.guard === null) {
      const waiting = await removeGuard(target, sync.name, lockTimeoutMs);
      this.#say(waiting.map(({ relation }) => `the guard of ${relation} is still there: it is locked`));
      this.#removed = waiting.length === 0;
      return;
    }
    const guarded = tables.filter(({ state }) => state !== 'dropped').map(nameOf);
    const { missing, gaps } = await tendGuard(target, sync.name, guarded, lockTimeoutMs);
    for (const [table, why] of gaps)
      log.warn(
        { table },
        `the guard of ${table} was off for a while: ${why}; what was written there is not noted`,
      );
    const givenUp = await this.#watchDisk(target);
    this.#say([...[...missing].map(([table, why]) => `${table} is not guarded: ${why}`), ...givenUp]);
  }

  /** Resolves to what was given up, as sentences. */
  async #watchDisk(target: Session): Promise<string[]> {
    const { sync, lockTimeoutMs } = this.#options;
    const name = guardName(sync.name);
    if (Date.now() - this.#diskAt > DISK_MS) {
      this.#diskAt = Date.now();
      await beat(target, name);
      await relieve(target, name, lockTimeoutMs);
      for (const { relid, n, bytes } of await readGenerations(target, name))
        if (bytes > VACUUM_BYTES) await target.run(`vacuum ibex.delta_${relid}_${n}`);
    }
    return (await readGivenUp(target, name)).map(
      (table) => `${tableLabel(table)} is not guarded until it is copied anew: ${table.why}`,
    );
  }

  #say(sentences: readonly string[]): void {
    for (const sentence of sentences) if (!this.#said.has(sentence)) this.#options.log.warn(sentence);
    this.#said = new Set(sentences);
  }
}

/** What the target calls it. */
function nameOf({ plan, named, schema, name }: RosterTable): TableName {
  return plan ?? named ?? { schema, name };
}
