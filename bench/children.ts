/**
 * Programs that a benchmark starts: `ibex`, `pgbench`. None outlives this process, which ends them on its exit,
 * however that comes about short of SIGKILL.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { basename } from 'node:path';
import { performance } from 'node:perf_hooks';

const alive = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of alive) child.kill('SIGKILL');
});

export interface Program {
  readonly file: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly cwd?: string;
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** On the clock of `performance.now()`. */
  readonly at: number;
}

export interface Running {
  readonly pid: number;
  /** On the clock of `performance.now()`, just before the process was made. */
  readonly startedAt: number;
  readonly ended: Promise<Ended>;
  /** When it first wrote to stdout, on the same clock; when it ended if it never did. */
  readonly answered: Promise<number>;
  /** True until it has ended. */
  readonly running: boolean;
  /** Asks it to end, makes it after ten seconds; resolves when it is gone. */
  stop(): Promise<Ended>;
}

export async function start(program: Program): Promise<Running> {
  const { file, args, env, cwd } = program;
  const startedAt = performance.now();
  const child = spawn(file, args, { env, cwd, stdio: ['ignore', 'pipe', 'pipe'] });
  alive.add(child);
  const ended = outcomeOf(child);
  ended.catch(() => undefined);
  const answered = new Promise<number>((resolve) => {
    for (const event of ['data', 'close']) child.stdout.once(event, () => resolve(performance.now()));
  });
  await once(child, 'spawn');
  return {
    pid: child.pid as number,
    startedAt,
    ended,
    answered,
    get running() {
      return alive.has(child);
    },
    stop: async () => {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
      return ended.finally(() => clearTimeout(timer));
    },
  };
}

/** Runs a program to its end and gives its stdout; throws its last words when it fails. */
export async function run(program: Program): Promise<string> {
  const ended = await (await start(program)).ended;
  return requireSuccess(basename(program.file), ended).stdout;
}

export function requireSuccess(name: string, ended: Ended): Ended {
  if (ended.code === 0) return ended;
  const words = (ended.stderr.trim() || ended.stdout.trim()).split('\n').slice(-8).join('\n');
  throw new Error(`${name} failed (${ended.signal ?? `exit code ${ended.code}`}):\n${words}`);
}

async function outcomeOf(child: ChildProcess): Promise<Ended> {
  const stdout = gather(child.stdout);
  const stderr = gather(child.stderr);
  let at = 0;
  child.once('exit', () => {
    at = performance.now();
    alive.delete(child);
  });
  try {
    const [code, signal] = await once(child, 'close');
    return { code, signal, stdout: stdout(), stderr: stderr(), at };
  } catch (error) {
    alive.delete(child);
    throw error;
  }
}

function gather(stream: NodeJS.ReadableStream | null): () => string {
  const pieces: string[] = [];
  stream?.setEncoding('utf8').on('data', (piece: string) => pieces.push(piece));
  return () => pieces.join('');
}
