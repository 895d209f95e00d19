/**
 * Servers of other majors than the default one. Their packages are those of `test/majors/package.json`, which
 * `npm run matrix` installs, and nothing else does.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { ClusterOptions } from '../../src/embedded/cluster.ts';

/** Every major that Ibex knows, oldest first; the last is the default one. */
export const MAJORS = [12, 13, 14, 15, 16, 17, 18] as const;
const DEFAULT = 18;

const directory = join(import.meta.dirname, '..', 'majors');

/** What `startCluster` needs to start a server of a major; nothing for the default one. */
export function ofMajor(major: number | undefined): Pick<ClusterOptions, 'package' | 'packageFor'> {
  if (major === undefined || major === DEFAULT) return {};
  return { package: `postgres-${major}`, packageFor: join(directory, 'package.json') };
}

/** Whether servers of these majors can be started here. Under CI, on the platform they exist for, they have to be. */
export function canStart(...majors: readonly number[]): boolean {
  const missing = majors.filter(
    (major) => major !== DEFAULT && !existsSync(join(directory, 'node_modules', `postgres-${major}`)),
  );
  if (missing.length > 0 && process.env.CI && `${process.platform}-${process.arch}` === 'linux-x64')
    throw new Error(
      `CI needs PostgreSQL ${missing.join(', ')}: npm ci --prefix test/majors --ignore-scripts`,
    );
  return missing.length === 0;
}
