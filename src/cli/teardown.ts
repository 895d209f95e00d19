/** `ibex teardown`: disarms and removes everything, each side by itself, and shows the query that proves it. */
import { createInterface } from 'node:readline/promises';
import { Option } from 'commander';
import { REDIS_OPTIONS } from '../config/options.ts';
import { reversed, type SyncConfig } from '../config/syncs.ts';
import { IbexError } from '../core/errors.ts';
import { readDaemon } from '../observe/status.ts';
import { listTables } from '../postgres/catalog.ts';
import type { Session } from '../postgres/session.ts';
import { readKnown } from '../setup/setup.ts';
import { requireMatches } from '../setup/tables.ts';
import { PROOF, type TeardownOptions, type TeardownResult, teardownSide } from '../setup/teardown.ts';
import {
  type CommandSpec,
  type Context,
  type ExitCode,
  onlySync,
  openSession,
  print,
  tableFilter,
  writeError,
} from './command.ts';

export const teardown: CommandSpec = {
  name: 'teardown',
  summary: 'disarm and remove everything, and prove it',
  description:
    'Takes the triggers off, drops the delta tables and the schemas ibex, puts back what was set aside on the target. Works with only one side reachable, and again after it was interrupted.',
  options: [...REDIS_OPTIONS, 'tables', 'exclude', 'lock_timeout_ms', 'arm_timeout', 'json'],
  own: [new Option('--yes', 'do not ask')],
  oneSided: true,
  run: async (context) => {
    const { config } = context;
    const sync = onlySync(config);
    await confirm(context);
    const options: TeardownOptions = {
      sync: sync.name,
      filter: tableFilter(sync),
      lockTimeoutMs: config.lockTimeoutMs,
      patienceMs: config.armTimeoutMs,
      signal: context.signal,
    };
    const sides = await openBoth(sync);
    try {
      await refuseWhileRunning(sides, sync.name);
      await requireTables(sides, sync);
      const code = await removeFrom(sides, options, config.json);
      await emptyQueue(context);
      return code;
    } finally {
      for (const { session } of Object.values(sides)) await session?.close();
    }
  },
};

/** What lies in Redis are copies, which end by themselves after a while: that they stay is no failure. */
async function emptyQueue({ config, log }: Context): Promise<void> {
  if (config.redis === undefined) return;
  try {
    const { createRedisQueue } = await import('../queue/bullmq.ts');
    for (const { name } of [onlySync(config), reversed(onlySync(config))]) {
      const queue = await createRedisQueue({ ...config.redis, sync: name, log });
      await queue.clear();
      await queue.close();
    }
  } catch (error) {
    log.warn(`the queue was not emptied: ${(error as Error).message}`);
  }
}

/** A session, or why there is none; neither when the user named the other side only. */
interface Side {
  readonly session?: Session;
  readonly error?: IbexError;
}

type Sides = Readonly<Record<'source' | 'target', Side>>;

/** What came of one side. */
type SideResult = TeardownResult | { readonly error: string };

/** Opens what can be reached. Errors: that of a wrong setting, or of the source when neither can be reached. */
async function openBoth(sync: SyncConfig): Promise<Sides> {
  const open = async (name: 'source' | 'target'): Promise<Side> => {
    if (!sync[name].given) return {};
    try {
      return { session: await openSession(sync, name, 'teardown') };
    } catch (error) {
      if (!(error instanceof IbexError)) throw error;
      return { error };
    }
  };
  const sides = { source: await open('source'), target: await open('target') };
  const { source, target } = sides;
  const wrong = [source, target].find(({ error }) => error?.kind === 'config')?.error;
  if (wrong === undefined && (source.session ?? target.session) !== undefined) return sides;
  await source.session?.close();
  await target.session?.close();
  throw wrong ?? source.error ?? target.error;
}

async function removeFrom(sides: Sides, options: TeardownOptions, json: boolean): Promise<ExitCode> {
  const results: Partial<Record<keyof Sides, SideResult>> = {};
  for (const name of ['source', 'target'] as const) {
    const { session, error } = sides[name];
    if (session !== undefined) results[name] = await teardownSide(session, name, options);
    if (error !== undefined) results[name] = { error: error.message };
  }
  const text = [...Object.entries(results).map(([name, result]) => sideText(name, result)), '', `${PROOF};`];
  print(json, { sync: options.sync, ...results, proof: PROOF }, text.join('\n'));
  for (const [name, { error }] of Object.entries(sides)) if (error) writeError(notReached(name, error));
  return Object.values(results).some(isUnfinished) ? 1 : 0;
}

function notReached(side: string, { kind, message, hint }: IbexError): IbexError {
  return new IbexError(kind, `the ${side} was not reached and keeps what is on it: ${message}`, {
    hint: `${hint} Then run \`ibex teardown\` again.`,
  });
}

/** It would set up again what is removed. The target knows who it is; without it, its session on the source tells. */
async function refuseWhileRunning({ source, target }: Sides, sync: string): Promise<void> {
  const back = `${sync}.back`;
  const who =
    (target.session ? await runnerOf(target.session, sync) : await readerOf(source.session, sync)) ??
    (source.session ? await runnerOf(source.session, back) : await readerOf(target.session, back));
  if (who === undefined) return;
  throw new IbexError('taken', `sync ${sync} is being run by a daemon (${who})`, {
    hint: 'Stop it first: it would set up again what is removed.',
  });
}

async function runnerOf(target: Session, sync: string): Promise<string | undefined> {
  const { known } = await target.row<{ known: boolean }>(
    `select to_regclass('ibex.holder') is not null as known`,
  );
  const daemon = known ? await readDaemon(target, sync) : null;
  return daemon === null ? undefined : `${daemon.host}, process ${daemon.pid}`;
}

async function readerOf(source: Session | undefined, sync: string): Promise<string | undefined> {
  const [reader] =
    (await source?.rows<{ pid: number }>(
      `select pid from pg_stat_activity
        where datname = current_database() and application_name = format('ibex:%s:read', $1::text) limit 1`,
      [sync],
    )) ?? [];
  return reader && `it reads on the source, pid ${reader.pid}`;
}

/** A table that was taken out before is still one of the application's: doing it again is no mistake. */
async function requireTables({ source, target }: Sides, sync: SyncConfig): Promise<void> {
  const { name, asked } = sync;
  if (asked.tables.length + asked.exclude.length === 0) return;
  const there = await Promise.all(
    [source, target].map(({ session }) => (session ? listTables(session) : [])),
  );
  const known = target.session ? await readKnown(target.session, name) : [];
  requireMatches(asked, [...known, ...there.flat()], name);
}

async function confirm({ config, flags }: Context): Promise<void> {
  if (flags.yes) return;
  if (!process.stdin.isTTY) {
    throw new IbexError('config', 'teardown removes capture and all progress', {
      hint: 'Say that you mean it with --yes.',
    });
  }
  const prompt = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await prompt.question(`Remove sync ${onlySync(config).name} from both sides? [y/N] `);
  prompt.close();
  if (!/^y(es)?$/i.test(answer.trim()))
    throw new IbexError('config', 'nothing was removed', { hint: 'Answer y to go on.' });
}

/** What others have locked is given up after a while, and nothing is half done. */
const AGAIN =
  '  -> Run `ibex teardown` again: it goes on where it stopped. --arm-timeout says how long it tries, --lock-timeout-ms each time.';

function sideText(name: string, result: SideResult): string {
  if ('error' in result) return `${name}: not reached (${result.error})`;
  const lines = [`${name}: ${result.left} objects left`];
  for (const { relation, blockers } of result.waiting) {
    lines.push(`  ${relation} is still armed: locked by ${blockers.join(', ') || 'others'}`);
  }
  if (result.waiting.length > 0) lines.push(AGAIN);
  return [...lines, ...result.notRestored.map((reason) => `  not restored: ${reason}`)].join('\n');
}

function isUnfinished(result: SideResult): boolean {
  return 'error' in result || result.waiting.length > 0 || result.notRestored.length > 0;
}
