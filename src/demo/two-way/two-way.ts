/**
 * The demo of both sides: two shops on two servers sell the same goods at once, conflicts appear and are decided, one of
 * them by hand, and in the end both have the same rows. Whether they have is asked of the databases.
 */
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { ROOT } from '../../core/root.ts';
import type { Belongings } from '../belongings.ts';
import { compareAll, type TableComparison } from '../compare.ts';
import { forgetPgVariables } from '../environment.ts';
import type { Progress } from '../progress.ts';
import { connect, type Places, startServers } from '../servers.ts';
import { NODES, TwoWayIbex } from './commands.ts';
import { TwoWayLoad } from './load.ts';

export interface TwoWayResult {
  readonly postgresql: string;
  readonly queue: Places['queue']['kind'];
  /** Rows that one side has and the other lacks. */
  readonly differences: number;
  readonly tables: readonly TableComparison[];
  /** Statements of both shops. */
  readonly writes: number;
  /** How many there were, by type, on both nodes. */
  readonly conflicts: Readonly<Record<string, number>>;
  /** Of these, the ones that a person decided, and that wait still. */
  readonly decidedByHand: number;
  readonly waiting: number;
  /** What `ibex conflicts list` said of the last ones. */
  readonly examples: readonly string[];
  readonly seconds: number;
}

export interface TwoWayOptions {
  readonly seconds: number;
  readonly wantsRedis: boolean;
}

const TABLES = new URL('demo/two-way.sql', ROOT);

/** Errors: `tool` and whatever else kept it from coming to a result. */
export async function playTwoWay(
  { seconds, wantsRedis }: TwoWayOptions,
  belongings: Belongings,
  progress: Progress,
): Promise<TwoWayResult> {
  const began = performance.now();
  forgetPgVariables();
  progress.step('Ibex demo: two shops on two servers, both written at once.');
  progress.show('starting two PostgreSQL servers');
  const places = await startServers(belongings, wantsRedis);
  progress.step(`  ${NODES.source}   PostgreSQL ${places.version}, port ${new URL(places.source).port}`);
  progress.step(`  ${NODES.target}    PostgreSQL ${places.version}, port ${new URL(places.target).port}`);
  progress.step(`  queue    ${places.queue.text}`);
  const clients = await Promise.all([places.source, places.target].map((url) => connect(url, 'demo:look')));
  belongings.add(() => Promise.all(clients.map((client) => client.end())));
  const [berlin, tokyo] = clients as [(typeof clients)[0], (typeof clients)[0]];
  const tables = await readFile(TABLES, 'utf8');
  for (const client of clients) await client.query(tables);
  await berlin.query(`insert into stock values ('P1', 100), ('P2', 100)`);

  progress.show('sequences take turns; the daemon starts');
  const ibex = await TwoWayIbex.start(places, belongings);
  const load = await TwoWayLoad.start({ [NODES.source]: places.source, [NODES.target]: places.target });
  const end = Date.now() + seconds * 1000;
  while (Date.now() < end) {
    const { total } = await countConflicts(clients);
    progress.show(`both sell: ${load.writes} writes, ${total} conflicts decided`);
    await sleep(300);
  }
  await load.stop();

  progress.show('the same goods are counted on both sides, and a person decides');
  await ibex.untilQuiet();
  const decidedByHand = await countTwice(berlin, tokyo, ibex);

  progress.show('comparing every row');
  await ibex.untilQuiet();
  const compared = await compareAll(berlin, tokyo);
  const { byType, waiting } = await countConflicts(clients);
  const examples = (await ibex.run('conflicts', 'list', '--limit', '6')).split('\n');
  await ibex.stop();
  return {
    postgresql: places.version,
    queue: places.queue.kind,
    differences: compared.reduce((sum, table) => sum + table.differences, 0),
    tables: compared,
    writes: load.writes,
    conflicts: byType,
    decidedByHand,
    waiting,
    examples,
    seconds: (performance.now() - began) / 1000,
  };
}

type Client = Awaited<ReturnType<typeof connect>>;

/** One piece of goods counted on both sides while neither hears of the other: held, until the command says which stands. */
async function countTwice(berlin: Client, tokyo: Client, ibex: TwoWayIbex): Promise<number> {
  const lanes = ['pair', 'pair.back'];
  for (const lane of lanes) await ibex.run('pause', '--sync', lane);
  await berlin.query(`update stock set pieces = 97 where code = 'P1'`);
  await tokyo.query(`update stock set pieces = 95 where code = 'P1'`);
  for (const lane of lanes) await ibex.run('resume', '--sync', lane);
  await ibex.untilQuiet();
  const { conflicts } = JSON.parse(await ibex.run('conflicts', 'list', '--state', 'held', '--json')) as {
    conflicts: { id: string }[];
  };
  const [first] = conflicts;
  // One decision lets the key go on both nodes.
  if (first !== undefined) await ibex.run('conflicts', 'resolve', first.id, '--to', 'target');
  return conflicts.length;
}

async function countConflicts(clients: readonly Client[]) {
  const byType: Record<string, number> = {};
  let waiting = 0;
  for (const client of clients) {
    const { rows } = await client.query<{ type: string; n: number; waiting: number }>(
      `select type, count(*)::int as n, count(*) filter (where state in ('held', 'aborted'))::int as waiting
         from ibex.conflict group by type order by type`,
    );
    for (const row of rows) {
      byType[row.type] = (byType[row.type] ?? 0) + row.n;
      waiting += row.waiting;
    }
  }
  return { byType, waiting, total: Object.values(byType).reduce((sum, n) => sum + n, 0) };
}

/** Both sides hold the same rows, conflicts were seen, and none waits. */
export function isTwoWayGood({ differences, waiting, conflicts, decidedByHand }: TwoWayResult): boolean {
  return differences === 0 && waiting === 0 && decidedByHand > 0 && Object.keys(conflicts).length > 0;
}

export function twoWayScreen(result: TwoWayResult): string {
  const { tables, writes, conflicts, decidedByHand, waiting, differences, examples } = result;
  const rows = tables.reduce((sum, table) => sum + table.rows, 0);
  const counts = Object.entries(conflicts).map(([type, n]) => `${n} ${type}`);
  return [
    '',
    isTwoWayGood(result)
      ? 'Both sides were written at once, and hold the same rows.'
      : 'The two sides are not what they should be. This is a fault in Ibex; please report what stands below.',
    '',
    `  writes        ${writes} statements on both sides together`,
    `  conflicts     ${counts.join(', ') || 'none'}`,
    `  by hand       ${decidedByHand} held, then decided with \`ibex conflicts resolve\`; ${waiting} wait`,
    `  differences   ${differences}: ${rows} rows of ${tables.length} tables compared as text`,
    ...tables
      .filter((table) => table.differences > 0)
      .flatMap(({ table, examples: shown }) => [`  ${table}:`, ...shown.map((one) => `    ${one}`)]),
    '',
    '  $ ibex conflicts list --limit 6',
    ...examples.map((line) => `  ${line}`),
    '',
    'All of it is gone again. For databases of your own: docs/conflicts.md',
  ].join('\n');
}
