/**
 * Databases that sort, fold and encode text in different ways. `.ci/run` makes the locales; elsewhere tests that
 * need a missing one are skipped.
 */
import { execFileSync } from 'node:child_process';
import { afterEach, describe, expect, test } from 'vitest';
import { type Databases, freshDatabases, useServers } from '../support/servers.ts';
import { expectEqual, onBoth, type RunningSync, startSync } from '../support/sync.ts';

const servers = await useServers();
let databases: Databases;
let sync: RunningSync | undefined;

afterEach(async () => {
  await sync?.stop();
  sync = undefined;
  await databases.dropAll();
});

/** Whether the C library knows a locale, by the name of its character set. Under CI it has to. */
function knows(locale: string): boolean {
  const charset = execFileSync('locale', ['charmap'], {
    env: { ...process.env, LC_ALL: locale },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const known = charset.trim() === locale.split('.')[1];
  if (!known && process.env.CI) throw new Error(`CI needs the locale ${locale}: .ci/run makes it`);
  return known;
}

const GERMAN = "lc_collate 'de_DE.UTF-8' lc_ctype 'de_DE.UTF-8'";
const AMERICAN_LATIN1 = "encoding 'LATIN1' lc_collate 'en_US.ISO-8859-1' lc_ctype 'en_US.ISO-8859-1'";
const SWEDISH_ICU = "locale_provider icu icu_locale 'sv-SE' lc_collate 'C' lc_ctype 'C.UTF-8'";
const PLAIN = "lc_collate 'C' lc_ctype 'C'";

/** In another order, and folded otherwise, under each of the locales. */
const WORDS = [
  'a',
  'A',
  'ä',
  'Ä',
  'b',
  'B',
  'z',
  'Z',
  'ß',
  'ss',
  'SS',
  'é',
  'e',
  'E',
  '-a',
  'a b',
  'ab',
  'å',
  'ö',
  'ÿ',
  '',
];
const LIST = WORDS.map((word) => `'${word}'`).join(', ');

const TABLES = `
  create table word (w text primary key, folded text unique, n int);
  create table place (c char(3), v varchar(9), n int, primary key (c, v));
  create table loose (w text, n int);
  create table split (w text primary key, n int) partition by range (w);
  create table split_low partition of split for values from (minvalue) to ('b');
  create table split_high partition of split for values from ('b') to (maxvalue);
  create table mixed (w text primary key, n int) partition by hash (w);
  create table mixed_0 partition of mixed for values with (modulus 2, remainder 0);
  create table mixed_1 partition of mixed for values with (modulus 2, remainder 1);
  create table price (id int primary key, m money);`;

const ROWS = `
  insert into word select w, w || '/' || ord, ord from unnest(array[${LIST}]) with ordinality u(w, ord);
  insert into place select left(w, 3), w, n from word;
  insert into loose select w, n from word, generate_series(1, 2);
  insert into split select w, n from word;
  insert into mixed select w, n from word;
  insert into price values (1, 1234.5::numeric::money), (2, '-0.01');`;

const CHANGES = [
  'update word set w = upper(w) || n, n = n + 1 where w <> upper(w)',
  "update place set c = 'Äx', v = reverse(v) where v > 'b'",
  "delete from loose where w in ('a', 'ß', 'Å') and n % 2 = 1; insert into loose values ('ÄÖ', 1)",
  "update split set w = w || '#ä'; delete from split where w < 'b' and n > 3",
  'update price set m = m * 3',
  "insert into word values ('a', 'again', 0) on conflict do nothing; delete from word where w > 'y'",
];

async function start(sourceIs: string, targetIs: string): Promise<void> {
  databases = await freshDatabases(servers, { sourceIs, targetIs });
  await onBoth(databases, TABLES);
  await databases.source.query(ROWS);
  sync = startSync(databases);
  await expectEqual(databases, sync);
}

describe.each([
  { from: 'German', to: 'plain', needs: ['de_DE.UTF-8'], sourceIs: GERMAN, targetIs: PLAIN },
  { from: 'plain', to: 'Swedish by ICU', needs: [], sourceIs: PLAIN, targetIs: SWEDISH_ICU },
  { from: 'Swedish by ICU', to: 'German', needs: ['de_DE.UTF-8'], sourceIs: SWEDISH_ICU, targetIs: GERMAN },
  {
    from: 'American in LATIN1',
    to: 'German',
    needs: ['de_DE.UTF-8', 'en_US.ISO-8859-1'],
    sourceIs: AMERICAN_LATIN1,
    targetIs: GERMAN,
  },
])('from $from to $to text', ({ needs, sourceIs, targetIs }) => {
  test.skipIf(!needs.every(knows))(
    'keys and rows are exact where text sorts and folds otherwise',
    async () => {
      await start(sourceIs, targetIs);
      for (const change of CHANGES) await databases.source.query(change);
      await expectEqual(databases, sync as RunningSync);
      await databases.source.query('update word set n = -n; delete from loose');
      await expectEqual(databases, sync as RunningSync);
    },
  );
});

describe.each([
  { leaf: 'split_low', needs: ['de_DE.UTF-8'], sourceIs: GERMAN, targetIs: PLAIN },
  { leaf: 'mixed_0', needs: ['en_US.ISO-8859-1'], sourceIs: AMERICAN_LATIN1, targetIs: PLAIN },
])('where $leaf has other rows on the target', ({ leaf, needs, sourceIs, targetIs }) => {
  test.skipIf(!needs.every(knows))(
    'a truncated partition takes the rows with it that the source had in it, and no others',
    async () => {
      await start(sourceIs, targetIs);
      const here = (await databases.source.query(`select w from ${leaf} order by w collate "C"`)).rows;
      const there = (await databases.target.query(`select w from ${leaf} order by w collate "C"`)).rows;
      expect(there).not.toEqual(here);
      await databases.source.query(`truncate ${leaf}`);
      await expectEqual(databases, sync as RunningSync);
    },
  );
});

test.skipIf(!knows('de_DE.UTF-8'))(
  'money is exact where the settings of both sides print it otherwise',
  async () => {
    databases = await freshDatabases(servers);
    await onBoth(databases, 'create table price (m money primary key, v money[])');
    const name = (await databases.source.query('select current_database() as name')).rows[0].name;
    await databases.sourceAdmin.query(`alter database ${name} set lc_monetary = 'de_DE.UTF-8'`);
    await databases.targetAdmin.query(`alter database ${name} set lc_monetary = 'C'`);
    await databases.source.query(`set lc_monetary = 'de_DE.UTF-8';
    insert into price select (n * 1234.56)::numeric::money, array[n::money, null] from generate_series(-5, 5) n`);
    sync = startSync(databases);
    await expectEqual(databases, sync);
    await databases.source.query(
      'update price set m = m + 0.01::numeric::money where m > 0::money; delete from price where m < 0::money',
    );
    await expectEqual(databases, sync);
  },
);
