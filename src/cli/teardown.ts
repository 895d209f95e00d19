/** `ibex teardown`: disarms and removes everything, each side by itself, and shows the query that proves it. */
import { createInterface } from 'node:readline/promises';
import { Option } from 'commander';
import { IbexError } from '../core/errors.ts';
import { readDaemon } from '../observe/status.ts';
import { isInstalled } from '../postgres/migrate.ts';
import {
  PROOF,
  type TeardownOptions,
  type TeardownResult,
  teardownSource,
  teardownTarget,
} from '../setup/teardown.ts';
import {
  type CommandSpec,
  type Context,
  type ExitCode,
  onlySync,
  openSession,
  print,
  tableFilter,
} from './command.ts';

export const teardown: CommandSpec = {
  name: 'teardown',
  summary: 'disarm and remove everything, and prove it',
  description:
    'Takes the triggers off, drops the delta tables and the schemas ibex, puts back what was set aside on the target. Works with only one side reachable, and again after it was interrupted.',
  options: ['redis', 'tables', 'exclude', 'lock_timeout_ms', 'arm_timeout', 'json'],
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
    // The target first: it knows whether a daemon still runs the sync.
    const target = await side(context, 'target', options);
    const source = await side(context, 'source', options);
    const sides = { source, target };
    const text = [
      ...Object.entries(sides).map(([name, result]) => sideText(name, result)),
      '',
      `${PROOF};`,
    ].join('\n');
    print(config.json, { sync: sync.name, ...sides, proof: PROOF }, text);
    return exitCode(Object.values(sides));
  },
};

/** What came of one side; `error` when it could not be reached. */
type SideResult = TeardownResult | { readonly error: string };

async function side(
  context: Context,
  name: 'source' | 'target',
  options: TeardownOptions,
): Promise<SideResult> {
  const sync = onlySync(context.config);
  let session: Awaited<ReturnType<typeof openSession>>;
  try {
    session = await openSession(sync, name, 'teardown');
  } catch (error) {
    if (error instanceof IbexError && ['connection', 'config', 'authentication'].includes(error.kind)) {
      return { error: error.message };
    }
    throw error;
  }
  try {
    if (name === 'target' && (await isInstalled(session))) await refuseWhileRunning(session, sync.name);
    return name === 'source'
      ? await teardownSource(session, options)
      : await teardownTarget(session, options);
  } finally {
    await session.close();
  }
}

async function refuseWhileRunning(
  target: Awaited<ReturnType<typeof openSession>>,
  sync: string,
): Promise<void> {
  const { known } = await target.row<{ known: boolean }>(
    `select to_regclass('ibex.holder') is not null as known`,
  );
  const daemon = known ? await readDaemon(target, sync) : null;
  if (daemon === null) return;
  throw new IbexError(
    'taken',
    `sync ${sync} is being run by a daemon (${daemon.host}, process ${daemon.pid})`,
    {
      hint: 'Stop it first: it would set up again what is removed.',
    },
  );
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

function sideText(name: string, result: SideResult): string {
  if ('error' in result) return `${name}: not reached (${result.error})`;
  const lines = [`${name}: ${result.left} objects left`];
  for (const { relation, blockers } of result.waiting) {
    lines.push(`  ${relation} is still armed: locked by ${blockers.join(', ') || 'others'}`);
  }
  return [...lines, ...result.notRestored.map((reason) => `  not restored: ${reason}`)].join('\n');
}

function exitCode(sides: readonly SideResult[]): ExitCode {
  if (sides.every((result) => 'error' in result)) return 3;
  const unfinished = (result: SideResult) =>
    'error' in result || result.waiting.length > 0 || result.notRestored.length > 0;
  return sides.some(unfinished) ? 1 : 0;
}
