/**
 * Which of the two lanes of a sync runs. A daemon keeps one engine for each sync; when another side becomes live the engine
 * ends, and that of the other direction takes its place.
 */
import { readLive, type Side } from '../apply/live.ts';
import { laneOf, type SyncConfig } from '../config/syncs.ts';
import { isKind } from '../core/errors.ts';
import type { RunOutcome, SyncEngineOptions } from './options.ts';
import { Sessions } from './sessions.ts';
import { SyncEngine } from './sync-engine.ts';

/** The lane that runs, as the target's record has it now. */
export async function readLane(sync: SyncConfig): Promise<SyncConfig> {
  const sessions = new Sessions(sync);
  try {
    const record = await sessions.open('target', 'status');
    return laneOf(sync, (await readLive(record, sync.name)).side);
  } finally {
    await sessions.close();
  }
}

type EngineOptions = Omit<SyncEngineOptions, 'sync' | 'direction'>;

export class DirectionKeeper {
  readonly #sync: SyncConfig;
  readonly #optionsOf: (lane: SyncConfig) => EngineOptions;
  #engine: SyncEngine | null = null;

  constructor(sync: SyncConfig, optionsOf: (lane: SyncConfig) => EngineOptions) {
    this.#sync = sync;
    this.#optionsOf = optionsOf;
  }

  get streaming(): boolean {
    return this.#engine?.streaming ?? false;
  }

  /** Runs the engine of the live direction until the signal, or until it comes to its end. */
  async run(signal: AbortSignal): Promise<RunOutcome> {
    let live: Side = 'source';
    for (;;) {
      const sync = laneOf(this.#sync, live);
      const options = this.#optionsOf(sync);
      // What a lane back carries was decided by the cutover: all that the sync has, and nothing that its patterns name.
      const adopt = live === 'source' && (options.adopt ?? true);
      // Of a sync between two nodes both lanes run, each with a keeper of its own.
      const direction = sync.rivalry === null ? live : null;
      this.#engine = new SyncEngine({ ...options, sync, adopt, direction });
      try {
        return await this.#engine.run(signal);
      } catch (error) {
        if (!isKind(error, 'turned')) throw error;
        live = live === 'source' ? 'target' : 'source';
        options.log.info(`${error.message}: the lane ${laneOf(this.#sync, live).name} runs from now on`);
      }
    }
  }
}
