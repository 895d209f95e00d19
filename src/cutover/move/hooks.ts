/**
 * What the user has done at certain points of a move, as a command of the shell or a URL that is posted to. Either is told
 * the facts, and never a password.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, constants } from 'node:fs/promises';
import { IbexError } from '../../core/errors.ts';
import type { Session } from '../../postgres/session.ts';
import type { Ending, HookName, Hooks } from './move.ts';

/**
 * Runs a hook if there is one. What a command writes goes to stderr. One before the fence has as long as it likes, since
 * nobody waits for it; others `timeoutMs`.
 * Errors: `hook` when it fails.
 */
export async function runHook(move: Ending, name: HookName): Promise<void> {
  const hook = move.hooks[name];
  if (hook === undefined) return;
  const limit = name === 'before_fence' ? null : move.timeoutMs;
  const facts = factsOf(move, name);
  const failure = /^https?:\/\//.test(hook)
    ? await post(hook, facts, limit)
    : await execute(hook, facts, limit);
  if (failure !== null) throw new IbexError('hook', `the hook ${name} ${failure}`);
}

/** Those of the commands that the shell does not find, or may not run, as far as their first word tells. */
export async function findUnrunnable(hooks: Hooks): Promise<string[]> {
  const reasons: string[] = [];
  for (const [name, hook] of Object.entries(hooks)) {
    const [first = ''] = hook.trim().split(/\s/);
    // Anything but a plain word is for the shell to read.
    if (!/^[\w./-]+$/.test(first)) continue;
    if (!(await canRun(first)))
      reasons.push(`the hook ${name}: ${first} is not there, or is no program that may be run`);
  }
  return reasons;
}

/** A shell takes any file that is there for a command, until it is to run it. */
async function canRun(word: string): Promise<boolean> {
  if (word.includes('/')) {
    return access(word, constants.X_OK).then(
      () => true,
      () => false,
    );
  }
  const [code] = await once(spawn('/bin/sh', ['-c', 'command -v "$0" >/dev/null', word]), 'exit');
  return code === 0;
}

function factsOf({ sync, to, old, fresh, run }: Ending, name: HookName): Record<string, string> {
  const [source, target] = to === 'target' ? [old, fresh] : [fresh, old];
  return {
    IBEX_SYNC: sync.name,
    IBEX_COMMAND: to === 'target' ? 'cutover' : 'rollback',
    IBEX_RUN: String(run),
    IBEX_PHASE: name,
    IBEX_NEW_SIDE: to,
    ...placeOf('SOURCE', source),
    ...placeOf('TARGET', target),
  };
}

function placeOf(side: string, { server }: Session): Record<string, string> {
  const [, host = '', port = '', database = ''] = /^\[?(.*?)\]?:(\d+)\/(.*)$/.exec(server) ?? [];
  return {
    [`IBEX_${side}_HOST`]: host,
    [`IBEX_${side}_PORT`]: port,
    [`IBEX_${side}_DATABASE`]: database,
  };
}

/** Null when it went well. */
async function execute(
  command: string,
  facts: Record<string, string>,
  limitMs: number | null,
): Promise<string | null> {
  // Our own settings stay with us: there are URLs with passwords among them.
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('IBEX_'));
  const child = spawn('/bin/sh', ['-c', command], {
    env: { ...Object.fromEntries(inherited), ...facts },
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  });
  child.stdout?.pipe(process.stderr, { end: false });
  const end = () => child.pid !== undefined && process.kill(-child.pid, 'SIGKILL');
  const timer = limitMs === null ? undefined : setTimeout(end, limitMs);
  try {
    const [code, signal] = await once(child, 'exit');
    if (code === 0) return null;
    return signal === null ? `failed with exit code ${code}` : `was ended by ${signal}`;
  } catch (error) {
    return `could not be run: ${(error as Error).message}`;
  } finally {
    clearTimeout(timer);
  }
}

async function post(
  url: string,
  facts: Record<string, string>,
  limitMs: number | null,
): Promise<string | null> {
  const body = Object.fromEntries(
    Object.entries(facts).map(([name, value]) => [name.slice('IBEX_'.length).toLowerCase(), value]),
  );
  try {
    const answer = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      ...(limitMs === null ? {} : { signal: AbortSignal.timeout(limitMs) }),
    });
    return answer.ok ? null : `was answered with status ${answer.status}`;
  } catch (error) {
    return `could not be posted: ${(error as Error).message}`;
  }
}
