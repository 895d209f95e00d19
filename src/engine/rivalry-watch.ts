/**
 * Looks after a sync of which both sides are written: how far the clocks of its servers are apart, which `newest` and
 * `oldest` trust, and which records of conflicts are old. Of one that goes one way, after its guard.
 */
import { forgetOld } from '../conflict/recording.ts';
import type { Session } from '../postgres/session.ts';
import { GuardWatch } from './guard-watch.ts';
import type { IncarnationOptions } from './options.ts';
import type { RosterTable } from './roster.ts';

/** No more often than this. */
const LOOK_MS = 30_000;
/** From which difference on a person should know. */
const SKEWED_MS = 1_000;

export class RivalryWatch {
  readonly #options: IncarnationOptions;
  readonly #guard: GuardWatch;
  #lookedAt = 0;
  #said = false;

  constructor(options: IncarnationOptions) {
    this.#options = options;
    this.#guard = new GuardWatch(options);
  }

  async look(source: Session, target: Session, tables: readonly RosterTable[]): Promise<void> {
    await this.#guard.look(target, tables);
    const { sync, metrics, log } = this.#options;
    const rivalry = sync.rivalry ?? sync.guard;
    if (rivalry === null || Date.now() - this.#lookedAt < LOOK_MS) return;
    this.#lookedAt = Date.now();
    const { retentionMs } = rivalry.rules;
    if (retentionMs !== null) await forgetOld(target, sync.name, retentionMs);
    const skew = await readSkew(source, target);
    metrics.clockSkew.set({ sync: sync.name }, skew / 1000);
    if (Math.abs(skew) < SKEWED_MS || this.#said) return;
    this.#said = true;
    const seconds = (Math.abs(skew) / 1000).toFixed(1);
    log.warn(
      `the clocks of ${source.server} and ${target.server} are ${seconds} s apart, by which conflicts are decided`,
    );
  }
}

/** By how many milliseconds the target's clock is ahead of the source's, give or take half of what asking takes. */
async function readSkew(source: Session, target: Session): Promise<number> {
  const [here, there] = [await offsetOf(source), await offsetOf(target)];
  return there - here;
}

/** How far a server's clock is ahead of this machine's: the answer was made about half way between question and arrival. */
async function offsetOf(session: Session): Promise<number> {
  const asked = Date.now();
  const { now } = await session.row<{ now: number }>(
    'select extract(epoch from clock_timestamp())::float8 * 1000 as now',
  );
  return now - (asked + Date.now()) / 2;
}
