/**
 * Random statements of an application that changes its schema while it writes. A statement follows from what the
 * database holds at that moment and a few numbers; it need not be accepted.
 */
import fc from 'fast-check';
import type { Relation } from './catalog.ts';
import {
  alone,
  fresh,
  literal,
  onColumn,
  onPartition,
  onTable,
  pick,
  type Scene,
  type Step,
  writable,
} from './picks.ts';

export interface Action {
  readonly does: string;
  readonly dice: number;
}

type Maker = (scene: Scene) => Step | null;

const NEW_TYPES = [
  'int4',
  'text',
  'numeric',
  'bool',
  'timestamptz',
  'varchar(10)',
  'int8',
  'jsonb',
  'float8',
];

/** How often each is drawn. */
const ACTIONS: Record<string, readonly [number, Maker]> = {
  insert: [30, insert],
  update: [22, update],
  delete: [10, (scene) => onTable(scene, false, (t) => `delete from ${t.sql} where ${condition(scene, t)}`)],
  upsert: [6, upsert],
  merge: [4, merge],
  truncate: [3, truncate],
  'add column': [8, addColumn],
  'drop column': [
    6,
    (scene) => onColumn(scene, (t, c) => `alter table ${t.sql} drop column ${c.name} cascade`),
  ],
  'rename column': [
    12,
    (scene) =>
      onColumn(scene, (t, c) => `alter table ${t.sql} rename column ${c.name} to ${fresh(scene, 'c')}`),
  ],
  'retype column': [9, retype],
  'set default': [
    3,
    (scene) =>
      onColumn(scene, (t, c) => `alter table ${t.sql} alter ${c.name} set default ${literal(scene, c)}`),
  ],
  'not null': [
    2,
    (scene) =>
      onColumn(
        scene,
        (t, c) => `alter table ${t.sql} alter ${c.name} ${c.notNull ? 'drop' : 'set'} not null`,
      ),
  ],
  'rename table': [
    3,
    (scene) => onTable(scene, true, (t) => `alter table ${t.sql} rename to ${fresh(scene, 't')}`),
  ],
  'move table': [
    3,
    (scene) =>
      onTable(
        scene,
        true,
        (t) => `alter table ${t.sql} set schema ${t.schema === 'public' ? 'other' : 'public'}`,
      ),
  ],
  'create table': [3, createTable],
  'drop table': [1, (scene) => onTable(scene, true, (t) => `drop table ${t.sql} cascade`)],
  'create index': [4, createIndex],
  'drop index': [3, dropIndex],
  'drop constraint': [3, dropConstraint],
  'add primary key': [
    4,
    (scene) => onColumn(scene, (t, c) => `alter table ${t.sql} add primary key (${c.name})`),
  ],
  'add check': [
    2,
    (scene) => onColumn(scene, (t, c) => `alter table ${t.sql} add check (${c.name} is not null) not valid`),
  ],
  'add foreign key': [2, addForeignKey],
  'create partition': [4, createPartition],
  'detach partition': [
    3,
    (scene) => onPartition(scene, (t) => `alter table ${t.partitionOf} detach partition ${t.sql}`),
  ],
  'attach partition': [4, attachPartition],
  'drop partition': [2, (scene) => onPartition(scene, (t) => `drop table ${t.sql}`)],
  triggers: [
    3,
    (scene) =>
      onTable(
        scene,
        true,
        (t) =>
          `alter table ${t.sql} ${pick(scene, ['disable', 'enable'])} trigger ${pick(scene, ['user', 'user', 'all'])}`,
      ),
  ],
  'replica identity': [2, replicaIdentity],
  persistence: [
    3,
    (scene) => onTable(scene, true, (t) => `alter table ${t.sql} set ${pick(scene, ['logged', 'unlogged'])}`),
  ],
  cluster: [2, cluster],
  'vacuum full': [3, (scene) => alone(onTable(scene, false, (t) => `vacuum full ${t.sql}`))],
  vacuum: [1, (scene) => alone(onTable(scene, false, (t) => `vacuum (analyze) ${t.sql}`))],
  reindex: [1, (scene) => onTable(scene, false, (t) => `reindex table ${t.sql}`)],
  comment: [1, (scene) => onTable(scene, true, (t) => `comment on table ${t.sql} is 'seen'`)],
  grant: [
    2,
    (scene) =>
      onTable(scene, true, (t) =>
        pick(scene, [`grant select on ${t.sql} to public`, `revoke all on ${t.sql} from public`]),
      ),
  ],
  'row security': [
    2,
    (scene) =>
      onTable(
        scene,
        true,
        (t) =>
          `alter table ${t.sql} ${pick(scene, ['enable', 'disable', 'force', 'no force'])} row level security`,
      ),
  ],
  policy: [
    1,
    (scene) => onTable(scene, true, (t) => `create policy ${fresh(scene, 'y')} on ${t.sql} using (true)`),
  ],
  'create child': [
    2,
    (scene) => onTable(scene, true, (t) => `create table other.${fresh(scene, 'h')} () inherits (${t.sql})`),
  ],
  inherit: [1, inherit],
  storage: [
    1,
    (scene) =>
      onTable(scene, true, (t) => `alter table ${t.sql} set (fillfactor = ${50 + scene.dice.roll(50)})`),
  ],
  view: [
    2,
    (scene) =>
      onTable(scene, true, (t) => `create view other.${fresh(scene, 'v')} as select * from ${t.sql}`),
  ],
  trigger: [
    2,
    (scene) =>
      onTable(
        scene,
        true,
        (t) =>
          `create trigger ${fresh(scene, 'g')} after insert on ${t.sql} for each row execute function public.nothing()`,
      ),
  ],
};

export const actions: fc.Arbitrary<Action> = fc.record({
  does: fc.oneof(
    ...Object.entries(ACTIONS).map(([name, [weight]]) => ({ weight, arbitrary: fc.constant(name) })),
  ),
  dice: fc.nat(),
});

export function stepOf(action: Action, scene: Scene): Step | null {
  return (ACTIONS[action.does] as readonly [number, Maker])[1](scene);
}

function insert(scene: Scene): Step | null {
  return onTable(scene, false, (table) => {
    const columns = writable(table);
    if (columns.length === 0) return `insert into ${table.sql} default values`;
    const row = () => `(${columns.map((column) => literal(scene, column)).join(', ')})`;
    const rows = Array.from({ length: 1 + scene.dice.roll(5) }, row).join(', ');
    const conflict = scene.dice.roll(2) === 0 ? ' on conflict do nothing' : '';
    return `insert into ${table.sql} (${columns.map(({ name }) => name).join(', ')}) values ${rows}${conflict}`;
  });
}

function update(scene: Scene): Step | null {
  return onTable(scene, false, (table) => {
    const columns = writable(table);
    if (columns.length === 0) return `delete from ${table.sql} where false`;
    const column = pick(scene, columns);
    return `update ${table.sql} set ${column.name} = ${literal(scene, column)} where ${condition(scene, table)}`;
  });
}

function condition(scene: Scene, table: Relation): string {
  const columns = table.columns.filter(({ type }) => type !== 'jsonb');
  if (columns.length === 0 || scene.dice.roll(8) === 0) return 'true';
  const column = pick(scene, columns);
  return `${column.name} = ${literal(scene, column)}`;
}

function upsert(scene: Scene): Step | null {
  const tables = scene.relations.filter((table) => table.columns.some((column) => column.key));
  if (tables.length === 0) return null;
  const table = pick(scene, tables);
  const columns = writable(table);
  const key = table.columns.filter((column) => column.key).map(({ name }) => name);
  const set = pick(scene, table.columns);
  const values = columns.map((column) => literal(scene, column)).join(', ');
  return {
    sql: `insert into ${table.sql} (${columns.map(({ name }) => name).join(', ')}) values (${values})
          on conflict (${key.join(', ')}) do update set ${set.name} = excluded.${set.name}`,
    ddl: false,
  };
}

function merge(scene: Scene): Step | null {
  return onTable(scene, false, (table) => {
    const columns = writable(table);
    const [first] = columns;
    if (first === undefined) return `delete from ${table.sql}`;
    const set = pick(scene, columns);
    const matched = pick(scene, ['delete', `update set ${set.name} = ${literal(scene, set)}`]);
    return `merge into ${table.sql} t using (select ${literal(scene, first)} as value) s on t.${first.name} = s.value
            when matched then ${matched}`;
  });
}

function truncate(scene: Scene): Step | null {
  return onTable(
    scene,
    false,
    (table) => `truncate ${table.sql}${pick(scene, ['', ' cascade', ' restart identity'])}`,
  );
}

function addColumn(scene: Scene): Step | null {
  const type = pick(scene, NEW_TYPES);
  const value = literal(scene, {
    type: type.replace('varchar', 'character varying').replace('bool', 'boolean'),
  });
  const forms = [
    '',
    ` default ${value}`,
    ` default ${value}`,
    ` not null default ${value === 'null' ? "'0'" : value}`,
    ...(/^(int|numeric|float)/.test(type)
      ? [' default (random() * 0 + 7)', ' generated always as (1 + 1) stored']
      : []),
  ];
  return onTable(
    scene,
    true,
    (table) => `alter table ${table.sql} add column ${fresh(scene, 'c')} ${type}${pick(scene, forms)}`,
  );
}

/** To a type that holds every value of the one before, mostly. */
function retype(scene: Scene): Step | null {
  return onColumn(scene, (table, { name, type }) => {
    const numbers = ['int8', 'numeric', 'numeric(20,2)', 'text'];
    const wider = /^(int|smallint|bigint)/.test(type)
      ? pick(scene, numbers)
      : pick(scene, ['text', 'varchar(200)']);
    return `alter table ${table.sql} alter column ${name} type ${wider} using ${name}::${wider}`;
  });
}

function createTable(scene: Scene): Step | null {
  const name = `public.${fresh(scene, 't')}`;
  const key = pick(scene, ['int primary key', 'int generated by default as identity primary key', 'int']);
  return { sql: `create table ${name} (id ${key}, v text, n int)`, ddl: true };
}

function createIndex(scene: Scene): Step | null {
  const unique = pick(scene, ['', '', 'unique ']);
  return onColumn(scene, (table, column) => `create ${unique}index on ${table.sql} (${column.name})`);
}

function dropIndex(scene: Scene): Step | null {
  const all = scene.relations.flatMap((table) =>
    table.indexes.map((index) => ({
      sql: `drop index ${table.schema}.${index.name}`,
      ddl: true,
    })),
  );
  return all.length === 0 ? null : pick(scene, all);
}

function dropConstraint(scene: Scene): Step | null {
  const all = scene.relations.flatMap((table) =>
    table.constraints.map(({ name }) => ({
      sql: `alter table ${table.sql} drop constraint ${name} cascade`,
      ddl: true,
    })),
  );
  return all.length === 0 ? null : pick(scene, all);
}

function addForeignKey(scene: Scene): Step | null {
  const parents = scene.relations.filter(
    (table) => table.columns.filter((column) => column.key).length === 1,
  );
  if (parents.length === 0) return null;
  const parent = pick(scene, parents);
  const action = pick(scene, ['cascade', 'set null', 'no action']);
  return onColumn(
    scene,
    (table, column) =>
      `alter table ${table.sql} add foreign key (${column.name}) references ${parent.sql} on delete ${action} not valid`,
  );
}

function createPartition(scene: Scene): Step | null {
  const roots = scene.relations.filter((table) => table.partitioned);
  if (roots.length === 0) return null;
  const root = pick(scene, roots);
  const name = `public.${fresh(scene, 'p')}`;
  const from = scene.dice.roll(20) * 5;
  return {
    sql: `create table ${name} partition of ${root.sql} for values ${bound(root, from)}`,
    ddl: true,
  };
}

function attachPartition(scene: Scene): Step | null {
  const roots = scene.relations.filter((table) => table.partitioned);
  const others = scene.relations.filter((table) => table.partitionOf === null && !table.partitioned);
  if (roots.length === 0 || others.length === 0) return null;
  const root = pick(scene, roots);
  // Those that were detached before fit best.
  const shape = (table: Relation) =>
    JSON.stringify(table.columns.map(({ name, type }) => [name, type]).sort());
  const fitting = others.filter((table) => shape(table) === shape(root));
  const table = pick(scene, fitting.length > 0 ? fitting : others);
  const from = scene.dice.roll(20) * 5;
  return {
    sql: `alter table ${root.sql} attach partition ${table.sql} for values ${bound(root, from)}`,
    ddl: true,
  };
}

function bound(root: Relation, from: number): string {
  return /list/.test(root.name) ? `in (${from}, ${from + 1})` : `from (${from}) to (${from + 5})`;
}

function inherit(scene: Scene): Step | null {
  return onTable(
    scene,
    true,
    (table) => `alter table ${table.sql} inherit ${pick(scene, scene.relations).sql}`,
  );
}

function replicaIdentity(scene: Scene): Step | null {
  return onTable(scene, true, (table) => {
    const unique = table.indexes.filter((index) => index.unique).map((index) => `using index ${index.name}`);
    return `alter table ${table.sql} replica identity ${pick(scene, ['full', 'default', 'nothing', ...unique])}`;
  });
}

function cluster(scene: Scene): Step | null {
  const all = scene.relations.flatMap((table) =>
    table.indexes.map((index) => ({
      sql: `cluster ${table.sql} using ${index.name}`,
      ddl: false,
    })),
  );
  return all.length === 0 ? null : alone(pick(scene, all));
}
