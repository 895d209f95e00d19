/** What PostgreSQL 12 lacks, and what is done about it where it is the source. */
import { describe, expect, test } from 'vitest';
import { Session } from '../../src/postgres/session.ts';
import { canStart } from '../support/majors.ts';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';

describe.skipIf(!canStart(12))('PostgreSQL 12', async () => {
  const servers = await useServers({}, [12, 18]);
  const pair = usePair(servers);

  test('keys are not gathered in hash tables there, which cannot go to disk', async () => {
    await pair.source.query(
      'create table delta as select i % 1000 as k1 from generate_series(1, 100000) i; analyze delta',
    );
    await pair.target.query(
      'create table delta as select i % 1000 as k1 from generate_series(1, 100000) i; analyze delta',
    );
    const planOn = async (url: string) => {
      await using session = await Session.open({ url, name: 'test' });
      const rows = await session.rows<object>('explain select k1, count(*) from public.delta group by k1');
      return JSON.stringify(rows);
    };
    expect(await planOn(pair.databases.sourceUrl)).not.toContain('HashAggregate');
    expect(await planOn(pair.databases.targetUrl)).toContain('HashAggregate');
  });
});
