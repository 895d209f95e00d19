/**
 * What a full comparison costs, beside one hash over all rows of one side: the time of `ibex verify` against that of the
 * slower side's `select sum(hashtextextended(t::text, 0)) from t`, in turns.
 */
import { performance } from 'node:perf_hooks';
import { requireSuccess } from '../children.ts';
import { Ibex } from '../ibex.ts';
import { type Databases, type Pair, settle } from '../pair.ts';
import { serverCpuSeconds } from '../proc.ts';
import { type Outcome, REPEAT, type Scenario, say } from '../scenario.ts';
import { range, summarise } from '../statistics.ts';

const options = {
  rows: { kind: 'number', default: 2_000_000, help: 'of about 100 bytes' },
  repeat: REPEAT,
} as const;

/** Seconds, and CPU seconds of both servers; 0 where nobody tells. */
interface Measured {
  readonly seconds: number;
  readonly cpu: number;
}

interface Round {
  readonly verify: Measured;
  readonly source: Measured;
  readonly target: Measured;
}

export const verify: Scenario<typeof options> = {
  name: 'verify',
  summary: 'a full comparison beside one hash over all rows of a side',
  options,
  peers: [],
  sizes: {
    smoke: [{ options: { rows: 50_000, repeat: 1 }, minutes: 0.1 }],
    all: [{ options: { rows: 6_000_000 }, minutes: 1.5 }],
    full: [{ options: { rows: 20_000_000, repeat: 5 }, minutes: 20 }],
  },
  run: async ({ rows, repeat }, { servers }) => {
    await using pair = await servers();
    const databases = await pair.create('verify');
    const ibex = Ibex.oneWay(databases);
    say(`filling and copying ${rows} rows`);
    await fill(databases, rows);
    await ibex.run('backfill');
    await settle(databases);
    const rounds: Round[] = [];
    for (let round = 1; round <= repeat; round++) {
      say(`round ${round} of ${repeat}`);
      rounds.push({
        source: await timed(pair, () => databases.source.owner.query(HASH)),
        verify: await timed(pair, () => ibex.run('verify')),
        target: await timed(pair, () => databases.target.owner.query(HASH)),
      });
    }
    const ok = await findsOneRow(ibex, databases);
    const described = await pair.describe();
    await databases.drop();
    return report(described, rows, rounds, ok);
  },
};

const HASH = 'select sum(hashtextextended(t::text, 0)) from t';

async function fill({ source, target }: Databases, rows: number): Promise<void> {
  for (const { owner } of [source, target])
    await owner.query('create table t (id bigint primary key, counter int not null, filler text not null)');
  await source.owner.query(
    `insert into t select i, i % 1000, repeat('x', 84) from generate_series(1, ${rows}) i`,
  );
}

async function timed(pair: Pair, work: () => Promise<unknown>): Promise<Measured> {
  const cpu = () => serverCpuSeconds(pair.source) + serverCpuSeconds(pair.target);
  const [before, startedAt] = [cpu(), performance.now()];
  await work();
  return { seconds: (performance.now() - startedAt) / 1000, cpu: cpu() - before };
}

/** A comparison that finds nothing would be fast, too. */
async function findsOneRow(ibex: Ibex, { target }: Databases): Promise<boolean> {
  await target.owner.query('update t set counter = counter + 1 where id = 7');
  const ended = await (await ibex.start('verify', '--json')).ended;
  if (ended.code !== 1) requireSuccess('ibex verify', ended);
  return ended.code === 1;
}

function report(servers: object, rows: number, rounds: readonly Round[], ok: boolean): Outcome {
  const of = (what: (round: Round) => number) => summarise(rounds.map(what));
  const times = {
    verify: of(({ verify }) => verify.seconds),
    source: of(({ source }) => source.seconds),
    target: of(({ target }) => target.seconds),
  };
  const cpu = {
    verify: of(({ verify }) => verify.cpu),
    source: of(({ source }) => source.cpu),
    target: of(({ target }) => target.cpu),
  };
  const ratio = times.verify.median / Math.max(times.source.median, times.target.median);
  const line = (name: string, side: keyof typeof times) => [name, range(times[side], 2), range(cpu[side], 2)];
  return {
    servers,
    figures: { rows, ratio, times, cpu, rounds },
    content: ok
      ? [
          `${rows} rows of about 100 bytes, nothing else going on; median (min-max)`,
          '',
          [
            ['', 'seconds', 'server CPU, s'],
            line('ibex verify, both sides and the start of the process', 'verify'),
            line('one hash over the source', 'source'),
            line('one hash over the target', 'target'),
          ],
          '',
          `time of ibex verify / that of the slower side: ${ratio.toFixed(2)}`,
        ]
      : ['a row that was changed on the target was not found'],
    contract: ok ? [{ row: 'verify', value: ratio }] : [],
    ok,
  };
}
