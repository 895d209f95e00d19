/**
 * Shows how a copy goes while a command waits for it: bars on a terminal, otherwise a line of the log every ten seconds.
 * It has one session on the target, and asks the source once about each table.
 */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  countJobs,
  type Estimate,
  type Estimates,
  readEstimates,
  readTableProgress,
  sumOf,
} from '../observe/progress.ts';
import { stderrScreen } from '../observe/screen.ts';
import { Speed } from '../observe/speed.ts';
import { readDaemon } from '../observe/status.ts';
import { isInstalled } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';
import { barsOf, progressText, type View } from './bars.ts';
import { type Context, onlySync, openSession, tableFilter } from './command.ts';

const LOOK_MS = 500;
const LINE_EVERY_MS = 10_000;

/** Runs until the signal. What it cannot read it does not show: the copy itself says what is wrong. */
export async function showProgress(context: Context, done: AbortSignal): Promise<void> {
  const watch = new Watch(context);
  try {
    while (!done.aborted) {
      await sleep(LOOK_MS, undefined, { signal: done }).catch(() => undefined);
      const view = done.aborted ? undefined : await watch.look();
      if (view !== undefined && !done.aborted) watch.show(view);
    }
  } finally {
    await watch.end();
  }
}

async function isRunning(target: Session, sync: string): Promise<boolean> {
  return (await isInstalled(target)) && (await readDaemon(target, sync)) !== null;
}

class Watch {
  readonly #context: Context;
  readonly #bars: boolean;
  readonly #speed = new Speed();
  readonly #known = new Map<number, Estimate>();
  #target: Session | undefined;
  /** Somebody holds the lane, and so has all sessions that it needs. */
  #running = false;
  #saidAt = performance.now();

  constructor(context: Context) {
    this.#context = context;
    this.#bars = process.stderr.isTTY === true && !process.env.CI && !context.config.json;
  }

  async look(): Promise<View | undefined> {
    const sync = onlySync(this.#context.config);
    try {
      this.#target ??= await openSession(sync, 'target', 'progress');
      this.#running ||= await isRunning(this.#target, sync.name);
      if (!this.#running) return undefined;
      const all = await readTableProgress(this.#target, sync.name, (relids) => this.#estimates(relids));
      const tables = all.filter(tableFilter(sync));
      if (tables.length === 0) return undefined;
      const copy = sumOf(tables, await countJobs(this.#target, sync.name));
      const { copied, planned } = copy.bytes;
      this.#speed.add({ at: performance.now() / 1000, bytes: copied, rows: copy.copied });
      const secondsLeft = this.#speed.secondsLeft(planned === null ? null : planned - copied);
      return { copy, tables, rate: this.#speed.rate, secondsLeft };
    } catch (error) {
      this.#context.log.debug({ err: error }, 'could not read the progress');
      this.#target?.abandon();
      this.#target = undefined;
      return undefined;
    }
  }

  /** Asked once of each table, over a session that is closed again: those of the copy have the first claim. */
  async #estimates(relids: readonly number[]): Promise<Estimates> {
    const unknown = relids.filter((relid) => !this.#known.has(relid));
    if (unknown.length === 0) return this.#known;
    const found = await this.#ask(unknown).catch((): Estimates => new Map());
    for (const relid of unknown) this.#known.set(relid, found.get(relid) ?? { rows: null, bytes: null });
    return this.#known;
  }

  async #ask(relids: readonly number[]): Promise<Estimates> {
    const source = await openSession(onlySync(this.#context.config), 'source', 'progress');
    try {
      return await readEstimates(source, relids);
    } finally {
      await source.close();
    }
  }

  show(view: View): void {
    if (this.#bars) {
      stderrScreen.show(barsOf(view, stderrScreen.columns, stderrScreen.lines));
    } else if (performance.now() - this.#saidAt >= LINE_EVERY_MS) {
      this.#saidAt = performance.now();
      const { copy, rate, secondsLeft } = view;
      this.#context.log.info({ ...copy, rate, secondsLeft }, progressText(view));
    }
  }

  async end(): Promise<void> {
    if (this.#bars) stderrScreen.clear();
    await this.#target?.close().catch(() => undefined);
  }
}
