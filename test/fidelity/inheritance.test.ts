/** Tables of which statement triggers would tell too much or too little: inheritance, and what subscriptions write. */
import pg from 'pg';
import { describe, expect, test } from 'vitest';
import { MODES, type Pair, usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers({ wal_level: 'logical' });

const FAMILY = `
  create table city (id int primary key, name text, people int);
  create table capital (state text, primary key (id)) inherits (city);
  create table port (id int, depth numeric, berths int[], primary key (id)) inherits (city);
  create table harbour (primary key (id)) inherits (port, capital);
  create table note (what text);
  create table signed_note (who text) inherits (note)`;

const PEOPLE = `
  insert into city select i, 'city' || i, i from generate_series(1, 50) i;
  insert into capital select i, 'capital' || i, i, 's' from generate_series(40, 90) i;
  insert into port select i, 'port' || i, i, i / 3.0, array[i] from generate_series(1, 20) i;
  insert into harbour values (7, 'seven', 7, 1, '{}', 's');
  insert into note select 'n' || i % 3 from generate_series(1, 9) i;
  insert into signed_note select 'n' || i % 3, 'w' from generate_series(1, 9) i`;

describe.each(MODES)('where $mode', ({ replica }) => {
  const pair = usePair(servers, { replica });

  test('members of an inheritance tree are tables of their own, each row carried once', async () => {
    await pair.inStep(FAMILY, PEOPLE);
    const { source } = pair;
    await source.query(`update city set name = name || '!', people = people + 1`);
    await source.query(`update only city set people = -1 where id < 10`);
    await pair.equal();
    await source.query('update city set id = id + 1000 where id % 2 = 0');
    await source.query('delete from city where id % 5 = 0');
    await source.query('delete from only city where id = 7');
    await source.query(`insert into harbour values (3000, 'new', 1, 1, '{1}', 't')`);
    await pair.equal();
    await source.query(`update note set what = 'changed' where what = 'n1'`);
    await source.query(`delete from note where what = 'n2'; insert into note values ('n0')`);
    await pair.equal();
    await source.query('truncate only city; insert into city values (5, $$again$$, 5)');
    await pair.equal();
    expect((await pair.target.query('select from capital')).rowCount).toBeGreaterThan(10);
    await source.query('truncate city, note');
    await source.query(`insert into capital values (1, 'after', 1, 'x')`);
    await pair.equal();
  });
});

describe('while streaming', () => {
  const pair = usePair(servers);

  test('a table that becomes parent or child is captured anew', async () => {
    await pair.inStep(
      `create table parent (id int primary key, v text); create table child (id int primary key, v text);
       create table plain (v text); create table plain_child (v text)`,
      `insert into parent select i, 'p' from generate_series(1, 30) i; insert into child select i, 'c' from generate_series(20, 50) i;
       insert into plain select 'p' from generate_series(1, 5); insert into plain_child select 'c' from generate_series(1, 5)`,
    );
    const { source } = pair;
    await source.query(`alter table child inherit parent; alter table plain_child inherit plain;
      update parent set v = v || '1'; delete from parent where id = 25; update plain set v = v || '1'`);
    await pair.becomesEqual();
    await source.query(`update parent set v = v || '2'; update plain set v = v || '2'`);
    await pair.equal();
    await source.query(
      `alter table child no inherit parent; update child set v = v || '3'; update parent set v = v || '4'`,
    );
    await pair.becomesEqual();
    await pair.equal();
  });

  test('a trigger that changes the key after ours has noted it', async () => {
    const later = (table: string) =>
      `create trigger "élater" before update on ${table} for each row when (old.k <> new.k) execute function shift()`;
    const table = (
      name: string,
    ) => `create table ${name} (id int, k int, v text, primary key (id, k)) partition by list (k);
      create table ${name}_1 partition of ${name} for values in (1); create table ${name}_2 partition of ${name} for values in (2)`;
    await onBoth(pair.databases, `${table('before')}; ${table('since')}`);
    const { source } = pair;
    await source.query(`create function shift() returns trigger language plpgsql as
      $$ begin new.id := new.id + 1000; return new; end $$; ${later('before')};
      insert into before select i, 1 + i % 2, 'v' from generate_series(1, 40) i; insert into since select * from before`);
    pair.start();
    await pair.equal();
    const move = (name: string) =>
      source.query(
        `merge into ${name} t using generate_series(1, 40, 3) s(i) on s.i = t.id when matched then update set k = 3 - k`,
      );
    await move('before');
    await pair.equal();
    await source.query(later('since'));
    await waitFor(
      async () =>
        (await source.query(`select from ibex.captured where level = 'row' and armed_at is not null`))
          .rowCount === 2,
      { what: 'it to be noticed' },
    );
    await move('since');
    await source.query('update since set k = 3 - k where id = 2');
    await pair.becomesEqual();
    await pair.equal();
  });

  test('what a subscription writes into the source is carried', async () => {
    const upstream = await Upstream.open(pair);
    await pair.inStep(FED, `insert into fed values (1000, 'own')`);
    await upstream.client.query(`${FED}; insert into fed select i, 'first' from generate_series(1, 20) i`);
    await upstream.publish(pair);
    const arrived = async (where: string) =>
      (await pair.source.query(`select from fed where ${where}`)).rowCount !== 0;
    await waitFor(() => arrived('id = 20'), { what: 'the first rows of the subscription' });
    const byRow = `select from ibex.captured where level = 'row' and armed_at is not null`;
    await waitFor(async () => (await pair.source.query(byRow)).rowCount === 2, {
      what: 'both tables to be noted row by row',
    });
    await pair.becomesEqual();
    await upstream.client.query(
      `update fed set id = id + 100, v = 'u' where id < 5; delete from fed where id = 7;
       insert into fed_part select i, 1 + i % 2, 'x' from generate_series(1, 10) i; update fed_part set k = 3 - k where id < 4;
       insert into fed values (-1, 'last')`,
    );
    await waitFor(() => arrived('id = -1'), { what: 'changes through the subscription' });
    await pair.equal();
    expect((await pair.target.query('select from fed_part')).rowCount).toBe(10);
    await upstream.client.query(`truncate fed; insert into fed values (-2, 'after')`);
    await waitFor(() => arrived('id = -2'), { what: 'the truncate through the subscription' });
    await pair.equal();
    await upstream.close(pair);
  });
});

const FED = `
  create table fed (id int primary key, v text);
  create table fed_part (id int, k int, v text, primary key (id, k)) partition by list (k);
  create table fed_part_1 partition of fed_part for values in (1);
  create table fed_part_2 partition of fed_part for values in (2)`;

/** Another database, whose changes the source subscribes to. */
class Upstream {
  readonly client: pg.Client;
  readonly #name: string;

  private constructor(client: pg.Client, name: string) {
    this.client = client;
    this.#name = name;
  }

  static async open({ databases }: Pair): Promise<Upstream> {
    const name = `upstream_${process.pid}`;
    await databases.sourceAdmin.query(`create database ${name}`);
    const client = new pg.Client({ connectionString: urlOf(name) });
    client.on('error', () => undefined);
    await client.connect();
    return new Upstream(client, name);
  }

  async publish({ databases }: Pair): Promise<void> {
    await this.client.query('create publication p for all tables');
    // Made here: a subscription to a database of its own server would wait for itself.
    await this.client.query(`select pg_create_logical_replication_slot($1, 'pgoutput')`, [this.#name]);
    await databases.sourceAdmin.query(
      `create subscription ${this.#name} connection ${pg.escapeLiteral(urlOf(this.#name))} publication p
         with (create_slot = false, slot_name = ${this.#name})`,
    );
  }

  async close({ databases }: Pair): Promise<void> {
    await databases.sourceAdmin.query(`drop subscription ${this.#name}`);
    await this.client.end();
    await databases.sourceAdmin.query(`drop database ${this.#name} with (force)`);
  }
}

function urlOf(database: string): string {
  const url = new URL(servers.source.superuserUrl);
  url.pathname = database;
  return url.href;
}
