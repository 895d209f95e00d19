/** Databases in different encodings. */
import { describe, expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth, startSync } from '../support/sync.ts';

const servers = await useServers();
const LATIN1 = `encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'`;
const SQL_ASCII = `encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'`;

/** Every character of the upper half of LATIN1. */
const UPPER = String.fromCharCode(...Array.from({ length: 96 }, (_, i) => 0xa0 + i));

const SCHEMA = `
  create type "Größe" as enum ('süß', 'klein');
  create type pair as (a text, b varchar(3));
  create table "Straße" ("schlüssel" varchar(100) primary key, t text, c char(4), n name, j json, b jsonb, a text[], e "Größe",
                         p pair, v tsvector, q tsquery, k "char", x xml, h bytea);
  create table keyless (t text, e "Größe", p pair)`;
const row = (key: string) =>
  `'${key}${UPPER}', '${UPPER}', 'äö', 'Ä', '{"é":"\\u00e9 é"}', '{"é":"ü"}', '{ä,"é,"}', 'süß', '(é,äöü)', 'é:1 z:2 ä:3', '''é'' & ä:*', 'x', '<é>ü</é>', '\\xe9'`;

describe('from LATIN1 to UTF8', () => {
  const pair = usePair(servers, { sourceIs: LATIN1 });

  test('text of a LATIN1 database arrives in a UTF8 one', async () => {
    await onBoth(pair.databases, SCHEMA);
    await pair.source.query(
      `insert into "Straße" values (${row('a')}); insert into keyless values ('${UPPER}', 'süß', '(ä,é)')`,
    );
    pair.start();
    await pair.equal();
    await pair.source.query(
      `insert into "Straße" values (${row('b')}); insert into keyless values ('é', 'süß', '(ä,é)'), (null, 'klein', null)`,
    );
    await pair.source.query(
      `update "Straße" set "schlüssel" = 'ÿ', t = 'ÿ' where t = '${UPPER}' and "schlüssel" like 'a%'`,
    );
    await pair.source.query(`delete from keyless where t = '${UPPER}'; update keyless set t = 'þ'`);
    await pair.equal();
  });
});

describe('from UTF8 to LATIN1', () => {
  const pair = usePair(servers, { targetIs: LATIN1 });

  test('text that LATIN1 has arrives, text that it lacks holds its table by name', async () => {
    await onBoth(
      pair.databases,
      `${SCHEMA}; create table copied (id int primary key, t text); create table streamed (id int primary key, t text)`,
    );
    await pair.source.query(`insert into "Straße" values (${row('a')}); insert into copied values (1, '€')`);
    pair.start();
    const status = () => pair.sync.status();
    const told = (reason: RegExp) =>
      waitFor(async () => (await status()).why.some((why) => reason.test(why)), { what: `${reason}` });
    await told(
      /public\.copied: .*character with byte sequence 0xe2 0x82 0xac in encoding "UTF8" has no equivalent in encoding "LATIN1"/,
    );
    await pair.becomesEqual(['public.streamed', 'public.Straße']);
    await pair.source.query(`insert into streamed values (1, 'é'), (2, '€')`);
    await told(/public\.streamed: .*has no equivalent in encoding "LATIN1"/);
    await pair.source.query(`insert into "Straße" values (${row('b')})`);
    await pair.becomesEqual(['public.Straße', 'public.keyless']);
  });
});

describe('without an encoding', () => {
  describe('on both sides', () => {
    const pair = usePair(servers, { sourceIs: SQL_ASCII, targetIs: SQL_ASCII });

    test('text of an SQL_ASCII database arrives byte by byte in another', async () => {
      await onBoth(
        pair.databases,
        `set client_encoding = 'SQL_ASCII'; create table t (id int primary key, v text); create table keyless (v text)`,
      );
      await pair.source.query(
        `insert into t values (1, e'\\xe9\\xff'), (2, 'é'); insert into keyless values (e'\\xe9'), (e'\\xc3')`,
      );
      pair.start();
      await pair.equal();
      await pair.source.query(
        `update t set v = v || e'\\x80'; delete from keyless where v = e'\\xe9'; insert into keyless values (e'\\xfe')`,
      );
      await pair.equal();
    });
  });

  describe('on the source', () => {
    const pair = usePair(servers, { sourceIs: SQL_ASCII });

    test('bytes that are UTF8 arrive as they are, others hold their table by name', async () => {
      await onBoth(
        pair.databases,
        'create table good (id int primary key, v text); create table bad (id int primary key, v text)',
      );
      await pair.source.query(`insert into good values (1, e'\\xc3\\xa9')`);
      pair.start();
      await pair.equal();
      await pair.source.query(`insert into bad values (1, e'\\xe9')`);
      await waitFor(
        async () =>
          /public\.bad: .*invalid byte sequence for encoding "UTF8"/.test(
            (await pair.sync.status()).why.join(),
          ),
        {
          what: 'the table to be held',
        },
      );
      await pair.source.query(`insert into good values (2, e'\\xf0\\x9f\\x90\\x90')`);
      await pair.becomesEqual(['public.good']);
    });
  });

  describe('into another encoding', () => {
    const pair = usePair(servers, { sourceIs: SQL_ASCII, targetIs: LATIN1 });

    test('a target whose encoding nobody can relate to SQL_ASCII is refused', async () => {
      await onBoth(pair.databases, 'create table t (id int primary key, v text)');
      await expect(startSync(pair.databases).stopped).rejects.toThrow(
        /encoding SQL_ASCII, to .* encoding LATIN1/,
      );
    });
  });
});
