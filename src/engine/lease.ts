/**
 * Who holds the lane of a sync. One daemon at a time: a session lock on the target, which goes with the
 * connection when the process dies, and a heartbeat for the case that process or network only froze. Taking the
 * lane raises its epoch, by which the checkpoint fences whatever an earlier holder still sends.
 */
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { SILENT_MS } from '../apply/state.ts';
import { IbexError } from '../core/errors.ts';
import type { Session } from '../postgres/session.ts';
import { endSilentHolder, tryLock } from './silent-holder.ts';

/** How often a holder says that it lives. */
const BEAT_MS = 2_000;
/** The sessions of a daemon that write on the target, or keep others from it. */
const PARTS = ['lease', 'apply', 'copy', 'control'];
/**
 * A daemon that was silent for so long is not on its way back: it waits less before it tries again, and whoever
 * supervises it had the time to start it anew.
 */
const ORPHANED_MS = 60_000;
/** How long a daemon waits for another one to let go (or to fall silent) before it is refused. */
export const TAKEOVER_WAIT_MS = 30_000;

interface Holder {
  readonly host: string;
  readonly pid: number;
  readonly silentMs: number;
}

export class Lease {
  #epoch: number;
  readonly #session: Session;
  readonly #sync: string;

  private constructor(session: Session, sync: string, epoch: number) {
    this.#session = session;
    this.#sync = sync;
    this.#epoch = epoch;
  }

  /**
   * Takes the lane. `session` becomes the lease's own. `onWaiting` is told once whom it waits for. `own` are the processes
   * of this daemon's sessions on the target.
   * Errors: `taken` when a live holder keeps it for 30 s.
   */
  static async acquire(
    session: Session,
    sync: string,
    own: readonly number[],
    signal: AbortSignal,
    onWaiting: (holder: string) => void,
  ): Promise<Lease> {
    const deadline = Date.now() + TAKEOVER_WAIT_MS;
    let told = false;
    while (!(await tryLock(session, 'lane', sync))) {
      const holder = await readHolder(session, sync);
      const name = holder ? `${holder.host}, process ${holder.pid}` : 'another session';
      if (!told) onWaiting(name);
      told = true;
      // Who came no further than the lock has not noted down that it is there.
      if (holder === undefined) await endSilentHolder(session, { lock: 'lane', sync, parts: PARTS, own });
      if (holder !== undefined && holder.silentMs > SILENT_MS) await endSessions(session, sync, own);
      else if (Date.now() > deadline) {
        throw new IbexError('taken', `sync ${sync} is being run by another daemon (${name})`);
      }
      await sleep(250, undefined, { signal });
    }
    // Before anything else: who looks on must not take the former holder's silence for ours.
    const epoch = await raiseEpoch(session, sync);
    return new Lease(session, sync, epoch ?? 0);
  }

  /** Gives a sync that was not registered before its first epoch. */
  async begin(): Promise<void> {
    if (this.#epoch === 0) this.#epoch = (await raiseEpoch(this.#session, this.#sync)) ?? 0;
  }

  get epoch(): number {
    return this.#epoch;
  }

  /** Beats until the signal; rejects when the lane is lost. */
  async keep(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      // Before the sync is registered there is nothing to note it down in: others see that the session does something.
      const beats =
        this.#epoch === 0
          ? await this.#session.run('select')
          : await this.#session.run(
              'update ibex.holder set beat_at = clock_timestamp() where sync = $1 and epoch = $2',
              [this.#sync, this.#epoch],
            );
      if (this.#epoch !== 0 && beats !== 1)
        throw new IbexError('taken', `sync ${this.#sync} was taken over by another daemon`);
      await sleep(BEAT_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Beats while the sync is set up, which takes long where there are many tables. */
  async during<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const done = new AbortController();
    const beating = this.keep(AbortSignal.any([signal, done.signal]));
    beating.catch(() => undefined);
    try {
      return await work();
    } finally {
      done.abort();
      await beating.catch(() => undefined);
    }
  }

  /** Lets go of the lane. */
  async release(): Promise<void> {
    await this.#session
      .run('delete from ibex.holder where sync = $1 and epoch = $2', [this.#sync, this.epoch])
      .catch(() => undefined);
    await this.#session.close();
  }
}

/** Whether the daemon of a sync died or froze, and did not come back. One that was stopped leaves no sign of itself. */
export async function isOrphaned(session: Session, sync: string): Promise<boolean> {
  const holder = await readHolder(session, sync);
  return holder !== undefined && holder.silentMs > ORPHANED_MS;
}

async function readHolder(session: Session, sync: string): Promise<Holder | undefined> {
  const [holder] = await session.rows<Holder>(
    `select host, pid, (extract(epoch from clock_timestamp() - beat_at) * 1000)::float8 as "silentMs"
       from ibex.holder where sync = $1`,
    [sync],
  );
  return holder;
}

/** Ends what is left of a daemon that fell silent: its sessions here, which are the same role's as ours. */
async function endSessions(session: Session, sync: string, own: readonly number[]): Promise<void> {
  await session.rows(
    `select pg_terminate_backend(a.pid) from pg_stat_activity a
      where a.pid <> all ($2::int4[]) and a.usename = current_user and a.datname = current_database()
        and a.application_name = any ($1)`,
    [PARTS.map((part) => `ibex:${sync}:${part}`), own],
  );
}

/** Undefined while the sync is not registered. */
async function raiseEpoch(session: Session, sync: string): Promise<number | undefined> {
  const [raised] = await session.rows<{ epoch: string }>(
    `with raised as (update ibex.checkpoint set epoch = epoch + 1 where sync = $1 returning epoch)
     insert into ibex.holder (sync, epoch, host, pid) select $1, epoch, $2, $3 from raised
     on conflict (sync) do update
        set epoch = excluded.epoch, host = excluded.host, pid = excluded.pid, beat_at = clock_timestamp()
     returning epoch::text`,
    [sync, hostname(), process.pid],
  );
  return raised === undefined ? undefined : Number(raised.epoch);
}
