/** Which extensions of the source the target lacks, or has in another version: what depends on them fails first. */
import type { Session } from '../postgres/session.ts';

export interface ExtensionDifference {
  readonly name: string;
  /** The version on the source. */
  readonly source: string;
  /** The version on the target; null when it is not there. */
  readonly target: string | null;
  /** The version that the target's server could install; null when it has none. */
  readonly available: string | null;
}

export async function compareExtensions(source: Session, target: Session): Promise<ExtensionDifference[]> {
  const installed = `select extname as name, extversion as version from pg_extension order by 1`;
  const here = await source.rows<{ name: string; version: string }>(installed);
  const there = await target.rows<{ name: string; version: string }>(installed);
  const available = await target.rows<{ name: string; version: string }>(
    `select name, default_version as version from pg_available_extensions where name = any ($1)`,
    [here.map(({ name }) => name)],
  );
  const versionIn = (list: readonly { name: string; version: string }[], wanted: string) =>
    list.find(({ name }) => name === wanted)?.version ?? null;
  return here
    .map(({ name, version }) => ({
      name,
      source: version,
      target: versionIn(there, name),
      available: versionIn(available, name),
    }))
    .filter(({ source, target }) => source !== target);
}
