/** Reads the objects of a database from its catalogs. */
import type { Session } from '../../postgres/session.ts';
import type { SchemaObject, Section } from '../objects.ts';
import { AFTER_ROWS } from './after-rows.ts';
import { BEFORE_ROWS } from './before-rows.ts';
import { textOf } from './query.ts';
import { UNREAD_OBJECTS } from './unread.ts';

export type LocatedObject = SchemaObject & { readonly catalog: string; readonly oid: string };

type Row = Omit<LocatedObject, 'section' | 'statement'> & { readonly statement: string };

/** All objects of the application. Those of kinds that are not read here come without a statement. */
export async function readCatalogs(session: Session): Promise<LocatedObject[]> {
  const sections: readonly (readonly [Section, readonly string[]])[] = [
    ['pre-data', BEFORE_ROWS.map(textOf)],
    ['post-data', AFTER_ROWS.map(textOf)],
  ];
  const objects: LocatedObject[] = [];
  for (const [section, queries] of sections) {
    for (const query of queries) {
      const rows = await session.rows<Row>(query);
      objects.push(...rows.map((row) => ({ ...row, section, statement: row.statement.trim() })));
    }
  }
  const unread = await session.rows<Pick<LocatedObject, 'kind' | 'name' | 'catalog' | 'oid'>>(UNREAD_OBJECTS);
  return [
    ...unread.map((row) => ({ ...row, section: 'pre-data' as const, statement: null, under: null })),
    ...objects,
  ];
}
