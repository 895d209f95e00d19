/** A cutover, writes on the new side, the way back, and both once more. */
import { describe, expect, test } from 'vitest';
import { Pair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';
import { cutover, expectLive, expectSame, ROWS, rollback, SCHEMA, write } from './move.ts';

const servers = await useServers();

describe.each([{ replica: true }, { replica: false }])('replica $replica', ({ replica }) => {
  test('there, back, and there again, and all rows are on both sides', async () => {
    const pair = new Pair();
    await pair.open(servers, { replica });
    try {
      await pair.inStep(SCHEMA, ROWS);
      await pair.ready();
      const moved = await cutover(pair, { unverified: false });
      expect(moved, JSON.stringify(moved)).toMatchObject({
        outcome: 'done',
        live: 'target',
        proof: { pending: 0, verify: { verdict: 'equal', sample: 1 } },
      });
      expect(moved.events.filter(({ seconds }) => seconds !== null).map(({ phase }) => phase)).toEqual([
        'preflight',
        'verify',
        'prepare',
        'fence',
        'drain',
        'sequences',
        'check',
        'switch',
        'reverse',
        'lift',
      ]);
      await expectLive(pair, 'target');
      await expectSame(pair);
      expect(await triggered(pair)).toEqual(['O']);
      expect((await cutover(pair)).reasons).toEqual(['the target is live already']);

      const back = await rollback(pair);
      expect(back, JSON.stringify(back)).toMatchObject({ outcome: 'done', live: 'source' });
      await expectLive(pair, 'source');
      await expectSame(pair);
      expect(await rollback(pair)).toMatchObject({
        outcome: 'refused',
        reasons: ['the source is live already'],
      });

      expect(await cutover(pair)).toMatchObject({ outcome: 'done', live: 'target' });
      for (let i = 0; i < 5; i++) await write(pair.target);
      await expectSame(pair);
    } finally {
      await pair.close();
    }
  });
});

/** How the trigger of the application stands on the target. */
async function triggered(pair: Pair): Promise<string[]> {
  const { rows } = await pair.target.query<{ e: string }>(
    `select tgenabled::text as e from pg_trigger where tgname = 'audited'`,
  );
  return rows.map(({ e }) => e);
}
