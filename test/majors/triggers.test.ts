/**
 * Row triggers of partitioned targets, which every major treats in its own way: replicated rows must not fire them,
 * on no partition, and teardown must bring every one of them back as it was.
 */
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import { ibex } from '../support/ibex.ts';
import { canStart, MAJORS } from '../support/majors.ts';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';

const targets = process.env.MATRIX === 'all' ? MAJORS : ([12, 14] as const);

const TABLES = `
  create table part (id int primary key, v text) partition by range (id);
  create table part_1 partition of part for values from (0) to (100);
  create table part_2 partition of part for values from (100) to (200) partition by range (id);
  create table part_2a partition of part_2 for values from (100) to (150);
  create table part_2b partition of part_2 for values from (150) to (200);
  create table plain (id int primary key, v text);`;

const TRIGGERS = `
  create function fired() returns trigger language plpgsql as $$ begin raise exception '% fired', tg_name; end $$;
  create trigger on_root after insert or update or delete on part for each row execute function fired();
  comment on trigger on_root on part is 'It''s kept';
  create trigger sometimes after update of v on part for each row when (old.v <> new.v) execute function fired();
  create constraint trigger late after insert on part deferrable initially deferred
    for each row execute function fired();
  create trigger for_statements after insert on part for each statement execute function fired();
  create trigger in_the_middle after insert on part_2 for each row execute function fired();
  create trigger on_leaf after insert on part_1 for each row execute function fired();
  create trigger switched_off after insert on part for each statement execute function fired();
  alter table only part disable trigger switched_off;
  create trigger always before insert on plain for each row execute function fired();
  alter table plain enable always trigger always;`;

/** Everything that fires, in the form in which it was made. */
async function triggersOf(client: pg.Client): Promise<Record<'relation' | 'tgname' | 'tgenabled', string>[]> {
  const { rows } = await client.query(`
    select tgrelid::regclass::text as relation, tgname, tgenabled, pg_get_triggerdef(oid) as definition,
           obj_description(oid, 'pg_trigger') as comment
      from pg_trigger where tgfoid = 'fired'::regproc order by 1, 2`);
  return rows;
}

for (const target of targets) {
  describe.skipIf(!canStart(18, target))(`on PostgreSQL ${target}`, async () => {
    const servers = await useServers({}, [18, target]);
    const pair = usePair(servers);

    test('row triggers of a partitioned target fire on no partition, and are back as they were after teardown', async () => {
      await pair.databases.target.query(TABLES + TRIGGERS);
      await pair.source.query(`${TABLES} insert into part select n, n from generate_series(111, 199) n;
                               insert into part values (5, 5);
                               insert into plain values (1, 'a')`);
      const before = await triggersOf(pair.target);
      pair.start();
      await pair.equal();
      await pair.source.query(
        "update part set v = v || '!'; update part set id = id - 60 where id between 160 and 170",
      );
      await pair.source.query(
        "delete from part where id = 5; insert into part values (5, 'again'); update plain set v = 'b'",
      );
      // What comes to the target's table later must not bring them back.
      const more = 'create table part_3 partition of part for values from (200) to (300)';
      await pair.target.query(more);
      await pair.source.query(`${more}; insert into part values (250, 'new')`);
      await pair.becomesEqual();
      await pair.sync.stop();
      const env = { IBEX_SOURCE_URL: pair.databases.sourceUrl, IBEX_TARGET_URL: pair.databases.targetUrl };
      expect(await ibex(['teardown', '--yes'], { env })).toMatchObject({ code: 0 });
      const after = await triggersOf(pair.target);
      expect(after.filter(({ relation }) => relation !== 'part_3')).toEqual(before);
      // A partition that came meanwhile has what it would have had.
      const inherited = after.filter(({ relation }) => relation === 'part_3');
      expect(inherited.map(({ tgname, tgenabled }) => `${tgname} ${tgenabled}`)).toEqual([
        'late O',
        'on_root O',
        'sometimes O',
      ]);
      await expect(pair.target.query("update part_2a set v = 'x'")).rejects.toThrow(/fired/);
    });
  });
}
