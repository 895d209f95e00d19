/** pg_dump's text, taken apart. */
import { expect, test } from 'vitest';
import { parseDump } from '../../src/schema/dump/text.ts';

const FILTER = { foreignSchemas: /^(ibex|provider)$/, ourTriggers: /^ibex_/ };

function header(name: string, type: string, schema = 'public'): string {
  return `--\n-- Name: ${name}; Type: ${type}; Schema: ${schema}; Owner: -\n--\n\n`;
}

function parse(...parts: string[]) {
  const text = [
    '--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\nSET statement_timeout = 0;\n\n',
    ...parts,
    '--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n',
  ];
  return parseDump(text.join(''), FILTER);
}

test('each object has kind, name, section and statement, without what is for psql', () => {
  const objects = parse(
    header('app', 'SCHEMA', '-'),
    'CREATE SCHEMA app;\n\n\nSET default_table_access_method = heap;\n\n',
    header('t', 'TABLE', 'app'),
    'CREATE TABLE app.t (\n    id integer\n);\n\n\n',
    header('t t_fk', 'FK CONSTRAINT', 'app'),
    'ALTER TABLE ONLY app.t\n    ADD CONSTRAINT t_fk FOREIGN KEY (id) REFERENCES app.t(id);\n\n\n',
  );
  expect(objects).toEqual([
    { kind: 'schema', name: 'app', section: 'pre-data', statement: 'CREATE SCHEMA app', under: null },
    {
      kind: 'table',
      name: 'app.t',
      section: 'pre-data',
      statement: 'CREATE TABLE app.t (\n    id integer\n)',
      under: null,
    },
    {
      kind: 'foreign key',
      name: 'app.t t_fk',
      section: 'post-data',
      statement: 'ALTER TABLE ONLY app.t\n    ADD CONSTRAINT t_fk FOREIGN KEY (id) REFERENCES app.t(id)',
      under: null,
    },
  ]);
});

test('what looks like a header inside of a body, a string or a name is part of it', () => {
  const trap = `\n${header('trap', 'TABLE')}\\restrict x\n`;
  const body = `CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS $_$select '$$' || $1 ${trap}$_$;\n\n`;
  const plain = `CREATE FUNCTION public.g() RETURNS text LANGUAGE sql AS $$${trap}'$$;\n\n`;
  const comment = `COMMENT ON TABLE public."it's" IS 'don''t${trap}';\n\n`;
  const objects = parse(
    header('f()', 'FUNCTION'),
    body,
    header('g()', 'FUNCTION'),
    plain,
    header(`TABLE "it's"`, 'COMMENT'),
    comment,
  );
  const statements = [body, plain, comment].map((text) => text.trim().replace(/;$/, ''));
  expect(objects.map(({ statement }) => statement)).toEqual(statements);
});

test('what is left to the target is left out', () => {
  const objects = parse(
    ...[
      'ACL',
      'EVENT TRIGGER',
      'PUBLICATION',
      'PUBLICATION TABLE',
      'SUBSCRIPTION',
      'USER MAPPING',
      'TABLE DATA',
    ].map((type) => `${header('x', type)}GRANT ALL;\n\n`),
    header('public', 'SCHEMA', '-'),
    header('provider', 'SCHEMA', '-'),
    header('SCHEMA public', 'COMMENT', '-'),
    header('EXTENSION hstore', 'COMMENT', '-'),
    header('secret', 'TABLE', 'provider'),
    header('t ibex_ins_12', 'TRIGGER'),
    'CREATE TRIGGER ibex_ins_12 AFTER INSERT ON public.t EXECUTE FUNCTION ibex.f();\n\n',
    header('t mine', 'TRIGGER'),
    'CREATE TRIGGER mine AFTER INSERT ON public.t EXECUTE FUNCTION public.f();\n\n',
  );
  expect(objects.map(({ name }) => name)).toEqual(['public.t mine']);
});

test('indexes and keys of partitions know the partitioned index that they belong to', () => {
  const objects = parse(
    header('p 1 p 1_pkey', 'CONSTRAINT', 'a.b'),
    'ALTER TABLE ONLY "a.b"."p 1"\n    ADD CONSTRAINT "p 1_pkey" PRIMARY KEY (id);\n\n',
    header('my idx', 'INDEX', 'a.b'),
    'CREATE UNIQUE INDEX "my idx" ON "a.b"."p 1" USING btree (v);\n\n',
    header('p_pkey', 'INDEX ATTACH', 'a.b'),
    'ALTER INDEX "a.b".p_pkey ATTACH PARTITION "a.b"."p 1_pkey";\n\n',
    header('my idx', 'INDEX ATTACH', 'a.b'),
    'ALTER INDEX "a.b"."of ""all""" ATTACH PARTITION "a.b"."my idx";\n\n',
  );
  const [key, index] = ['"a.b".p_pkey', '"a.b"."of ""all"""'].map((parent) => ({
    index: parent,
    table: '"a.b"."p 1"',
  }));
  expect(objects.map(({ under }) => under)).toEqual([key, index, key, index]);
});

test('a body of megabytes is no problem', () => {
  const body = `CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS $$${"select 'a''b' -- \n".repeat(300_000)}$$;\n`;
  expect(parse(header('f()', 'FUNCTION'), body)).toHaveLength(1);
});
