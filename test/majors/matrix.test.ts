/**
 * Syncs between different majors, by roles that are no superusers: the majors that people move between, and with
 * MATRIX=all every major and its neighbours, both ways. No server may fall over on the way.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { errorsOf, examine } from '../doctor/support.ts';
import { ibex } from '../support/ibex.ts';
import { BANK, BANK_ROWS, startLoad } from '../support/load.ts';
import { canStart, MAJORS } from '../support/majors.ts';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';
import { runVerify } from '../verify/support.ts';
import { changes, rows, schema } from './application.ts';

const USUAL = [
  [12, 18],
  [15, 16],
  [18, 14],
] as const;

const neighbours = MAJORS.slice(1).flatMap((newer, i) => {
  const older = MAJORS[i] as number;
  return [[older, newer] as const, [newer, older] as const];
});

const pairs = process.env.MATRIX === 'all' ? [...USUAL, [18, 12] as const, ...neighbours] : USUAL;

/** What ends up in a server's log when one of its processes crashes and takes all sessions with it. */
const CRASHED = /terminated by signal|PANIC:/;

for (const [from, to] of pairs) {
  describe.skipIf(!canStart(from, to))(`from PostgreSQL ${from} to ${to}`, async () => {
    const servers = await useServers({ max_prepared_transactions: '10' }, [from, to]);
    const older = Math.min(from, to);

    afterEach(() => {
      for (const { directory } of [servers.source, servers.target])
        expect(readFileSync(join(directory, 'server.log'), 'utf8')).not.toMatch(CRASHED);
    });

    // Who may set session_replication_role without being a superuser: nobody before PostgreSQL 15.
    describe.each(to < 15 ? [false] : [false, true])('with the right to be a replica: %s', (replica) => {
      const pair = usePair(servers, { replica });

      test('the doctor finds nothing that would fail', async () => {
        await onBoth(pair.databases, schema(older));
        expect(errorsOf(await examine(pair.databases))).toEqual([]);
      });

      test('all rows arrive and stay equal under load, whatever the application does, and teardown leaves nothing', async () => {
        await pair.inStep(`${schema(older)} ${BANK}`, `${rows(older)} ${BANK_ROWS}`);
        const load = await startLoad(pair.databases.sourceUrl, { clients: 2 });
        try {
          for (const change of changes(older, from)) await pair.source.query(change);
        } finally {
          await load.stop();
        }
        await pair.equal();
        expect(load.errors).toEqual([]);
        // At rest nothing has to be waited for.
        const report = await runVerify(pair.databases, { isRunning: async () => false });
        expect(report.tables.filter(({ verdict }) => verdict !== 'equal')).toEqual([]);

        await pair.sync.stop();
        const env = {
          IBEX_SOURCE_URL: pair.databases.sourceUrl,
          IBEX_TARGET_URL: pair.databases.targetUrl,
        };
        expect(await ibex(['teardown', '--yes'], { env })).toMatchObject({ code: 0 });
      });
    });
  });
}
