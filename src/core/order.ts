/** The order in which tables are written, so that foreign keys hold after every statement. */
import { type TableName, tableLabel } from './plan.ts';

/**
 * Tables with parents before children. Ties and cycles keep the given order; a cycle has no order, and the
 * merge that meets its constraint goes the careful way.
 */
export function parentsFirst<T extends TableName>(
  tables: readonly T[],
  foreignKeys: readonly { readonly child: TableName; readonly parent: TableName }[],
): T[] {
  const byLabel = new Map(tables.map((table) => [tableLabel(table), table]));
  const parents = new Map<string, string[]>();
  for (const key of foreignKeys) {
    const child = tableLabel(key.child);
    parents.set(child, [...(parents.get(child) ?? []), tableLabel(key.parent)]);
  }
  const ordered: T[] = [];
  const visited = new Set<string>();
  const visit = (label: string) => {
    const table = byLabel.get(label);
    if (table === undefined || visited.has(label)) return;
    visited.add(label);
    for (const parent of parents.get(label) ?? []) visit(parent);
    ordered.push(table);
  };
  for (const label of byLabel.keys()) visit(label);
  return ordered;
}
