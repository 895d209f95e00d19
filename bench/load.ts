/** The load of a benchmark: the real pgbench, TPC-B or a script of ours, as fast as it can or at a rate. */
import { join } from 'node:path';
import type { Login } from './pair.ts';
import { pgbench } from './pgbench.ts';

/** Eight clients, as in all scenarios. */
const CLIENTS = ['-c', '8', '-j', '2'];

export interface Load {
  readonly seconds: number;
  readonly seed: number;
  /** Transactions per second; without it as many as there can be. */
  readonly rate?: number;
  /** A file of bench/pgbench without its ending, and values of its variables; without it TPC-B. */
  readonly script?: Script;
}

export interface Script {
  readonly name: string;
  readonly variables: Readonly<Record<string, number>>;
}

/** What pgbench says it has done. */
export interface Loaded {
  readonly transactions: number;
  readonly tps: number;
}

export async function runLoad(login: Login, { seconds, seed, rate, script }: Load): Promise<Loaded> {
  const output = await pgbench(login, [
    ...['-n', `--random-seed=${seed}`, ...CLIENTS, '-T', String(seconds)],
    ...(rate === undefined ? [] : [`--rate=${rate}`]),
    ...(script === undefined ? [] : argumentsOf(script)),
  ]);
  const transactions = Number(/^number of transactions actually processed: (\d+)/m.exec(output)?.[1]);
  const tps = Number(/^tps = ([\d.]+)/m.exec(output)?.[1]);
  if (!(tps > 0)) throw new Error(`pgbench reported no tps:\n${output}`);
  return { transactions, tps };
}

function argumentsOf({ name, variables }: Script): string[] {
  const values = Object.entries(variables).flatMap(([variable, value]) => ['-D', `${variable}=${value}`]);
  return [...values, '-f', join(import.meta.dirname, 'pgbench', `${name}.sql`)];
}
