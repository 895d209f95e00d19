/**
 * Reads both sides in the same way, so that what is equal reads equal: by pg_dump, which knows every kind of objects,
 * where there is one that is new enough for both servers; else from the catalogs.
 */
import type { SyncConfig } from '../config/syncs.ts';
import { IbexError } from '../core/errors.ts';
import { matches, type TablePattern } from '../core/patterns.ts';
import type { TableName } from '../core/plan.ts';
import { FOREIGN_SCHEMAS, listTables } from '../postgres/catalog.ts';
import type { Session } from '../postgres/session.ts';
import { chooseTables } from '../setup/tables.ts';
import { OUR_TRIGGERS } from './catalogs/after-rows.ts';
import { readNeeded, readParts } from './catalogs/needs.ts';
import { type LocatedObject, readCatalogs } from './catalogs/reader.ts';
import { findPgDump, runPgDump } from './dump/pg-dump.ts';
import { parseDump } from './dump/text.ts';
import { identityOf, type SchemaObject, type TargetObjects } from './objects.ts';
import { readAside, readCovered } from './target-state.ts';

export interface Sides {
  /** `pg_dump 17.5` or `catalogs`. */
  readonly way: string;
  /** Why pg_dump was not used; null when it was. */
  readonly because: string | null;
  readonly source: readonly SchemaObject[];
  readonly target: TargetObjects;
}

interface BothSessions {
  readonly sync: SyncConfig;
  readonly source: Session;
  readonly target: Session;
}

/** Errors: `unknown_table` for a pattern of tables that names nothing on the source. */
export async function readSides(both: BothSessions): Promise<Sides> {
  const { sync, target } = both;
  const state = { aside: await readAside(target), covered: await readCovered(target) };
  const dump = await dumpVersion(both);
  if (dump.because === null) {
    try {
      const { source, objects } = await dumpBoth(both);
      return { way: `pg_dump ${dump.version}`, because: null, source, target: { objects, ...state } };
    } catch (error) {
      if (!(error instanceof IbexError) || error.kind !== 'tool') throw error;
      dump.because = error.message;
    }
  }
  const read = await readChosen(both, sync);
  return {
    way: 'catalogs',
    because: dump.because,
    source: read.source,
    target: { objects: read.target, ...state },
  };
}

async function dumpVersion({ sync, source, target }: BothSessions) {
  if (sync.tables.length + sync.exclude.length > 0) {
    return { version: null, because: 'pg_dump cannot tell what single tables need' };
  }
  const version = await findPgDump();
  if (version === null) return { version, because: 'there is no pg_dump on the PATH' };
  const newest = Math.floor(Math.max(source.version, target.version) / 10_000);
  const tooOld = Number.parseInt(version, 10) < newest;
  return { version, because: tooOld ? `pg_dump ${version} is too old for PostgreSQL ${newest}` : null };
}

/** Both at once, and to the end of both: neither is left behind when the other fails. */
async function dumpBoth(both: BothSessions) {
  const [here, there] = await Promise.allSettled([dumped(both, 'source'), dumped(both, 'target')]);
  if (here.status === 'rejected') throw here.reason;
  if (there.status === 'rejected') throw there.reason;
  return { source: here.value, objects: there.value };
}

async function dumped({ sync, ...sessions }: BothSessions, side: 'source' | 'target') {
  const others = await sessions[side].rows<{ name: string }>(
    `select nspname as name from pg_namespace where nspname ~ $1 and nspname !~ '^(pg_|information_schema$)'`,
    [FOREIGN_SCHEMAS],
  );
  const url = await sync[side].resolveUrl();
  const without = others.map(({ name }) => name);
  const text = await runPgDump(url, `ibex:${sync.name}:schema`, without);
  const filter = { foreignSchemas: new RegExp(FOREIGN_SCHEMAS), ourTriggers: new RegExp(OUR_TRIGGERS) };
  const objects = parseDump(text, filter);
  if (new Set(objects.map(identityOf)).size < objects.length) {
    throw new IbexError('tool', 'pg_dump gives two objects the same name');
  }
  return objects;
}

/** Of the chosen tables what is part of them or needed by them; on the target what belongs to tables of their names. */
async function readChosen({ source, target }: BothSessions, choice: Pick<SyncConfig, 'tables' | 'exclude'>) {
  const here = await readCatalogs(source);
  const there = await readCatalogs(target);
  if (choice.tables.length + choice.exclude.length === 0) return { source: here, target: there };
  const chosen = await chooseTables(source, choice, []);
  if (choice.tables.length > 0) {
    const isNeeded = await readNeeded(source, chosen);
    const belongs = await readParts(target, chosen);
    return { source: here.filter(isNeeded), target: there.filter(either(here.filter(isNeeded), belongs)) };
  }
  const [leftHere, leftThere] = await Promise.all([source, target].map((side) => readExcluded(side, choice)));
  return {
    source: here.filter((object) => !leftHere?.(object)),
    target: there.filter((object) => !leftThere?.(object)),
  };
}

/** What is to be compared, and what belongs to the tables. */
function either(wanted: readonly SchemaObject[], belongs: (object: LocatedObject) => boolean) {
  const identities = new Set(wanted.map(identityOf));
  return (object: LocatedObject) => identities.has(identityOf(object)) || belongs(object);
}

async function readExcluded(session: Session, { exclude }: { readonly exclude: readonly TablePattern[] }) {
  const isExcluded = (table: TableName) => exclude.some((one) => matches(one, table.schema, table.name));
  return readParts(session, (await listTables(session)).filter(isExcluded));
}
