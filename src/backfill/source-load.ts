/**
 * Whether the source is busy with others, so that copying had better hold back. Asked of the source itself, as far as
 * the role may see it: of sessions of other roles, and of standbys, a role without pg_read_all_stats sees nothing,
 * which counts as nothing. Deciding is pure.
 */
import { isKind } from '../core/errors.ts';
import type { Session } from '../postgres/session.ts';

export interface SourceLoad {
  /** Sessions of others that run a statement now; those that wait for a lock cost the server nothing. */
  readonly active: number;
  /** How far the furthest of the source's own standbys is behind; 0 without any, or where that is hidden. */
  readonly standbyBytes: number;
  readonly standbySeconds: number;
}

/** What was thought of the source, and how many looks in a row thought otherwise. */
export interface Judgement {
  /** Why it counts as busy, as a person reads it; null while it does not. */
  readonly busy: string | null;
  readonly doubts: number;
}

export const CALM: Judgement = { busy: null, doubts: 0 };

/** A peak or a lull of a moment changes nothing: two looks in a row have to agree. */
const LOOKS = 2;
/** It counts as calm again below this part of what made it count as busy, lest it goes to and fro. */
const RELIEF = 0.75;
/**
 * What a standby has not on its disk yet, in seconds and in WAL (four segments: less is in flight on any busy server).
 * How far it has replayed is no matter of ours: it may be told to stay behind, or wait for its own readers.
 */
const STANDBY_SECONDS = 10;
const STANDBY_BYTES = 64 * 1024 * 1024;

/** @param busySessions so many sessions may be active; 0: what happens on the source changes nothing */
export function judgeLoad(before: Judgement, load: SourceLoad, busySessions: number): Judgement {
  const now = busySessions === 0 ? null : reasonOf(load, busySessions, before.busy === null ? 1 : RELIEF);
  if ((now === null) === (before.busy === null)) return { busy: before.busy, doubts: 0 };
  return before.doubts + 1 < LOOKS ? { ...before, doubts: before.doubts + 1 } : { busy: now, doubts: 0 };
}

function reasonOf(load: SourceLoad, busySessions: number, part: number): string | null {
  const { active, standbyBytes, standbySeconds } = load;
  if (active > busySessions * part) return `${active} sessions are active there`;
  if (standbySeconds > STANDBY_SECONDS * part) return `a standby is ${Math.round(standbySeconds)} s behind`;
  if (standbyBytes > STANDBY_BYTES * part)
    return `a standby is ${Math.round(standbyBytes / 1024 / 1024)} MiB behind`;
  return null;
}

const READ_SESSIONS = `
  select count(*)::int4 as active from pg_stat_activity
   where backend_type = 'client backend' and state = 'active' and pid <> pg_backend_pid()
     and application_name not like 'ibex:%' and wait_event_type is distinct from 'Lock'`;

const READ_STANDBYS = `
  select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), r.flush_lsn)), 0)::float8 as "standbyBytes",
         coalesce(max(extract(epoch from r.flush_lag)), 0)::float8 as "standbySeconds"
    from pg_stat_replication r
   where not exists (select from pg_replication_slots s where s.active_pid = r.pid and s.slot_type = 'logical')`;

/** How often the source is looked at. */
const LOOK_MS = 2_000;

export class LoadWatch {
  readonly #busySessions: number;
  readonly #forbidden = new Set<string>();
  #judgement = CALM;
  #nextAt = 0;

  constructor(busySessions: number) {
    this.#busySessions = busySessions;
  }

  /** Why the source counts as busy; null while it does not. */
  get busy(): string | null {
    return this.#judgement.busy;
  }

  /** Looks if it is time to. */
  async look(source: Session): Promise<void> {
    if (this.#busySessions === 0 || Date.now() < this.#nextAt) return;
    this.#nextAt = Date.now() + LOOK_MS;
    const sessions = await this.#ask<Pick<SourceLoad, 'active'>>(source, READ_SESSIONS);
    const standbys = await this.#ask<Omit<SourceLoad, 'active'>>(source, READ_STANDBYS);
    const load = { active: 0, standbyBytes: 0, standbySeconds: 0, ...sessions, ...standbys };
    this.#judgement = judgeLoad(this.#judgement, load, this.#busySessions);
  }

  /** Undefined where the provider forbids the question; it is not asked again. */
  async #ask<T extends object>(source: Session, question: string): Promise<T | undefined> {
    if (this.#forbidden.has(question)) return undefined;
    try {
      return await source.row<T>(question);
    } catch (error) {
      if (!isKind(error, 'privilege')) throw error;
      this.#forbidden.add(question);
      return undefined;
    }
  }
}
