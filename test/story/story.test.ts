/**
 * The story of a move, from the first look to the last trace: a database as Heroku gives one goes to another server while
 * three roles write to it. The application sees no error; what it was promised is there exactly once.
 * `npm run story -- --runs N` tells it as often as one likes.
 */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { seedOf } from '../support/random.ts';
import { compareTables, useServers, waitFor } from '../support/servers.ts';
import { Application } from './application.ts';
import { Move } from './move.ts';
import { type Side, Stage } from './stage.ts';

const RUNS = Number(process.env.STORY_RUNS ?? 1);
const PATIENCE_MS = 600_000;

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

test.each(Array.from({ length: RUNS }, (_, i) => i + 1))('move %i', { timeout: PATIENCE_MS }, async () => {
  await writes(50);
  await move.do('schema', 'copy');
  await move.cure('grant');
  await move.startDaemon();
  await move.do('wait', '--timeout', '5m');
  await move.ready();
  await move.do('verify');

  await application.stop();
  await move.do('wait');
  expect(await differences()).toEqual([]);
  expect(await audit('source')).toEqual([]);
  expect(application.ledger.refusals).toEqual([]);
  await move.stopDaemon();
  await move.do('teardown', '--yes');
});

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
