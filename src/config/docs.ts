/**
 * Prints docs/configuration.md from the schema. `npx tsx scripts/write-docs.ts` writes it; a test compares.
 */

import * as z from 'zod';
import { SSL_MODES } from '../postgres/tls.ts';
import { URL_PARAMETERS } from '../postgres/url.ts';
import { fileOptionSchema, flagOf, listOptions } from './options.ts';

/** The whole of docs/configuration.md. */
export function configurationMarkdown(): string {
  return [INTRODUCTION, optionTable(), FILE, PATTERNS, urls(), ''].join('\n\n');
}

const INTRODUCTION = `# Configuration

<!-- Written by \`npx tsx scripts/write-docs.ts\` from src/config/. Do not edit by hand. -->

Two URLs are enough: \`IBEX_SOURCE_URL\` and \`IBEX_TARGET_URL\`. Every option can be set by flag, environment
variable or file, in this order of precedence. Unknown keys and values are errors.

## Options

"In file" says whether \`ibex.yaml\` may set the option, by the name of the flag with \`_\` for \`-\`.`;

const FILE = `Durations are \`500ms\`, \`60s\`, \`5m\` or \`1h\`; a bare number counts seconds. Relative paths start at the
working directory, those of a file at the file. An empty environment variable counts as not set.

The URLs of source and target may also come from \`IBEX_SOURCE_URL_FILE\` (a file that holds the URL) or
\`IBEX_SOURCE_URL_COMMAND\` (a shell command that prints it), likewise for the target. They are read anew for
every connection, so credentials may rotate. A password in a flag is visible to everybody on the machine.

## ibex.yaml

With a file, several syncs run in one daemon. The two URLs alone mean nodes \`source\` and \`target\` and one sync
\`main\`; URLs and \`syncs\` together are refused as ambiguous.

\`\`\`yaml
redis: redis://127.0.0.1:6379
nodes:
  a: postgres://app@a.example/app
  b: {url_file: /run/secrets/b-url}       # or {url_command: ..}, {url: ..}
syncs:
  - {name: copy, from: a, to: b, tables: [public.*], exclude: [public.log_*]}
\`\`\`

\`between: [a, b]\` in the place of \`from\` and \`to\` carries both ways; how \`conflicts\` between the two are decided is said
there too: [conflicts.md](conflicts.md). With \`guard: true\` a sync from one node to another notes what others write on its
target, and decides by \`conflicts\` where that meets what it brings:
[One way, with a guard](conflicts.md#one-way-with-a-guard). The two lanes of a sync \`pair\` are called \`pair\` and \`pair.back\`. A sync also carries
on what other syncs brought to the node that it starts from; \`forward: true\` may say so, and \`false\` is refused: what it
left out would be missing without anybody being told.

\`max_delta_bytes\` and \`max_delta_age\` may also stand in a sync, for it alone. Sizes count in 1024s: \`500MB\`, \`20GB\`;
ages are \`90m\`, \`12h\` or \`7d\`. What they mean: [source-disk.md](source-disk.md).

Names of nodes and syncs begin with a-z, followed by at most 30 of a-z, 0-9 and \`_\`. Between two nodes
there must be one way only, so syncs form no cycle. A value that begins with \`*\` needs quotes.

## Parts of a table

\`carry\` says for single tables what is carried of them; of all others everything is.

\`\`\`yaml
syncs:
  - name: copy
    from: a
    to: b
    carry:
      public.users:
        columns: [id, name, tenant_id]        # of the source's columns these; left out: all
        select: {email: "md5(email)"}         # a column of the target, from an expression over the source's row
        where: tenant_id = 4                  # the rows for which it is true
\`\`\`

- A table is named as in a pattern, without wildcards, a partitioned table as a whole. One that the sync does not have
  is an error. Names of columns are those of the catalog.
- The key always travels, as it is: it cannot be left out of \`columns\`, nor be an expression. A table without a key
  takes none of these settings.
- \`select\` may replace a column or fill one that the source does not have; it need not stand in \`columns\`. Its type is
  compared with the target's as that of a plain column is. What nothing is carried into keeps its value or its default.
- Expressions use the columns of one row by their names. Only a write to that row makes Ibex look at it again, so the
  server must hold them IMMUTABLE (no subquery, no \`now()\`); Ibex has it check that and says what it complains of.
  Functions, operators and types outside \`pg_catalog\` need their schema: \`public.f(a)\`, \`a operator(public.=) b\`.
  A function that is given another body changes values that nobody writes: change the text of the expression then,
  if only by a comment (\`-- 2\`), and the table is copied again.
- A row enters and leaves the filter as it is written; NULL is not true. The target loses a row that left, and whatever
  it holds under the key of a row that was written and is not carried. TRUNCATE on the source empties the whole table,
  and so does a new copy. Rows that others put there under other keys are otherwise left alone.
- When these settings have changed at a start, the table is copied again: what is there was chosen otherwise.
- A foreign key of the target to a table with a filter holds only if the referring rows are filtered alike.`;

const PATTERNS = `## Table patterns

\`schema.table\`, comma-separated or repeated, where \`*\` stands for any characters and \`?\` for one. Names are compared
as the catalog has them, upper and lower case included. Double quotes protect dot, comma, \`*\` and \`?\`, as in
\`"My.Schema"."a*b"\`; a quote inside quotes is doubled.`;

function optionTable(): string {
  const rows = listOptions().map(({ name, schema, info }) => {
    const flag = [flagOf(name), info.argument].filter(Boolean).join(' ') + (info.repeatable ? ' ..' : '');
    const standard = schema instanceof z.ZodPrefault ? `\`${String(schema.def.defaultValue)}\`` : '';
    const inFile = Object.hasOwn(fileOptionSchema.shape, name) ? 'yes' : 'no';
    return `| \`${flag}\` | \`${info.env}\` | ${inFile} | ${standard} | ${info.description} |`;
  });
  return ['| flag | environment | in file | default | what it is |', '|---|---|---|---|---|', ...rows].join(
    '\n',
  );
}

function urls(): string {
  const parameters = Object.entries(URL_PARAMETERS).map(
    ([name, variable]) => `| \`${name}\` | \`${variable}\` |`,
  );
  return `## Connection URLs

\`postgres://user@host:5432/database?sslmode=require\`, read as libpq reads it. Special characters of user, password and
database are written as % escapes: \`%40\` for @, \`%2F\` for /, \`%25\` for %. An IPv6 address stands in brackets, the
directory of a Unix socket in \`?host=/var/run/postgresql\`. What the URL leaves out comes from libpq's variables, the
password at last from \`~/.pgpass\` (\`PGPASSFILE\`). Without any, the host is localhost. Lists of hosts are not supported.

| parameter | variable |
|---|---|
${parameters.join('\n')}

\`sslmode\` is one of ${SSL_MODES.map((mode) => `\`${mode}\``).join(', ')}; the default is \`prefer\`.

- \`prefer\`: TLS, and a plain connection if the server speaks no TLS, or admits none. \`allow\`: the other way round.
- \`require\`: TLS without verification, unless \`sslrootcert\` is given; then as \`verify-ca\`.
- \`verify-ca\`: the certificate must come from a CA in \`sslrootcert\`.
- \`verify-full\`: it must name the host, too. \`sslrootcert=system\` (the CAs that Node trusts) implies this mode.

As in libpq, \`root.crt\` (from \`require\` on), \`postgresql.crt\` and \`postgresql.key\` in \`~/.postgresql\` count when nothing else is given.
\`application_name\` is accepted and ignored: Ibex's connections are called \`ibex:<sync>:<part>\`. \`channel_binding=require\`
binds whenever the server offers SCRAM-SHA-256-PLUS, but cannot insist on it.`;
}
