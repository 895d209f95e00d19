/** Runs `verify` inside the test's process, as the command does. */

import { readDaemon } from '../../src/observe/status.ts';
import { Session } from '../../src/postgres/session.ts';
import type { TableReport, VerifyReport } from '../../src/verify/report.ts';
import { type VerifyOptions, verify } from '../../src/verify/verify.ts';
import type { Databases } from '../support/servers.ts';

export async function runVerify(
  { sourceUrl, targetUrl }: Databases,
  options: Partial<VerifyOptions> = {},
): Promise<VerifyReport> {
  const urls = { source: sourceUrl, target: targetUrl };
  const open = (side: 'source' | 'target') => Session.open({ url: urls[side], name: 'test:verify' });
  await using source = await open('source');
  await using target = await open('target');
  return await verify(source, target, {
    wishes: { name: 'main', carry: [], keyless: 'carry' },
    filter: () => true,
    some: false,
    sample: 1,
    jobs: 2,
    bytesPerSecond: null,
    settleMs: 60_000,
    repair: false,
    signal: new AbortController().signal,
    isRunning: async () => (await readDaemon(target, 'main')) !== null,
    open,
    onProgress: () => undefined,
    keeping: null,
    ...options,
  });
}

/** A session on which something else happens before each statement that contains some text. */
export async function interrupted(
  url: string,
  text: string,
  first: () => Promise<unknown>,
): Promise<Session> {
  const session = await Session.open({ url, name: 'test:verify' });
  const [rows, run] = [session.rows.bind(session), session.run.bind(session)];
  session.rows = async <T extends object>(statement: string, values?: readonly unknown[]) => {
    if (statement.includes(text)) await first();
    return rows<T>(statement, values);
  };
  session.run = async (statement, values) => {
    if (statement.includes(text)) await first();
    return run(statement, values);
  };
  return session;
}

/** What was found of a table. */
export function tableOf(report: VerifyReport, table: string): TableReport {
  const found = report.tables.find((one) => one.table === table);
  if (found === undefined) throw new Error(`${table} is not in the report`);
  return found;
}

/** Every row that was named, as `table finding key`, sorted. */
export function named(report: VerifyReport): string[] {
  return report.tables
    .flatMap(({ table, rows }) =>
      rows.map(({ finding, key }) => `${table} ${finding} ${key?.join() ?? 'row'}`),
    )
    .sort();
}
