/** The real `pgbench` of the PATH, and the templates that it fills. */
import { IbexError } from '../src/core/errors.ts';
import { run } from './children.ts';
import type { Login, Pair, Templates } from './pair.ts';
import { findProgram } from './programs.ts';

export const PGBENCH_TABLES = ['accounts', 'branches', 'tellers', 'history'].map((name) => `pgbench_${name}`);

/** Throws with the remedy where there is none, before anything is started. */
export function findPgbench(): string {
  const found = findProgram('pgbench');
  if (found !== undefined) return found;
  throw new IbexError('tool', 'pgbench is not on the PATH', {
    hint: 'Install it: it is in postgresql-contrib (Debian, Ubuntu, Fedora) and in postgresql (Homebrew).',
  });
}

/** Runs pgbench with the given arguments as the login's user, maybe with settings for its sessions; gives what it printed. */
export function pgbench(login: Login, args: readonly string[], settings = ''): Promise<string> {
  return run({
    file: findPgbench(),
    args,
    env: {
      ...process.env,
      PGHOST: login.host,
      PGPORT: String(login.port),
      PGUSER: login.user,
      PGPASSWORD: login.password,
      PGDATABASE: login.database,
      PGOPTIONS: settings,
    },
  });
}

const CLIENTS = 8;

/** What makes a backlog need not wait for the disk at each commit: how long it takes is not measured. */
const IN_HASTE = '-c synchronous_commit=off';

/** Exactly `transactions` TPC-B transactions from eight clients; what does not divide by eight comes from one. */
export async function runTransactions(login: Login, transactions: number, seed: number): Promise<void> {
  const each = Math.floor(transactions / CLIENTS);
  const common = ['-n', `--random-seed=${seed}`];
  const many = [...common, '-c', String(CLIENTS), '-j', '2', '-t', String(each)];
  if (each > 0) await pgbench(login, many, IN_HASTE);
  const rest = transactions - each * CLIENTS;
  if (rest > 0) await pgbench(login, [...common, '-c', '1', '-t', String(rest)], IN_HASTE);
}

/** Templates with pgbench's tables and primary keys: filled for sources, empty for targets. */
export async function makePgbenchTemplates(pair: Pair, scale: number): Promise<Templates> {
  const full = await pair.create('pgbench_template');
  const init = ['-i', '-q', '-s', String(scale)];
  await pgbench(full.source.login, [...init, '-I', 'dtGvp']);
  await pgbench(full.target.login, [...init, '-I', 'dtp']);
  // A database can only be copied while nobody is connected to it.
  await Promise.all([full.source, full.target].flatMap((side) => [side.owner.end(), side.superuser.end()]));
  return { source: full.source.login.database, target: full.target.login.database };
}
