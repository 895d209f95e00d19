/** What the two databases have differently, and what a sync does not carry. */
import type { TableName } from '../../core/plan.ts';
import { judgeSequences, type SequenceFault } from '../../engine/sequences.ts';
import { ident, literal } from '../../postgres/quote.ts';
import type { Session } from '../../postgres/session.ts';
import { compareExtensions } from '../../schema/extensions.ts';
import { collisionText, INTERLEAVE, readShared } from '../../setup/interleaving.ts';
import { readLeftBehind } from '../../setup/left-behind.ts';
import { FEW, type Finding, info, someOf, warning } from './finding.ts';

export async function probeSequences(
  source: Session,
  target: Session,
  tables: readonly TableName[],
): Promise<Finding[]> {
  const pairs = tables.map((table) => ({ source: table, target: table }));
  const { faults, locked } = await judgeSequences(source, target, pairs);
  return [
    ...alike(faults).map(({ sequences, why, remedy }): Finding => {
      const which =
        sequences.length > 1 ? `${sequences.length} sequences` : `sequence ${sequences[0] as string}`;
      const names = sequences.length > 1 ? `: ${someOf(sequences)}` : '';
      const what = `${which} would not be carried: ${why}${names}`;
      return { severity: 'error', check: 'sequence', side: 'both', what, remedy };
    }),
    ...locked.map((sequence) =>
      warning('not-examined', 'both', `sequence ${sequence} is locked by others`, 'Run `ibex doctor` again.'),
    ),
  ];
}

interface Alike extends Pick<SequenceFault, 'why' | 'remedy'> {
  readonly sequences: readonly string[];
}

/** Those with which the same is the matter, if they are many, together. */
function alike(faults: readonly SequenceFault[]): Alike[] {
  const groups = new Map<string, Alike>();
  for (const { sequence, why, remedy } of faults) {
    const key = `${why} ${remedy}`;
    groups.set(key, { why, remedy, sequences: [...(groups.get(key)?.sequences ?? []), sequence] });
  }
  return [...groups.values()].flatMap((group) =>
    group.sequences.length > FEW
      ? [group]
      : group.sequences.map((sequence) => ({ ...group, sequences: [sequence] })),
  );
}

/** Where both sides are written each draws from sequences of its own. */
export async function probeSharedSequences(
  source: Session,
  target: Session,
  tables: readonly TableName[],
): Promise<Finding[]> {
  const nodes = [
    { name: 'source', session: source },
    { name: 'target', session: target },
  ];
  const what = collisionText((await readShared(nodes, tables)).shared);
  return what === null ? [] : [warning('shared-sequence', 'both', what, INTERLEAVE)];
}

export async function probeExtensions(source: Session, target: Session): Promise<Finding[]> {
  const differences = await compareExtensions(source, target);
  return differences.map(({ name, source: here, target: there, available }) => {
    if (there !== null)
      return info('extension', 'both', `${name} is ${here} on the source and ${there} on the target`);
    const what = `the target lacks the extension ${name} ${here}`;
    return available === null
      ? warning(
          'extension',
          'target',
          `${what}, and its server has no such one`,
          'Ask the provider of the target for it, or do without it.',
        )
      : warning('extension', 'target', what, `On the target: create extension ${ident(name)};`);
  });
}

interface Locale {
  readonly database: string;
  readonly encoding: string;
  readonly collate: string;
  readonly ctype: string;
  readonly provider: string;
  readonly locale: string | null;
  readonly version: string | null;
}

/** The columns that came with PostgreSQL 15 and 17 by name, as older servers lack them. */
const READ_LOCALE = `
  select d.datname as database, pg_encoding_to_char(d.encoding) as encoding, d.datcollate as collate,
         d.datctype as ctype, coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') as provider,
         coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') as locale,
         to_jsonb(d) ->> 'datcollversion' as version
    from pg_database d where d.datname = current_database()`;

const PROVIDERS: Readonly<Record<string, string>> = { c: 'libc', i: 'icu', b: 'builtin' };

/** How text is stored and compared. Other encodings that cannot be converted setup refuses by itself. */
export async function probeLocale(source: Session, target: Session): Promise<Finding[]> {
  const [here, there] = [await source.row<Locale>(READ_LOCALE), await target.row<Locale>(READ_LOCALE)];
  const findings: Finding[] = [];
  const anew = `As an administrator of the target, in place of ${ident(there.database)}: ${creation(here, there)}`;
  if (here.encoding !== there.encoding)
    findings.push(
      warning(
        'encoding',
        'both',
        `text is ${here.encoding} on the source and ${there.encoding} on the target`,
        anew,
      ),
    );
  if (orderOf(here) !== orderOf(there))
    findings.push(
      warning(
        'collation',
        'both',
        `text compares by ${orderOf(here)} on the source and by ${orderOf(there)} on the target`,
        anew,
      ),
    );
  else if (here.version !== there.version && here.version !== null && there.version !== null)
    findings.push(
      info(
        'collation',
        'both',
        `the collation is of version ${here.version} on the source and ${there.version} on the target`,
      ),
    );
  return findings;
}

function orderOf({ collate, ctype, provider, locale }: Locale): string {
  const name = PROVIDERS[provider] ?? provider;
  return locale === null ? `${collate}, ${ctype} (${name})` : `${locale} (${name}; ${collate}, ${ctype})`;
}

function creation({ encoding, collate, ctype, provider, locale }: Locale, there: Locale): string {
  const option = provider === 'i' ? 'icu_locale' : 'builtin_locale';
  const more =
    locale === null || provider === 'c'
      ? ''
      : ` locale_provider ${PROVIDERS[provider] ?? provider} ${option} ${literal(locale)}`;
  return (
    `create database ${ident(`${there.database}_new`)} template template0 encoding ${literal(encoding)} ` +
    `lc_collate ${literal(collate)} lc_ctype ${literal(ctype)}${more};`
  );
}

/** What changes how a value reads, how a text is understood, or what a statement means. */
const SETTINGS = [
  'array_nulls',
  'backslash_quote',
  'bytea_output',
  'DateStyle',
  'default_text_search_config',
  'default_transaction_isolation',
  'default_transaction_read_only',
  'extra_float_digits',
  'IntervalStyle',
  'lc_monetary',
  'lc_numeric',
  'lc_time',
  'search_path',
  'standard_conforming_strings',
  'TimeZone',
  'timezone_abbreviations',
  'transform_null_equals',
  'xmlbinary',
  'xmloption',
];
/** It is a list of names, each of which is quoted by itself. */
const LISTS_OF_NAMES = ['search_path'];

/** As a new session of the role has them, before Ibex sets its own. */
export async function probeSettings(source: Session, target: Session): Promise<Finding[]> {
  const read = (session: Session) =>
    session.rows<{ name: string; value: string; database: string }>(
      `select name, reset_val as value, current_database()::text as database
         from pg_settings where name = any ($1) order by lower(name)`,
      [SETTINGS],
    );
  const there = new Map((await read(target)).map((one) => [one.name, one]));
  return (await read(source)).flatMap(({ name, value }): Finding[] => {
    const other = there.get(name);
    if (other === undefined || other.value === value) return [];
    const to = LISTS_OF_NAMES.includes(name) && value !== '' ? value : literal(value);
    return [
      warning(
        'setting',
        'both',
        `${name} is ${literal(value)} on the source and ${literal(other.value)} on the target`,
        `On the target: alter database ${ident(other.database)} set ${ident(name)} to ${to};`,
      ),
    ];
  });
}

/** What setup names as well. */
export async function probeLeftBehind(source: Session): Promise<Finding[]> {
  const notes = await readLeftBehind(source);
  return notes.map((note) => info('left-behind', 'source', note));
}
