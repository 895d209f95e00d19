/**
 * Names that are made to break out of where they are written: quotes, backslashes, newlines, dollars, what `format` takes
 * for its own, as long as a name can be. Everything has such a name, and everything that Ibex does is done with them.
 * `TEST_SEED=..` replays a run.
 */
import pg from 'pg';
import { expect, test } from 'vitest';
import { ident, literal } from '../../src/postgres/quote.ts';
import { ibex } from '../support/ibex.ts';
import { randomFrom, seedOf } from '../support/random.ts';
import { compareTables, freshDatabases, useServers } from '../support/servers.ts';
import { expectEqual, onBoth, startSync } from '../support/sync.ts';

const servers = await useServers();

/** What ends a literal, a name, a comment or a body, or is filled in by somebody who formats. */
const HOSTILE = [
  `"`,
  `'`,
  `''`,
  `\\`,
  `\\'`,
  `\n`,
  `\t`,
  `$$`,
  `$x$`,
  `$1`,
  `%I`,
  `%s`,
  `%L`,
  `%1$s`,
  `%`,
  `{}`,
  `\${x}`,
  `/*`,
  `*/`,
  `--`,
  `;`,
  `.`,
  `*`,
  `?`,
  `,`,
  `(`,
  `)`,
  ` `,
  `:`,
  `ibex`,
  `tg_op`,
  `é`,
  `名`,
  `😀`,
  `'); drop table canary; --`,
  `"; drop table canary; --`,
  `$$; drop table canary; $$`,
];

/** Bytes of a name. */
const LONGEST = 63;

function namesFrom(random: () => number): () => string {
  const used = new Set<string>();
  const pick = () => HOSTILE[Math.floor(random() * HOSTILE.length)] as string;
  return () => {
    for (;;) {
      const limit = random() < 0.3 ? LONGEST : 3 + Math.floor(random() * 40);
      let name = '';
      for (let piece = pick(); Buffer.byteLength(name + piece) <= limit; piece = pick()) name += piece;
      while (Buffer.byteLength(name) < limit && limit === LONGEST) name += 'x';
      // A schema of that name is refused, see test/integration/foreign-schema.test.ts.
      if (name === '' || name === 'ibex' || used.has(name)) continue;
      used.add(name);
      return name;
    }
  };
}

const id = pg.escapeIdentifier;
const text = pg.escapeLiteral;

test('text of any kind is itself as a literal, and as a name', async () => {
  const name = namesFrom(randomFrom(seedOf('text')));
  const databases = await freshDatabases(servers);
  try {
    for (const word of [...HOSTILE, ...Array.from({ length: 100 }, name)]) {
      const { rows } = await databases.source.query(`select ${literal(word)} as ${ident(word)}`);
      expect(rows).toEqual([{ [word]: word }]);
    }
  } finally {
    await databases.dropAll();
  }
});

test('names of any kind end up where they belong, and nowhere else', async () => {
  const random = randomFrom(seedOf('names'));
  const name = namesFrom(random);
  const databases = await freshDatabases(servers);
  try {
    const [schema, parent, child, parts, keyless] = [name(), name(), name(), name(), name()];
    const [key, value, other, mood, domain] = [name(), name(), name(), name(), name()];
    const [happy, sad] = [name(), name()];
    const table = (of: string) => `${id(schema)}.${id(of)}`;
    const type = (of: string) => `${id(schema)}.${id(of)}`;
    await onBoth(
      databases,
      `create schema ${id(schema)};
       create table canary (id int primary key, v text);
       create type ${type(mood)} as enum (${text(happy)}, ${text(sad)});
       create domain ${type(domain)} as text constraint ${id(name())} check (value <> '');
       create sequence ${id(schema)}.${id(name())};
       create table ${table(parent)} (${id(key)} ${type(mood)}, ${id(value)} ${type(domain)}, ${id(other)} serial,
         constraint ${id(name())} primary key (${id(key)}, ${id(value)}),
         constraint ${id(name())} check (length(${id(value)}) < 1000));
       create index ${id(name())} on ${table(parent)} (${id(other)}) where ${id(other)} > 3;
       create unique index ${id(name())} on ${table(parent)} (${id(value)}, ${id(other)});
       create table ${table(child)} (${id(key)} int generated always as identity primary key, ${id(value)} ${type(mood)},
         ${id(other)} ${type(domain)},
         constraint ${id(name())} foreign key (${id(value)}, ${id(other)}) references ${table(parent)} on delete cascade);
       create table ${table(parts)} (${id(key)} int, ${id(value)} text, primary key (${id(key)})) partition by range (${id(key)});
       create table ${table(name())} partition of ${table(parts)} for values from (0) to (100);
       create table ${table(name())} partition of ${table(parts)} default;
       create table ${table(keyless)} (${id(key)} text, ${id(value)} int);
       create function ${id(schema)}.${id(name())}() returns trigger language plpgsql as 'begin return new; end'`,
    );
    const { rows } = await databases.target.query(
      `select p.proname from pg_proc p where p.pronamespace = (select oid from pg_namespace where nspname = $1)`,
      [schema],
    );
    await databases.target.query(
      `create trigger ${id(name())} before insert or update on ${table(child)} for each row
         execute function ${id(schema)}.${id(rows[0].proname)}()`,
    );
    const writes = (n: number) => `
      insert into canary values (${n}, 'alive');
      insert into ${table(parent)} (${id(key)}, ${id(value)})
        select ${text(happy)}, ${text(sad)} || ${n} || '-' || i from generate_series(1, 50) i;
      update ${table(parent)} set ${id(key)} = ${text(sad)} where ${id(other)} % 7 = 0
        and not exists (select from ${table(child)} c where c.${id(other)} = ${table(parent)}.${id(value)});
      insert into ${table(child)} (${id(value)}, ${id(other)})
        select ${id(key)}, ${id(value)} from ${table(parent)} order by ${id(other)} desc limit 10;
      delete from ${table(parent)} where ${id(other)} % 11 = 0;
      insert into ${table(parts)} select ${n * 40} + i, ${text(happy)} from generate_series(1, 30) i;
      update ${table(parts)} set ${id(key)} = -${id(key)} where ${id(key)} % 5 = 0 and ${id(key)} > 0;
      insert into ${table(keyless)} select ${text(sad)}, i from generate_series(1, 9) i;
      delete from ${table(keyless)} where ${id(value)} = 3;`;
    await databases.source.query(writes(1));

    const before = await objects(databases.target);
    const sync = startSync(databases);
    try {
      await expectEqual(databases, sync);
      await databases.source.query(writes(2));
      await expectEqual(databases, sync);
      await databases.source.query(`truncate ${table(keyless)}; ${writes(3)}`);
      await expectEqual(databases, sync);
      const named = (await sync.status()).tables.map((one) => one.table);
      expect(named).toHaveLength(5);
      for (const of of [parent, child, parts, keyless])
        expect(
          named.filter((label) => label.includes(of) || label.includes(of.replaceAll('"', '""'))),
        ).not.toEqual([]);
    } finally {
      await sync.stop();
    }
    const env = { IBEX_SOURCE_URL: databases.sourceUrl, IBEX_TARGET_URL: databases.targetUrl };
    for (const command of [['status'], ['status', '--json'], ['teardown', '--yes']]) {
      const { code, stderr } = await ibex(command, { env, timeout: 120_000 });
      expect(code, stderr).toBe(command[0] === 'status' ? 1 : 0);
    }
    expect(await compareTables(databases.source, databases.target)).toEqual([]);
    // Nothing came, nothing went, but for our own.
    expect(await objects(databases.target)).toEqual(before);
    for (const client of [databases.source, databases.target])
      expect((await client.query(`select to_regnamespace('ibex') as ours`)).rows).toEqual([{ ours: null }]);
  } finally {
    await databases.dropAll();
  }
});

/** Every index, constraint, trigger and sequence, as the server writes it down. */
async function objects(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query<{ text: string }>(
    `select 'index ' || pg_get_indexdef(i.indexrelid) || ' ' || i.indisvalid as text
       from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
      where n.nspname !~ '^pg_' and n.nspname <> 'ibex'
     union all
     select 'constraint ' || c.conrelid::regclass || ' ' || c.conname || ' ' || pg_get_constraintdef(c.oid)
       from pg_constraint c join pg_namespace n on n.oid = c.connamespace
      where n.nspname !~ '^(pg_|information_schema)' and n.nspname <> 'ibex'
     union all
     select 'trigger ' || t.tgenabled::text || ' ' || pg_get_triggerdef(t.oid) from pg_trigger t where not t.tgisinternal
     union all
     select 'sequence ' || c.oid::regclass from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind = 'S' and n.nspname <> 'ibex'
     order by 1`,
  );
  return rows.map((row) => row.text);
}
