/**
 * Follows a copy from outside, look by look. It keeps one session on the target, and asks the source once about each
 * table, over a session that it closes again: the sessions of the copy have the first claim.
 */
import { performance } from 'node:perf_hooks';
import { isInstalled } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';
import {
  type CopyProgress,
  countJobs,
  type Estimate,
  type Estimates,
  readEstimates,
  readTableProgress,
  sumOf,
  type TableProgress,
} from './progress.ts';
import { type Rate, Speed } from './speed.ts';
import { readDaemon, type TableFilter } from './status.ts';

export interface CopyView {
  readonly copy: CopyProgress;
  readonly tables: readonly TableProgress[];
  /** Null while it is not known. */
  readonly rate: Rate | null;
  readonly secondsLeft: number | null;
}

export interface CopyWatchOptions {
  readonly sync: string;
  readonly filter: TableFilter;
  readonly open: (side: 'source' | 'target') => Promise<Session>;
  /** What could not be read is not shown: the copy itself says what is wrong. */
  readonly onError: (error: unknown) => void;
}

export class CopyWatch {
  readonly #options: CopyWatchOptions;
  readonly #speed = new Speed();
  readonly #known = new Map<number, Estimate>();
  #target: Session | undefined;
  /** Somebody holds the lane, and so has all sessions that it needs. */
  #running = false;

  constructor(options: CopyWatchOptions) {
    this.#options = options;
  }

  /** How far it is; `undefined` where nobody copies yet, or nothing can be read. */
  async look(): Promise<CopyView | undefined> {
    try {
      this.#target ??= await this.#options.open('target');
      return await this.#read(this.#target);
    } catch (error) {
      this.#options.onError(error);
      this.end();
      return undefined;
    }
  }

  /** Lets go of its session; another look opens one again. */
  end(): void {
    this.#target?.abandon();
    this.#target = undefined;
  }

  async #read(target: Session): Promise<CopyView | undefined> {
    const { sync, filter } = this.#options;
    this.#running ||= (await isInstalled(target, 'target')) && (await readDaemon(target, sync)) !== null;
    if (!this.#running) return undefined;
    const tables = (await readTableProgress(target, sync, (relids) => this.#estimates(relids))).filter(
      filter,
    );
    if (tables.length === 0) return undefined;
    const copy = sumOf(tables, await countJobs(target, sync));
    const { copied, planned } = copy.bytes;
    this.#speed.add({ at: performance.now() / 1000, bytes: copied, rows: copy.copied });
    const secondsLeft = this.#speed.secondsLeft(planned === null ? null : planned - copied);
    return { copy, tables, rate: this.#speed.rate, secondsLeft };
  }

  async #estimates(relids: readonly number[]): Promise<Estimates> {
    const unknown = relids.filter((relid) => !this.#known.has(relid));
    if (unknown.length === 0) return this.#known;
    const found = await this.#ask(unknown).catch((): Estimates => new Map());
    for (const relid of unknown) this.#known.set(relid, found.get(relid) ?? { rows: null, bytes: null });
    return this.#known;
  }

  async #ask(relids: readonly number[]): Promise<Estimates> {
    const source = await this.#options.open('source');
    try {
      return await readEstimates(source, relids);
    } finally {
      await source.close();
    }
  }
}
