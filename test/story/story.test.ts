/**
 * The story of a move, from the first look to the last trace: a database as Heroku gives one goes to another server while
 * three roles write to it, and back, and there again. The application sees no error but the pause in which nobody may write,
 * and what it was promised is there exactly once. `npm run story -- --runs N` tells it as often as one likes.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { seedOf } from '../support/random.ts';
import { compareTables, useServers, waitFor } from '../support/servers.ts';
import { Application } from './application.ts';
import { Move } from './move.ts';
import { type Side, Stage } from './stage.ts';

const RUNS = Number(process.env.STORY_RUNS ?? 1);
/** How long the application lives on the new side before it goes back. */
const STAYS_MS = process.env.STORY === 'long' ? 300_000 : 5_000;
const PATIENCE_MS = 600_000 + STAYS_MS;
/** What a server says that is read only, and a fence. */
const FENCED = '25006';

const servers = await useServers({ wal_level: 'replica' });
const stage = new Stage(servers);
let application: Application;
let move: Move;

beforeAll(() => stage.build());
afterAll(() => stage.remove());

beforeEach(async () => {
  await stage.open();
  application = new Application(stage, seedOf('story'));
  move = new Move(stage);
});
afterEach(async () => {
  await move.end();
  await application.stop().catch(() => undefined);
  await stage.close();
});

/** In seconds, of every cutover. */
const pauses: number[] = [];
afterAll(() => {
  const sorted = [...pauses].sort((a, b) => a - b);
  const median = sorted[Math.floor((sorted.length - 1) / 2)];
  if (median !== undefined) console.log(`${sorted.length} cutovers, median pause ${median.toFixed(2)} s`);
});

test.each(Array.from({ length: RUNS }, (_, i) => i + 1))('move %i', { timeout: PATIENCE_MS }, async (run) => {
  await writes(50);
  await move.do('schema', 'copy');
  await move.cure('grant');
  await move.startDaemon();
  await move.do('wait', '--timeout', '5m');
  await move.ready();
  await move.do('verify');
  await move.do('cutover', '--dry-run');
  expect(application.ledger.refusals).toEqual([]);

  const there = await change('cutover', 'target');
  await sleep(STAYS_MS);
  await move.do('wait');
  const back = await change('rollback', 'source');
  const again = await change('cutover', 'target');
  console.log(`move ${run}: nobody could write for ${there}; on the way back ${back}; then ${again}`);

  await application.stop();
  await move.do('wait');
  expect(await differences()).toEqual([]);
  expect(await audit('target')).toEqual([]);
  expect(application.ledger.refusals.filter(({ code }) => code !== FENCED)).toEqual([]);
  await move.stopDaemon();
  await move.do('teardown', '--yes');
  await stage.asOwner('source', (owner) => owner.query('delete from shop.cache'));
});

interface Said {
  readonly live: Side;
  readonly proof: {
    readonly pending: number;
    readonly verify: { readonly verdict: string };
    readonly pauseSeconds: number;
  };
  readonly phases: readonly { readonly phase: string; readonly seconds: number }[];
}

/** Moves the application to a side; resolves to how long it could not write, by its own clock and by what is said. */
async function change(command: 'cutover' | 'rollback', to: Side): Promise<string> {
  // Whoever looks meanwhile finds one or the other.
  const hook = `printf %s "$IBEX_NEW_SIDE" >'${stage.liveFile}.new' && mv '${stage.liveFile}.new' '${stage.liveFile}'`;
  const { stdout } = await move.do(command, '--yes', '--json', '--hook-after-switch', hook);
  const { live, proof, phases } = JSON.parse(stdout) as Said;
  if (RUNS > 1)
    console.log(phases.map(({ phase, seconds }) => `${phase} ${seconds.toFixed(2)} s`).join(', '));
  expect([live, stage.live, proof.pending, proof.verify.verdict]).toEqual([to, to, 0, 'equal']);
  await writes(50);
  const seconds = application.ledger.pause(to) / 1000;
  if (command === 'cutover') pauses.push(seconds);
  return `${seconds.toFixed(2)} s (${proof.pauseSeconds.toFixed(2)} s as it says)`;
}

/** Waits until the application has had so many more operations confirmed. */
async function writes(count: number): Promise<void> {
  const { done } = application;
  await waitFor(() => application.done >= done + count, { what: `${count} operations` });
}

function differences(): Promise<string[]> {
  return stage.asOwner('source', (source) =>
    stage.asOwner('target', (target) => compareTables(source, target)),
  );
}

function audit(side: Side): Promise<string[]> {
  return stage.asOwner(side, (client) => application.ledger.audit(client));
}
