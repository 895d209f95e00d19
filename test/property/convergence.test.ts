/**
 * Random schemas, random transactions over several connections, a sync that starts in the middle of them: whenever
 * the load pauses, the target becomes equal to the source in every row, and the account of every table adds up.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Databases, freshDatabases, useServers, waitFor } from '../support/servers.ts';
import { readSyncStatus, startSync } from '../support/sync.ts';
import { CONNECTIONS, type Command, commands } from './commands.ts';
import { createSchema } from './ddl.ts';
import { Driver } from './driver.ts';
import { differences } from './equal.ts';
import { schemas, type Table } from './schema.ts';
import { patience, runSeeds } from './seeds.ts';

const servers = await useServers({ max_prepared_transactions: '20' });

/** Seeds that the test suite runs. */
const SHORT = 12;

interface Story {
  readonly tables: readonly Table[];
  readonly replica: boolean;
  /** Before the sync starts, while it copies, and between the pauses. */
  readonly acts: readonly (readonly Command[])[];
  /** Transactions stay open over the pauses in the middle. */
  readonly keepsOpen: boolean;
}

const acts = (count: number, maxLength: number) =>
  fc.array(fc.array(commands, { minLength: 20, maxLength, size: 'max' }), {
    minLength: count,
    maxLength: count,
  });

const stories: fc.Arbitrary<Story> = fc.record({
  tables: schemas,
  replica: fc.boolean(),
  acts: acts(4, 80),
  keepsOpen: fc.boolean(),
});

test('source and target are equal after each pause of random transactions', {
  timeout: patience(SHORT),
}, async () => {
  expect(await runSeeds({ name: 'convergence', short: SHORT, values: stories, check: play })).toEqual([]);
});

async function play(story: Story, seed: number): Promise<string | null> {
  const databases = await freshDatabases(servers, { replica: story.replica });
  const driver = new Driver(story.tables, databases.sourceAdmin, `p${seed}_${Date.now()}`);
  try {
    await createBoth(databases, story.tables);
    await driver.connect(databases.sourceUrl, CONNECTIONS);
    await act(databases, driver, story);
    return null;
  } catch (error) {
    const schema = createSchema(story.tables, 'source');
    const target = createSchema(story.tables, 'target');
    const { message } = error as Error;
    return [message, `replica ${story.replica}`, schema, '-- TARGET', target, ...driver.transcript].join(
      '\n',
    );
  } finally {
    await driver.close();
    await databases.dropAll();
  }
}

async function createBoth(databases: Databases, tables: readonly Table[]): Promise<void> {
  for (const admin of [databases.sourceAdmin, databases.targetAdmin]) {
    await admin.query('create extension citext schema public');
  }
  await databases.source.query(createSchema(tables, 'source'));
  await databases.target.query(createSchema(tables, 'target'));
}

async function act(databases: Databases, driver: Driver, { acts, tables, keepsOpen }: Story): Promise<void> {
  const [before = [], ...rest] = acts;
  for (const command of before) await driver.do(command);
  const sync = startSync(databases);
  try {
    for (const [index, commands] of rest.entries()) {
      for (const command of commands) await driver.do(command);
      // What was opened before the triggers were armed keeps them from it.
      await driver.finish(!keepsOpen || index === 0 || index === rest.length - 1);
      driver.transcript.push('-- pause');
      await sync.caughtUp();
      const different = await differences(databases.source, databases.target, tables);
      if (different.length > 0) throw new Error(different.join('; '));
      await checkAccounts(databases);
    }
    await expectForeignKeys(databases);
  } finally {
    await sync.stop();
  }
}

async function checkAccounts(databases: Databases): Promise<void> {
  for (const table of (await readSyncStatus(databases)).tables) {
    const sum = table.applied + table.coalesced + table.resolved + table.held;
    if (sum !== table.captured)
      throw new Error(`${table.table}: captured ${table.captured}, accounted for ${sum}`);
  }
}

/** As the source has them, and validated: what was set aside is back. */
async function expectForeignKeys({ source, target }: Databases): Promise<void> {
  const read = `select format('%s on %s %s %s', conname, conrelid::regclass, pg_get_constraintdef(oid), convalidated) as key
                  from pg_constraint where contype = 'f' and conparentid = 0 and connamespace = 'public'::regnamespace`;
  const missing = async () => {
    const [here, there] = await Promise.all(
      [source, target].map((side) => side.query<{ key: string }>(read)),
    );
    const present = new Set(there?.rows.map(({ key }) => key));
    return here?.rows.map(({ key }) => key).filter((key) => !present.has(key)) ?? [];
  };
  await waitFor(async () => (await missing()).length === 0, { what: 'foreign keys' }).catch(async () => {
    throw new Error(`not back on the target: ${(await missing()).join('; ')}`);
  });
}
