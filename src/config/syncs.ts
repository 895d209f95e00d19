/**
 * Who copies what to whom: the syncs of ibex.yaml, or the one sync `main` that two URLs make.
 *
 * A sync `between` two nodes makes two lanes, one each way, which are syncs of their own to the rest of Ibex. Beside
 * that nothing flows in a circle.
 */

import { ruleOf } from '../core/carry.ts';
import { type ConflictRules, guardName, type Rivalry } from '../core/conflict.ts';
import { IbexError } from '../core/errors.ts';
import type { TablePattern } from '../core/patterns.ts';
import type { CarryRule } from '../core/plan.ts';
import { conflictRules } from './conflicts.ts';
import { type ConfigFile, exactTable, type FileSync } from './file.ts';
import type { Settings } from './layers.ts';
import { envOf, flagOf, type Options } from './options.ts';
import { checkTrees } from './trees.ts';
import { type NodeConfig, nodeConfig } from './urls.ts';

/** One flow from one node to another. */
export interface SyncConfig {
  name: string;
  source: NodeConfig;
  target: NodeConfig;
  /** Empty when the user named none: every eligible table, or the set that was set up. */
  tables: TablePattern[];
  exclude: TablePattern[];
  /** What is carried of some of the tables. */
  carry: CarryRule[];
  /** What becomes of tables without a key. */
  keyless: Options['keyless'];
  /** What this one call named, by flag or environment: it picks from the set that was set up. */
  asked: { tables: TablePattern[]; exclude: TablePattern[] };
  /** What its deltas may take of the source's disk, and how old they may get (ms); null: no limit. */
  budget: { bytes: Options['max_delta_bytes']; ageMs: Options['max_delta_age'] };
  /** Both sides are written: the other lane, and what decides; null of a sync that goes one way. */
  rivalry: Rivalry | null;
  /**
   * Goes one way, and what others write on the target is noted there, for a reader that no lane has (`counterpart`); what
   * decides where that meets what comes. Null: nobody looks.
   */
  guard: Rivalry | null;
}

/** The lane of the other direction: a sync of its own in all respects. Names of users have no dot. */
export function reversed(sync: SyncConfig): SyncConfig {
  const { name, source, target, rivalry } = sync;
  return {
    ...sync,
    name: backOf(name),
    source: target,
    target: source,
    rivalry: rivalry && { ...rivalry, counterpart: name },
    guard: null,
  };
}

const backOf = (name: string) => `${name}.back`;
/** The lane that runs while this side is live: the sync as it is configured, or turned round. */
export function laneOf(sync: SyncConfig, live: 'source' | 'target'): SyncConfig {
  return live === 'source' ? sync : reversed(sync);
}

function askedFor(settings: Settings, options: Options): SyncConfig['asked'] {
  const list = (name: 'tables' | 'exclude') => (settings[name]?.inFile ? [] : (options[name] ?? []));
  return { tables: list('tables'), exclude: list('exclude') };
}

/** The sync `main` from node `source` to node `target`, one of which may be missing when `oneSided`. */
export function mainSync(
  settings: Settings,
  options: Options,
  env: NodeJS.ProcessEnv,
  oneSided: boolean,
): SyncConfig {
  if (options.sync !== undefined && options.sync !== 'main') {
    throw new IbexError('config', `${settings.sync?.place}: two URLs make one sync, and its name is main`);
  }
  const node = (name: 'source' | 'target') => {
    const source = options[name];
    const setting = settings[name];
    if (source && setting) return nodeConfig(name, source, setting.place, { cwd: setting.base, env });
    const variable = envOf(name);
    const missing = new IbexError(
      'config',
      `the ${name} is not given: set ${flagOf(name)} or ${variable} to its URL`,
      { hint: `For example export ${variable}=postgres://user@host:5432/database.` },
    );
    const other = name === 'source' ? options.target : options.source;
    if (!oneSided || other === undefined) throw missing;
    return { name, given: false, resolveUrl: () => Promise.reject(missing) };
  };
  return {
    name: 'main',
    source: node('source'),
    target: node('target'),
    tables: options.tables ?? [],
    exclude: options.exclude ?? [],
    carry: [],
    keyless: options.keyless,
    asked: askedFor(settings, options),
    budget: { bytes: options.max_delta_bytes, ageMs: options.max_delta_age },
    rivalry: null,
    guard: null,
  };
}

/**
 * The syncs of the file, or the one that `sync` picks. `tables` and `exclude` given by flag or environment
 * stand in for those of the file, provided that one sync only is meant.
 */
export function syncsOfFile(
  file: ConfigFile,
  settings: Settings,
  options: Options,
  around: { directory: string; env: NodeJS.ProcessEnv },
): SyncConfig[] {
  checkSyncs(file);
  for (const name of ['source', 'target'] as const) {
    const place = settings[name]?.place;
    if (place) {
      throw new IbexError(
        'config',
        `${place} and ${file.locate(['syncs'])} both say what to copy; leave one out`,
        {
          hint: 'Pick a sync of the file with --sync, or name another file with --config.',
        },
      );
    }
  }
  const isMeant = (name: string) => options.sync === undefined || options.sync === name;
  const chosen = file.syncs.filter(
    ({ name, between }) => isMeant(name) || (between !== undefined && isMeant(backOf(name))),
  );
  if (chosen.length === 0) {
    const names = file.syncs.map((sync) => sync.name).join(', ');
    throw new IbexError('config', `${settings.sync?.place}: no such sync; the syncs are ${names}`);
  }
  for (const list of ['tables', 'exclude'] as const) {
    if (Object.hasOwn(file.options, list)) {
      throw new IbexError('config', `${file.locate([list])}: belongs into each of the syncs`);
    }
    if (options[list] && chosen.length > 1) {
      throw new IbexError(
        'config',
        `${settings[list]?.place}: the file has several syncs; pick one with --sync`,
      );
    }
  }
  const node = (name: string): NodeConfig => {
    const source = file.nodes[name];
    if (source === undefined) throw new IbexError('internal', `node ${name} was not checked`);
    return nodeConfig(name, source, file.locate(['nodes', name]), { cwd: around.directory, env: around.env });
  };
  checkTrees(
    file.syncs.flatMap((sync) => {
      const { between, tables } = sync;
      return between === undefined
        ? []
        : [{ between, tables, rules: rulesFrom(file, sync, between, options) }];
    }),
  );
  return chosen.flatMap((sync) => {
    const [from, to] = endsOf(sync);
    const rivalry = rivalryOf(file, sync, options);
    const lane: SyncConfig = {
      name: sync.name,
      source: node(from),
      target: node(to),
      tables: options.tables ?? sync.tables ?? [],
      exclude: options.exclude ?? sync.exclude ?? [],
      carry: carryRules(file, sync),
      keyless: options.keyless,
      asked: askedFor(settings, options),
      budget: budgetOf(sync, settings, options),
      rivalry,
      guard: guardOf(file, sync, options),
    };
    if (rivalry === null) return [lane];
    return isMeant(lane.name) ? [lane, reversed(lane)] : [reversed(lane)];
  });
}

function endsOf({ from, to, between }: FileSync): readonly [string, string] {
  return between ?? [from ?? '', to ?? ''];
}

function rivalryOf(file: ConfigFile, sync: FileSync, options: Options): Rivalry | null {
  const { name, between } = sync;
  if (between === undefined) return null;
  return {
    counterpart: backOf(name),
    first: between[0],
    second: between[1],
    rules: rulesFrom(file, sync, between, options),
  };
}

/** The reader on the target that stands for what others write there. Names of users have no dot. */
function guardOf(file: ConfigFile, sync: FileSync, options: Options): Rivalry | null {
  if (sync.guard !== true) return null;
  const nodes = endsOf(sync);
  const [first, second] = nodes;
  return { counterpart: guardName(sync.name), first, second, rules: rulesFrom(file, sync, nodes, options) };
}

function rulesFrom(
  file: ConfigFile,
  sync: FileSync,
  nodes: readonly [string, string],
  options: Options,
): ConflictRules {
  const place = ['syncs', file.syncs.indexOf(sync), 'conflicts'];
  return conflictRules(sync.conflicts, {
    nodes,
    locate: (path) => file.locate([...place, ...path]),
    values: options.conflict_values,
    retentionMs: options.conflict_retention,
  });
}

/** What a sync says for itself goes before what the file says for all, and after what this one call says. */
function budgetOf(sync: FileSync, settings: Settings, options: Options): SyncConfig['budget'] {
  const own = (name: 'max_delta_bytes' | 'max_delta_age') =>
    sync[name] !== undefined && (settings[name] === undefined || settings[name].inFile === true);
  return {
    bytes: own('max_delta_bytes') ? (sync.max_delta_bytes ?? null) : options.max_delta_bytes,
    ageMs: own('max_delta_age') ? (sync.max_delta_age ?? null) : options.max_delta_age,
  };
}

function carryRules(file: ConfigFile, sync: FileSync): CarryRule[] {
  const rules: CarryRule[] = [];
  for (const [name, { columns, select, where }] of Object.entries(sync.carry ?? {})) {
    const place = file.locate(['syncs', file.syncs.indexOf(sync), 'carry', name]);
    const table = exactTable(name);
    if (table === undefined) throw new IbexError('internal', `${place} was not checked`);
    if (ruleOf(rules, table) !== undefined)
      throw new IbexError('config', `${place}: the table is there twice`);
    rules.push({
      ...table,
      columns: columns ?? null,
      select: Object.entries(select ?? {}).map(([column, expression]) => ({ column, expression })),
      where: where ?? null,
      place,
    });
  }
  return rules;
}

/** Names are unique, nodes exist, and nothing flows in a circle. */
function checkSyncs({ nodes, syncs, locate }: ConfigFile): void {
  for (const [index, sync] of syncs.entries()) {
    if (syncs.findIndex((other) => other.name === sync.name) < index) {
      throw new IbexError('config', `${locate(['syncs', index, 'name'])}: the name ${sync.name} is taken`);
    }
    const [first, second] = endsOf(sync);
    const places =
      sync.between === undefined
        ? [['from'], ['to']]
        : [
            ['between', 0],
            ['between', 1],
          ];
    for (const [i, name] of [first, second].entries()) {
      if (Object.hasOwn(nodes, name)) continue;
      const place = locate(['syncs', index, ...(places[i] ?? [])]);
      throw new IbexError('config', `${place}: no such node; the nodes are ${Object.keys(nodes).join(', ')}`);
    }
    if (sync.between !== undefined && first === second) {
      throw new IbexError('config', `${locate(['syncs', index, 'between'])}: must be two different nodes`);
    }
  }
  const cycle = findCycle(syncs);
  if (cycle) {
    throw new IbexError('config', `${locate(['syncs'])}: they form a cycle, ${cycle.join(' -> ')}`, {
      hint: 'There must be one way only from a node to another; remove one sync of the cycle.',
    });
  }
}

/**
 * The nodes of a cycle, the first one repeated at the end; undefined when there is none. A pair of nodes is none by itself,
 * however many syncs there are between the two.
 */
function findCycle(syncs: readonly FileSync[]): string[] | undefined {
  const pairs = syncs.flatMap(({ between }) =>
    between === undefined ? [] : [[...between].sort().join(' ')],
  );
  const edges = [
    ...[...new Set(pairs)].map((pair, i) => ({ ends: pair.split(' '), id: `pair ${i}`, both: true })),
    ...syncs.flatMap((sync) =>
      sync.between ? [] : [{ ends: endsOf(sync), id: `sync ${sync.name}`, both: false }],
    ),
  ];
  const walk = (here: string, path: readonly string[], used: readonly string[]): string[] | undefined => {
    if (path.includes(here)) return [...path.slice(path.indexOf(here)), here];
    for (const { ends, id, both } of edges) {
      if (used.includes(id)) continue;
      const [from, to] = both && ends[1] === here ? [ends[1], ends[0]] : [ends[0], ends[1]];
      if (from !== here || to === undefined) continue;
      const cycle = walk(to, [...path, here], [...used, id]);
      if (cycle) return cycle;
    }
    return undefined;
  };
  for (const { ends } of edges) {
    const cycle = walk(ends[0] as string, [], []);
    if (cycle) return cycle;
  }
  return undefined;
}
